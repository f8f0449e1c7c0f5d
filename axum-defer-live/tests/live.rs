//! The live view over HTTP: who may see it, what it shows, and how much of it. `.ci/live_view.py`
//! looks at it in a browser.
#![cfg(all(feature = "live", feature = "serve"))]

use std::{error::Error, fmt, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Path, Request},
    http::{Method, StatusCode, header, request::Parts},
    response::Response,
    routing::get,
};
use axum_defer::{
    CallbackInfo, Completion, DeferLayer, DeferObserver, ScopeInfo, defer, live::Live,
};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, mpsc},
};
use tower::ServiceExt;

use crate::{
    planned_panics::{PLANNED, silence_planned_panics},
    serving::{LONG, Serving},
    support::in_time,
};

#[path = "support/planned_panics.rs"]
mod planned_panics;
#[path = "support/serving.rs"]
mod serving;
mod support;

const HERE: &str = "127.0.0.1:5000";
/// Of a block that is for documentation.
const FOREIGN: &str = "203.0.113.9:5000";

fn request(method: Method, path: &str, peer: Option<&str>) -> Request {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    if let Some(peer) = peer {
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
    }
    request
}

async fn send(app: &Router, request: Request) -> Response {
    in_time(app.clone().oneshot(request)).await.unwrap()
}

async fn text(response: Response) -> String {
    let body = in_time(response.into_body().collect()).await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

async fn see(app: &Router, path: &str) -> String {
    let response = send(app, request(Method::GET, path, Some(HERE))).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    text(response).await
}

fn empty() -> Router {
    Router::new().nest("/admin/deferred", Live::new().only_loopback())
}

const PATHS: [&str; 6] = [
    "/admin/deferred",
    "/admin/deferred/view",
    "/admin/deferred/style.css",
    "/admin/deferred/snapshot.json",
    "/admin/deferred/events",
    "/admin/deferred/nothing",
];

// ── Who may see it ──────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn where_it_is_not_known_who_comes_nobody_may_see_it_and_is_told_what_to_do() {
    for path in PATHS {
        let response = send(&empty(), request(Method::GET, path, None)).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
        let text = text(response).await;
        assert!(
            text.contains("into_make_service_with_connect_info"),
            "{text}"
        );
        assert!(text.contains("live.allow("), "{text}");
    }
}

#[tokio::test]
async fn foreign_addresses_may_not_see_it() {
    for path in PATHS {
        for foreign in [
            FOREIGN,
            "[2001:db8::1]:5000",
            "0.0.0.0:5000",
            "[::ffff:203.0.113.9]:1",
        ] {
            let response = send(&empty(), request(Method::GET, path, Some(foreign))).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path} {foreign}");
        }
    }
}

#[tokio::test]
async fn this_machine_may_see_it() {
    for peer in [HERE, "127.9.9.9:1", "[::1]:5000", "[::ffff:127.0.0.1]:5000"] {
        let request = request(Method::GET, "/admin/deferred/view", Some(peer));
        assert_eq!(
            send(&empty(), request).await.status(),
            StatusCode::OK,
            "{peer}"
        );
    }
}

#[tokio::test]
async fn what_came_through_a_proxy_or_under_another_name_may_not_see_it() {
    for (name, value, status) in [
        ("x-forwarded-for", "127.0.0.1", StatusCode::FORBIDDEN),
        ("forwarded", "for=127.0.0.1", StatusCode::FORBIDDEN),
        ("x-real-ip", "127.0.0.1", StatusCode::FORBIDDEN),
        ("via", "1.1 proxy", StatusCode::FORBIDDEN),
        ("host", "rebound.example", StatusCode::FORBIDDEN),
        ("host", "127.0.0.1.example:3000", StatusCode::FORBIDDEN),
        ("host", "", StatusCode::FORBIDDEN),
        ("host", "localhost:3000", StatusCode::OK),
        ("host", "[::1]:3000", StatusCode::OK),
        ("host", "127.0.0.1", StatusCode::OK),
    ] {
        let mut request = request(Method::GET, "/admin/deferred/view", Some(HERE));
        request.headers_mut().insert(name, value.parse().unwrap());
        let response = send(&empty(), request).await;
        assert_eq!(response.status(), status, "{name}: {value}");
    }
}

#[tokio::test]
async fn allow_asks_for_each_request() {
    let live = Live::new();
    let page: Router = live.allow(|parts: &Parts| parts.headers.contains_key("admin"));
    let app = Router::new().nest("/live", page);
    for path in ["/live", "/live/view", "/live/snapshot.json", "/live/events"] {
        let refused = send(&app, request(Method::GET, path, Some(HERE))).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{path}");
    }
    let mut allowed = request(Method::GET, "/live/view", Some(FOREIGN));
    allowed
        .headers_mut()
        .insert("admin", "yes".parse().unwrap());
    assert_eq!(send(&app, allowed).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn it_can_only_be_read() {
    let methods = [
        "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PURGE",
    ];
    for path in PATHS {
        for method in methods {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let response = send(&empty(), request(method.clone(), path, Some(HERE))).await;
            assert_eq!(
                response.status(),
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
            assert_eq!(response.headers()[header::ALLOW], "GET");
        }
    }
}

// ── Where it is ─────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn it_works_behind_any_prefix() {
    let live = Live::new();
    let inner = Router::new().nest("/b:c", live.only_loopback());
    let nested = Router::new().nest("/a", inner);
    let response = send(&nested, request(Method::GET, "/a/b:c", Some(HERE))).await;
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(response.headers()[header::LOCATION], "./b:c/view");
    assert!(
        see(&nested, "/a/b:c/view")
            .await
            .contains("<h1>Deferred work</h1>")
    );

    let service: Router = live.only_loopback();
    let nested = Router::new().nest_service("/a", service);
    assert!(see(&nested, "/a/").await.contains("<h1>Deferred work</h1>"));
    see(&nested, "/a/script.js").await;

    let alone: Router = live.only_loopback();
    let page = see(&alone, "/").await;
    for address in ["href=\"/", "src=\"/", "href=\"http", "src=\"http", "url("] {
        assert!(!page.contains(address), "{address}");
    }
    see(&alone, "/style.css").await;
}

#[tokio::test]
async fn its_policy_allows_no_script_but_its_file() {
    for path in PATHS {
        let response = send(&empty(), request(Method::GET, path, Some(HERE))).await;
        let headers = response.headers();
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        assert!(!headers.contains_key(header::SET_COOKIE));
    }
    let page = see(&empty(), "/admin/deferred/view").await;
    assert_eq!(page.matches("<script").count(), 1);
    assert!(page.contains("<script src=\"script.js\" defer></script>"));
    assert!(!page.contains(" style="));
    assert!(!page.contains("<style"));
}

// ── What it shows ───────────────────────────────────────────────────────────────────────────────

#[derive(Debug)]
struct Hostile;

const MARKUP: &str =
    "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\u{202e}\n{{now}}";

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
async fn hostile_names_errors_and_paths_stay_text() {
    let live = Live::new();
    let layer = DeferLayer::new().observer(live.clone());
    let deferred = layer.handle();
    let app = Router::new()
        .route("/{*path}", get(hostile))
        .layer(layer)
        .nest("/live", live.only_loopback());
    let mut hostile = request(Method::GET, "/x\"'onload='alert(3)", None);
    let method = "<B>".parse::<Method>();
    assert!(method.is_err(), "a method has no markup");
    hostile
        .headers_mut()
        .insert("x-request-id", "<script>\"'".parse().unwrap());
    text(send(&app, hostile).await).await;
    in_time(deferred.wait_idle()).await;

    let page = see(&app, "/live/view").await;
    assert_eq!(page.matches("<script").count(), 1, "its own");
    assert!(!page.contains("<img"));
    assert!(page.contains("&lt;img src=x onerror=alert(2)&gt;&amp;amp;\u{fffd}\n{{now}}"));
    assert!(page.contains("/x&quot;&#39;onload=&#39;alert(3)"));
    assert!(page.contains("&lt;script&gt;&quot;&#39;"));

    let json = see(&app, "/live/snapshot.json").await;
    assert!(!json.contains('<'));
    assert!(json.contains(r#""path":"/x\"'onload='alert(3)""#), "{json}");
    assert!(
        json.contains(r#""text":"\"'>\u003cscript>alert(1)\u003c/script>"#),
        "{json}"
    );

    let mut events = send(&app, request(Method::GET, "/live/events", Some(HERE))).await;
    let frame = in_time(events.body_mut().frame()).await.unwrap().unwrap();
    let event = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
    assert!(event.contains("data: {") && !event.contains('<'), "{event}");
    assert!(event.contains("&lt;img"));
}

#[derive(Debug)]
struct Because(Option<Box<Because>>);

impl fmt::Display for Because {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() {
            "no mail"
        } else {
            "no network"
        })
    }
}

impl Error for Because {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.as_deref().map(|source| source as _)
    }
}

/// An app whose requests defer what their path says.
fn app(live: &Live) -> (Router, DeferLayer) {
    let layer = DeferLayer::new().observer(live.clone());
    let handler = async |Path(what): Path<String>| {
        match &*what {
            "error" => {
                drop(defer(async { Err(Because(Some(Box::new(Because(None))))) }).name("mail"))
            }
            "long" => drop(defer(async { Err("ü".repeat(10_000)) }).name("n".repeat(1_000))),
            "panic" => drop(defer(async { panic!("{PLANNED}") })),
            "many" => (0..150).for_each(|_| drop(defer(async {}))),
            "skipped" => {
                defer(async {}).name("mail").when(|_| false);
            }
            "cancelled" => assert!(defer(async {}).name("mail").cancel()),
            _ => drop(defer(async {}).name("mail")),
        }
        "hello"
    };
    let app = Router::new()
        .route("/{what}", get(handler))
        .layer(layer.clone())
        .nest("/live", live.only_loopback());
    (app, layer)
}

async fn defer_some(app: &Router, layer: &DeferLayer, paths: &[&str]) -> String {
    for path in paths {
        text(send(app, request(Method::GET, path, None)).await).await;
        in_time(layer.handle().wait_idle()).await;
    }
    see(app, "/live/snapshot.json").await
}

#[tokio::test]
async fn errors_are_shown_with_their_sources_and_cut() {
    silence_planned_panics();
    let (app, layer) = app(&Live::new());
    let json = defer_some(&app, &layer, &["/error", "/panic", "/long"]).await;
    assert!(json.contains(r#""outcome":"error","text":"no mail\u000acaused by: no network""#));
    assert!(json.contains(r#""outcome":"panicked","text":"planned by the test""#));
    assert!(json.contains(&format!("\"text\":\"{}…\"", "ü".repeat(4096))));
    assert!(json.contains(&format!("\"name\":\"{}\"", "n".repeat(120))));
    assert!(json.contains(r#""failed":3,"lost":0"#), "{json}");
    let page = see(&app, "/live/view").await;
    assert!(page.contains("<pre>no mail\ncaused by: no network</pre>"));
}

#[tokio::test]
async fn long_paths_are_cut() {
    let (app, layer) = app(&Live::new());
    let path = format!("/{}", "x".repeat(400));
    let json = defer_some(&app, &layer, &[&path]).await;
    let kept = format!("\"path\":\"/{}\"", "x".repeat(299));
    assert!(json.contains(&kept), "{json}");
}

#[tokio::test]
async fn what_did_not_run_says_why() {
    let (app, layer) = app(&Live::new());
    let json = defer_some(&app, &layer, &["/skipped", "/cancelled", "/ok"]).await;
    for outcome in ["skipped", "cancelled", "ok"] {
        assert!(
            json.contains(&format!("\"outcome\":\"{outcome}\"")),
            "{json}"
        );
    }
    assert!(json.contains(r#""pending":0,"running":0,"ok":1,"failed":0,"lost":0,"did_not_run":2"#));
    assert!(json.contains(r#""route":"/{what}""#));
    assert!(json.contains(r#""status":200,"success":true,"delivery":"Sent","bytes":5"#));
}

#[tokio::test]
async fn the_page_has_all_views_in_it_without_a_script() {
    let live = Live::new();
    let (app, layer) = app(&live);
    let go = Arc::new(Notify::new());
    let held = go.clone();
    let unit = layer.scope(async move {
        defer(async move { held.notified().await }).name("export");
        defer(async {}).name("export mail");
    });
    let unit = tokio::spawn(unit);
    while layer.handle().running() == 0 {
        tokio::task::yield_now().await;
    }
    for path in ["/ok", "/error"] {
        text(send(&app, request(Method::GET, path, None)).await).await;
    }
    while layer.handle().pending() + layer.handle().running() > 2 {
        tokio::task::yield_now().await;
    }
    let page = see(&app, "/live/view").await;

    // Now: what, for how long, deferred where, of which request.
    let now = section(&page, "now");
    assert!(now.contains("<b class=\"name\">export</b>"), "{now}");
    assert!(
        now.contains(">running for</span> ") && now.contains(">waits for its turn for</span> ")
    );
    assert!(now.contains("<code>tests/live.rs:"));
    assert!(now.contains("<a href=\"#request-") && now.contains(">a unit of work <"));

    // Requests: a picture of each, with its status and delivery.
    let requests = section(&page, "requests");
    for part in [
        "<b class=\"path\">/ok</b>",
        "<span class=\"quiet route\">/{what}</span>",
        "<span class=\"badge ok\">200</span> <span class=\"badge ok\">sent</span>",
        "<rect class=\"handler\"",
        "<rect class=\"sending\"",
        "<rect class=\"waiting\"",
        "<rect class=\"ok\"",
        "<rect class=\"error\"",
        "<rect class=\"running\"",
    ] {
        assert!(requests.contains(part), "{part}: {requests}");
    }

    let failures = section(&page, "failures");
    assert!(failures.contains("<pre>no mail\ncaused by: no network</pre>"));
    assert!(failures.contains("GET /error"), "{failures}");

    // By name: of two that ran, one has failed; three percentiles each, and a sparkline.
    let names = section(&page, "names");
    let ran = "<td data-label=\"ran\">2</td><td data-label=\"failed\" class=\"failing\">1</td>";
    assert!(names.contains(ran), "{names}");
    for label in ["waited", "took"] {
        let cell = names.split_once(&format!("data-label=\"{label}\">"));
        let (cell, _) = cell.unwrap().1.split_once("</td>").unwrap();
        assert_eq!(cell.matches("<span>").count(), 3, "{cell}");
    }
    assert!(names.contains("aria-label=\"in the last 5 minutes 2, of which 1 failed\""));

    go.notify_one();
    in_time(unit).await.unwrap();
}

fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let start = page.find(&format!("<section id=\"{id}\"")).unwrap();
    let section = &page[start..];
    &section[..section.find("</section>").unwrap()]
}

#[tokio::test]
async fn what_was_too_slow_and_what_was_lost_are_failures_too() {
    let live = Live::new();
    let (app, layer) = app(&live);
    let slow = async {
        let never = std::future::pending::<()>();
        defer(never).name("slow").timeout(Duration::from_millis(1));
    };
    in_time(layer.scope(slow)).await;
    let cut_off = layer.scope(async {
        defer(std::future::pending::<()>()).name("cut off");
    });
    assert!(cut_off.now_or_never().is_none());
    in_time(layer.handle().wait_idle()).await;
    let json = see(&app, "/live/snapshot.json").await;
    assert!(json.contains(r#""failed":1,"lost":1"#), "{json}");
    assert!(json.contains(r#""outcome":"timed_out","text":"took longer than 1ms""#));
    let lost = r#""outcome":"lost","text":"it was cut off while it was running""#;
    assert!(json.contains(lost), "{json}");
    let page = see(&app, "/live/view").await;
    let failures = section(&page, "failures");
    assert!(failures.contains(">timed out</span>") && failures.contains(">lost</span>"));
}

#[tokio::test]
async fn a_request_of_which_everything_was_withdrawn_is_over_too() {
    let (app, layer) = app(&Live::new());
    let json = defer_some(&app, &layer, &["/cancelled"]).await;
    assert!(json.contains(r#""unfinished":[]"#), "{json}");
    let end = r#""status":200,"success":true,"delivery":"Sent","bytes":5"#;
    assert!(json.contains(end), "{json}");
    let page = see(&app, "/live/view").await;
    assert!(!page.contains("no end yet") && !page.contains("handler at work"));
}

// ── How much of it ──────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn it_keeps_a_thousand_requests_two_hundred_failures_and_a_hundred_names() {
    let (app, layer) = app(&Live::new());
    for number in 0..1_003 {
        let unit = async {
            let work = async move { if number < 203 { Err("no") } else { Ok(()) } };
            defer(work).name(format!("name {number}"));
        };
        in_time(layer.scope(unit)).await;
    }
    let json = see(&app, "/live/snapshot.json").await;
    assert_eq!(json.matches("\"method\":").count(), 1_000);
    assert_eq!(json.matches("\"text\":").count(), 200);
    // And the others.
    assert_eq!(json.matches("\"ran\":").count(), 101);
    let fallen = r#""requests_fallen_out":3,"failures_fallen_out":3,"#;
    assert!(json.contains(fallen), "{json}");
    let page = see(&app, "/live/view").await;
    let kept = "Keeps the last 1000 requests that deferred something, and 200 failures.";
    assert!(page.contains(kept));
}

#[tokio::test]
async fn it_keeps_so_much_and_counts_what_fell_out() {
    let live = Live::new().requests(3).failures(2).names(1);
    let (app, layer) = app(&live);
    let json = defer_some(
        &app,
        &layer,
        &["/error", "/error", "/error", "/a", "/b", "/many"],
    )
    .await;
    assert_eq!(json.matches("\"method\":").count(), 3);
    assert_eq!(json.matches("\"text\":").count(), 2);
    assert!(
        json.contains(r#""requests_fallen_out":3,"failures_fallen_out":1,"#),
        "{json}"
    );
    assert!(json.contains(r#""callbacks_not_recorded":50"#), "{json}");
    assert!(
        json.contains(r#""registered":155,"pending":0,"running":0,"ok":152"#),
        "{json}"
    );
    assert_eq!(
        json.matches("\"ran\":").count(),
        2,
        "one name, and the others"
    );
    let page = see(&app, "/live/view").await;
    assert!(page.contains("<strong>3</strong> older requests have fallen out."));
    assert!(page.contains("<strong>1</strong> older failures have fallen out."));
    assert!(page.contains("<strong>50</strong> callbacks are counted and not shown"));
}

#[tokio::test]
async fn what_still_runs_never_falls_out() {
    let live = Live::new().requests(2);
    let go = Arc::new(Notify::new());
    let layer = DeferLayer::new().observer(live.clone());
    let handle = layer.handle();
    let held = go.clone();
    let handler = async move |Path(what): Path<String>| {
        if what == "slow" {
            defer(async move { held.notified().await }).name("export");
        }
        defer(async {}).name("mail");
    };
    let app = Router::new()
        .route("/{what}", get(handler))
        .layer(layer)
        .nest("/live", live.only_loopback());
    text(send(&app, request(Method::GET, "/slow", None)).await).await;
    for _ in 0..5 {
        text(send(&app, request(Method::GET, "/quick", None)).await).await;
        while handle.pending() + handle.running() > 2 {
            tokio::task::yield_now().await;
        }
    }
    let json = see(&app, "/live/snapshot.json").await;
    assert!(json.contains(r#""pending":1,"running":1,"ok":5"#), "{json}");
    assert!(json.contains(r#""path":"/slow""#) && json.contains(r#""path":"/quick""#));
    assert!(json.contains(r#""requests_fallen_out":4"#), "{json}");
    let page = see(&app, "/live/view").await;
    assert!(page.contains("running for") && page.contains("waits for its turn for"));
    go.notify_one();
    in_time(handle.wait_idle()).await;
    let json = see(&app, "/live/snapshot.json").await;
    assert!(json.contains(r#""unfinished":[]"#), "{json}");
}

#[tokio::test]
async fn so_many_look_at_it_and_the_next_one_has_to_wait() {
    let app = empty();
    let events = || request(Method::GET, "/admin/deferred/events", Some(HERE));
    let mut looking = Vec::new();
    for _ in 0..16 {
        let response = send(&app, events()).await;
        assert_eq!(response.status(), StatusCode::OK);
        looking.push(response);
    }
    let refused = send(&app, events()).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    looking.pop();
    assert_eq!(send(&app, events()).await.status(), StatusCode::OK);
}

// ── Events ──────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_shutdown_ends_the_stream_of_events() {
    let live = Live::new();
    // `Serving` takes no make-service; who may see it is not what is tested here.
    let page: Router = live.allow(|_| true);
    let app = Router::new().nest("/live", page);
    let (serving, address) = Serving::start(app, LONG).await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = b"GET /live/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut received = String::new();
    let mut buffer = [0; 4096];
    while !received.contains("data: ") {
        let read = in_time(stream.read(&mut buffer)).await.unwrap();
        received.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    let report = serving.stop();
    let mut rest = Vec::new();
    in_time(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the response has its end");
    let report = in_time(report).await.unwrap();
    assert_eq!(report.unfinished_holders, 0);
}

#[tokio::test]
async fn a_browser_that_comes_back_is_told_only_what_is_new() {
    let live = Live::new();
    let (app, layer) = app(&live);
    defer_some(&app, &layer, &["/first"]).await;
    let first = event(&app, None).await;
    assert!(first.contains("\"reset\":true") && first.contains("/first"));
    let id = first
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .unwrap();
    defer_some(&app, &layer, &["/second"]).await;
    let second = event(&app, Some(id)).await;
    assert!(second.contains("\"reset\":false"), "{second}");
    assert!(second.contains("/second") && !second.contains("/first"));
    for other in [
        "1-1",
        "nonsense",
        "-",
        "99999999999999999999999999999999999999999-0",
    ] {
        let all = event(&app, Some(other)).await;
        assert!(
            all.contains("\"reset\":true") && all.contains("/first"),
            "{other}"
        );
    }
}

async fn event(app: &Router, last: Option<&str>) -> String {
    let mut request = request(Method::GET, "/live/events", Some(HERE));
    if let Some(last) = last {
        let headers = request.headers_mut();
        headers.insert("last-event-id", last.parse().unwrap());
    }
    let mut events = send(app, request).await;
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let frame = in_time(events.body_mut().frame()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    text
}

// ── What observers are told for it ──────────────────────────────────────────────────────────────

#[tokio::test]
async fn observers_learn_of_arrival_head_and_end() {
    struct Tells(mpsc::UnboundedSender<String>);
    impl DeferObserver for Tells {
        fn registered(&self, callback: &CallbackInfo<'_>) {
            assert!(callback.arrived().is_some());
            let _ = self.0.send(format!("registered {:?}", callback.answered()));
        }
        fn decided(&self, scope: &ScopeInfo, completion: &Completion) {
            let answered = scope.answered().unwrap();
            assert!(answered <= completion.elapsed());
            assert!(scope.arrived() + completion.elapsed() <= std::time::Instant::now());
            let request = scope.request().unwrap();
            let _ = self
                .0
                .send(format!("decided {request} {}", completion.bytes_sent()));
        }
        fn started(&self, callback: &CallbackInfo<'_>, _: std::time::Duration) {
            assert!(callback.answered().is_some());
            let _ = self.0.send("started".to_owned());
        }
    }
    let (sender, mut told) = mpsc::unbounded_channel();
    let handler = async || {
        defer(async {});
        "hello"
    };
    let app = Router::new()
        .route("/a", get(handler))
        .route("/nothing", get(async || "hello"))
        .layer(DeferLayer::new().observer(Tells(sender)));
    text(send(&app, request(Method::GET, "/nothing", None)).await).await;
    text(send(&app, request(Method::GET, "/a", None)).await).await;
    for expected in ["registered None", "decided GET /a 5", "started"] {
        assert_eq!(in_time(told.recv()).await.unwrap(), expected);
    }
}
