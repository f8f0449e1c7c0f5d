//! The content of the page and its event stream. `.ci/live_view.py` tests the page in a browser.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{Method, StatusCode, header},
    routing,
};
use axum_defer::{DeferLayer, defer};
use axum_defer_live::Live;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    app::{App, PANIC},
    support::{LOOPBACK, get, get_with, in_time, request, send, text},
};

#[path = "support/app.rs"]
mod app;
mod support;

// ── Routes ──────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn page_works_behind_any_prefix() {
    let live = Live::new();
    let inner = Router::new().nest("/b:c", live.loopback_router());
    let nested = Router::new().nest("/a", inner);
    let response = send(&nested, request(Method::GET, "/a/b:c", Some(LOOPBACK))).await;
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(response.headers()[header::LOCATION], "./b:c/view");
    let title = "<h1>Deferred callbacks</h1>";
    assert!(get(&nested, "/a/b:c/view").await.contains(title));

    let service: Router = live.loopback_router();
    let nested = Router::new().nest_service("/a", service);
    assert!(get(&nested, "/a/").await.contains(title));
    get(&nested, "/a/script.js").await;

    let alone: Router = live.loopback_router();
    let page = get(&alone, "/").await;
    for address in ["href=\"/", "src=\"/", "href=\"http", "src=\"http", "url("] {
        assert!(!page.contains(address), "{address}");
    }
    get(&alone, "/style.css").await;
}

// ── Content ─────────────────────────────────────────────────────────────────────────────────────

#[derive(Debug)]
struct Hostile;

const MARKUP: &str =
    "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\u{202e}\u{200b}\n{{now}}";

impl fmt::Display for Hostile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MARKUP)
    }
}

impl Error for Hostile {}

async fn hostile() -> &'static str {
    defer(async { Err(Hostile) }).name(MARKUP);
    "hello"
}

#[tokio::test]
async fn hostile_text_stays_text() {
    let live = Live::new();
    let layer = DeferLayer::new().observer(live.clone());
    let handle = layer.handle();
    let app = Router::new()
        .route("/{*path}", routing::get(hostile))
        .layer(layer)
        .nest("/live", live.loopback_router());
    assert!("<B>".parse::<Method>().is_err(), "methods have no markup");
    let path = "/x\"'onload='alert(3)";
    let request = get_with(path, &[("x-request-id", "<script>\"'")]);
    text(send(&app, request).await).await;
    in_time(handle.wait_idle()).await;

    let page = get(&app, "/live/view").await;
    assert_eq!(page.matches("<script").count(), 1, "the page's own script");
    assert!(!page.contains("<img"));
    let text = "&lt;img src=x onerror=alert(2)&gt;&amp;amp;\u{fffd}\u{fffd}\n{{now}}";
    assert!(page.contains(text), "{page}");
    assert!(page.contains("/x&quot;&#39;onload=&#39;alert(3)"));
    assert!(page.contains("&lt;script&gt;&quot;&#39;"));

    let json = get(&app, "/live/snapshot.json").await;
    assert!(!json.contains('<'));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["requests"][0]["path"], path);
    assert_eq!(json["failures"][0]["text"], MARKUP);

    let mut events = send(&app, get_with("/live/events", &[])).await;
    let frame = in_time(events.body_mut().frame()).await.unwrap().unwrap();
    let event = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
    assert!(event.contains("data: {") && !event.contains('<'), "{event}");
    assert!(event.contains("&lt;img"));
}

#[tokio::test]
async fn errors_have_sources_and_are_truncated() {
    let app = App::new(&Live::new());
    let paths = ["/error", "/panic", "/long", "/display-panic"];
    let json = app.snapshot_after(&paths).await;
    let failures = json["failures"].as_array().unwrap();
    let found: Vec<_> = failures
        .iter()
        .rev()
        .map(|failure| (&failure["outcome"], &failure["text"]))
        .collect();
    assert_eq!(
        found[0],
        (&json!("error"), &json!("no mail\ncaused by: no network"))
    );
    assert_eq!(found[1], (&json!("panicked"), &json!(PANIC)));
    assert_eq!(found[2], (&json!("error"), &json!("ü".repeat(4096) + "…")));
    let text = format!("formatting the error panicked: {PANIC}");
    assert_eq!(found[3], (&json!("error"), &json!(text)));
    assert_eq!(failures[1]["name"], "n".repeat(120));
    assert_eq!(json["counts"]["failed"], 4);
    assert_eq!(json["counts"]["lost"], 0);
    let page = app.get("/live/view").await;
    assert!(page.contains("<pre>no mail\ncaused by: no network</pre>"));
}

#[tokio::test]
async fn long_path_is_truncated() {
    let app = App::new(&Live::new());
    let path = format!("/{}", "x".repeat(400));
    let json = app.snapshot_after(&[&path]).await;
    assert_eq!(json["requests"][0]["path"], path[..300]);
}

#[tokio::test]
async fn callbacks_that_did_not_run_have_reasons() {
    let app = App::new(&Live::new());
    let json = app.snapshot_after(&["/skipped", "/cancelled", "/ok"]).await;
    for (index, outcome) in ["ok", "cancelled", "skipped"].into_iter().enumerate() {
        let request = &json["requests"][index];
        assert_eq!(request["callbacks"][0]["outcome"], outcome);
        assert_eq!(request["route"], "/{what}");
        let completion = &request["completion"];
        assert_eq!(completion["status"], 200);
        assert_eq!(completion["success"], true);
        assert_eq!(completion["delivery"], "complete");
        assert_eq!(completion["body_bytes"], 5);
    }
    let counts = &json["counts"];
    for (key, count) in [
        ("pending", 0),
        ("running", 0),
        ("ok", 1),
        ("failed", 0),
        ("lost", 0),
        ("did_not_run", 2),
    ] {
        assert_eq!(counts[key], count, "{key}");
    }
}

#[tokio::test]
async fn page_without_script_has_all_views() {
    let app = App::new(&Live::new());
    let handle = app.layer.handle();
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let scope = app.layer.scope(async move {
        defer(async move { released.notified().await }).name("export");
        defer(async {}).name("export mail");
    });
    let scope = tokio::spawn(scope);
    while handle.running() == 0 {
        tokio::task::yield_now().await;
    }
    for path in ["/ok", "/error"] {
        app.get(path).await;
    }
    while handle.pending() + handle.running() > 2 {
        tokio::task::yield_now().await;
    }
    let page = app.get("/live/view").await;

    let now = section(&page, "now");
    assert!(now.contains("<b class=\"name\">export</b>"), "{now}");
    assert!(now.contains(">running for</span> ") && now.contains(">queued for</span> "));
    assert!(
        now.contains("<code>axum-defer-live/tests/page.rs:"),
        "{now}"
    );
    assert!(now.contains("<a href=\"#request-") && now.contains(">scope <"));

    let requests = section(&page, "requests");
    for part in [
        "<b class=\"path\">/ok</b>",
        "<span class=\"quiet route\">/{what}</span>",
        "<span class=\"badge ok\">200</span> <span class=\"badge ok\">complete</span>",
        "<rect class=\"handler\"",
        "<rect class=\"sending\"",
        "<rect class=\"queued\"",
        "<rect class=\"ok\"",
        "<rect class=\"error\"",
        "<rect class=\"running\"",
    ] {
        assert!(requests.contains(part), "{part}: {requests}");
    }

    let failures = section(&page, "failures");
    assert!(failures.contains("<pre>no mail\ncaused by: no network</pre>"));
    assert!(failures.contains("GET /error"), "{failures}");

    // Both requests use the same name.
    let names = section(&page, "names");
    let ran = "<td data-label=\"ran\">2</td><td data-label=\"failed\" class=\"failing\">1</td>";
    assert!(names.contains(ran), "{names}");
    for label in ["queued", "duration"] {
        let cell = names.split_once(&format!("data-label=\"{label}\">"));
        let (cell, _) = cell.unwrap().1.split_once("</td>").unwrap();
        assert_eq!(cell.matches("<span>").count(), 3, "{cell}");
    }
    assert!(names.contains("aria-label=\"2 in the last 5 minutes, 1 failed\""));

    release.notify_one();
    in_time(scope).await.unwrap();
}

fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let start = page.find(&format!("<section id=\"{id}\"")).unwrap();
    let section = &page[start..];
    &section[..section.find("</section>").unwrap()]
}

#[tokio::test]
async fn timed_out_and_lost_are_failures() {
    let app = App::new(&Live::new());
    let slow = async {
        let never = std::future::pending::<()>();
        defer(never).name("slow").timeout(Duration::from_millis(1));
    };
    in_time(app.layer.scope(slow)).await;
    let aborted = app.layer.scope(async {
        defer(std::future::pending::<()>()).name("aborted");
    });
    assert!(aborted.now_or_never().is_none());
    let json = app.snapshot_after(&[]).await;
    assert_eq!(json["counts"]["failed"], 1);
    assert_eq!(json["counts"]["lost"], 1);
    let [lost, timed_out] = &json["failures"].as_array().unwrap()[..] else {
        panic!("two failures: {json}");
    };
    assert_eq!(timed_out["outcome"], "timed_out");
    assert_eq!(timed_out["text"], "timed out after 1ms");
    assert_eq!(lost["outcome"], "lost");
    assert_eq!(
        lost["text"],
        axum_defer::LostReason::Interrupted.to_string()
    );
    let page = app.get("/live/view").await;
    let failures = section(&page, "failures");
    assert!(failures.contains(">timed out</span>") && failures.contains(">lost</span>"));
}

#[tokio::test]
async fn request_with_cancelled_callback_completes() {
    let app = App::new(&Live::new());
    let json = app.snapshot_after(&["/cancelled"]).await;
    assert_eq!(json["unfinished"], json!([]));
    let completion = &json["requests"][0]["completion"];
    assert_eq!(completion["status"], 200);
    assert_eq!(completion["delivery"], "complete");
    assert_eq!(completion["body_bytes"], 5);
    let page = app.get("/live/view").await;
    assert!(!page.contains("in progress") && !page.contains("handler running"));
}

// ── Events ──────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn reconnect_gets_only_changes() {
    let app = App::new(&Live::new());
    app.snapshot_after(&["/first"]).await;
    let first = event(&app, &[]).await;
    assert!(first.contains("\"reset\":true") && first.contains("/first"));
    let mut lines = first.lines();
    let id = lines.find_map(|line| line.strip_prefix("id: ")).unwrap();
    app.snapshot_after(&["/second"]).await;
    let second = event(&app, &[("last-event-id", id)]).await;
    assert!(second.contains("\"reset\":false"), "{second}");
    assert!(second.contains("/second") && !second.contains("/first"));
    for other in [
        "1-1",
        "nonsense",
        "-",
        "99999999999999999999999999999999999999999-0",
    ] {
        let all = event(&app, &[("last-event-id", other)]).await;
        assert!(
            all.contains("\"reset\":true") && all.contains("/first"),
            "{other}"
        );
    }
}

async fn event(app: &App, headers: &[(&'static str, &str)]) -> String {
    let mut events = send(&app.router, get_with("/live/events", headers)).await;
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let frame = in_time(events.body_mut().frame()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    text
}

#[cfg(feature = "serve")]
#[tokio::test]
async fn shutdown_ends_event_stream() {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::oneshot,
    };

    let page: Router = Live::new().router_if(|_| true);
    let app = Router::new().nest("/live", page);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum_defer::serve(listener, app)
        .with_graceful_shutdown(async { stopped.await.unwrap() })
        .drain_timeout(Duration::from_secs(3600));
    let report = tokio::spawn(server.into_future());

    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"GET /live/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut received = String::new();
    let mut buffer = [0; 4096];
    while !received.contains("data: ") {
        let read = in_time(stream.read(&mut buffer)).await.unwrap();
        received.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    stop.send(()).unwrap();
    let mut rest = Vec::new();
    in_time(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the response is complete");
    let report = in_time(report).await.unwrap().unwrap();
    assert_eq!(report.shutdown_guards, 0);
}
