//! Access to the page: `loopback_router`, `router_if`, methods, and headers.

use axum::{
    Router,
    http::{Method, StatusCode, header, request::Parts},
};
use axum_defer_live::Live;

use crate::support::{LOOPBACK, PATHS, REMOTE, empty, get, get_with, request, send, text};

mod support;

const VIEW: &str = "/admin/deferred/view";

async fn status(headers: &[(&'static str, &str)]) -> StatusCode {
    send(&empty(), get_with(VIEW, headers)).await.status()
}

#[tokio::test]
async fn unknown_peer_is_refused_with_advice() {
    for path in PATHS {
        let response = send(&empty(), request(Method::GET, path, None)).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
        let text = text(response).await;
        assert!(
            text.contains("into_make_service_with_connect_info"),
            "{text}"
        );
        assert!(text.contains("live.router_if("), "{text}");
    }
}

#[tokio::test]
async fn remote_peer_is_refused() {
    for path in PATHS {
        for peer in [
            REMOTE,
            "[2001:db8::1]:5000",
            "0.0.0.0:5000",
            "[::ffff:203.0.113.9]:1",
        ] {
            let response = send(&empty(), request(Method::GET, path, Some(peer))).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path} {peer}");
        }
    }
}

#[tokio::test]
async fn loopback_peer_is_allowed() {
    for peer in [
        LOOPBACK,
        "127.9.9.9:1",
        "[::1]:5000",
        "[::ffff:127.0.0.1]:5000",
    ] {
        let response = send(&empty(), request(Method::GET, VIEW, Some(peer))).await;
        assert_eq!(response.status(), StatusCode::OK, "{peer}");
    }
}

#[tokio::test]
async fn proxied_request_is_refused() {
    for name in [
        "cf-connecting-ip",
        "fly-client-ip",
        "forwarded",
        "true-client-ip",
        "via",
        "x-client-ip",
        "x-envoy-external-address",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-forwarded-server",
        "x-real-ip",
    ] {
        for value in ["127.0.0.1", ""] {
            let refused = status(&[(name, value)]).await;
            assert_eq!(refused, StatusCode::FORBIDDEN, "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn foreign_host_is_refused() {
    for (host, expected) in [
        ("rebound.example", StatusCode::FORBIDDEN),
        ("127.0.0.1.example:3000", StatusCode::FORBIDDEN),
        ("", StatusCode::FORBIDDEN),
        ("localhost:3000", StatusCode::OK),
        ("[::1]:3000", StatusCode::OK),
        ("127.0.0.1", StatusCode::OK),
    ] {
        assert_eq!(status(&[("host", host)]).await, expected, "{host}");
    }
}

#[tokio::test]
async fn cross_site_read_is_refused() {
    for path in PATHS {
        for site in ["cross-site", "same-site", "unknown"] {
            let request = get_with(path, &[("sec-fetch-site", site)]);
            let response = send(&empty(), request).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path} {site}");
        }
    }
    for site in ["same-origin", "none"] {
        assert_eq!(status(&[("sec-fetch-site", site)]).await, StatusCode::OK);
    }
}

#[tokio::test]
async fn cross_site_link_opens_the_page() {
    let navigation = |dest| {
        [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", dest),
        ]
    };
    assert_eq!(status(&navigation("document")).await, StatusCode::OK);
    // A frame in the page of another origin.
    assert_eq!(status(&navigation("iframe")).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn other_origin_is_refused() {
    for (origin, host, expected) in [
        (
            "https://evil.example",
            "localhost:3000",
            StatusCode::FORBIDDEN,
        ),
        (
            "http://localhost:8080",
            "localhost:3000",
            StatusCode::FORBIDDEN,
        ),
        ("http://localhost", "localhost:3000", StatusCode::FORBIDDEN),
        ("null", "localhost:3000", StatusCode::FORBIDDEN),
        ("", "localhost:3000", StatusCode::FORBIDDEN),
        ("http://localhost:3000", "localhost:3000", StatusCode::OK),
        ("https://localhost:3000", "localhost:3000", StatusCode::OK),
        ("http://[::1]:3000", "[::1]:3000", StatusCode::OK),
    ] {
        let response = status(&[("origin", origin), ("host", host)]).await;
        assert_eq!(response, expected, "{origin} {host}");
    }
    for origin in ["null", "http://localhost"] {
        assert_eq!(
            status(&[("origin", origin)]).await,
            StatusCode::FORBIDDEN,
            "{origin} without a host"
        );
    }
}

#[tokio::test]
async fn predicate_runs_for_each_request() {
    let live = Live::new();
    let page: Router = live.router_if(|parts: &Parts| parts.headers.contains_key("admin"));
    let app = Router::new().nest("/live", page);
    for path in ["/live", "/live/view", "/live/snapshot.json", "/live/events"] {
        let refused = send(&app, request(Method::GET, path, Some(LOOPBACK))).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{path}");
    }
    let mut allowed = request(Method::GET, "/live/view", Some(REMOTE));
    allowed
        .headers_mut()
        .insert("admin", "yes".parse().unwrap());
    assert_eq!(send(&app, allowed).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn other_methods_get_405() {
    let methods = [
        "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PURGE",
    ];
    for path in PATHS {
        for method in methods {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let response = send(&empty(), request(method.clone(), path, Some(LOOPBACK))).await;
            assert_eq!(
                response.status(),
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
            assert_eq!(response.headers()[header::ALLOW], "GET");
        }
    }
}

#[tokio::test]
async fn policy_allows_only_own_script() {
    for path in PATHS {
        let response = send(&empty(), request(Method::GET, path, Some(LOOPBACK))).await;
        let headers = response.headers();
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
        assert!(!headers.contains_key(header::SET_COOKIE));
    }
    let page = get(&empty(), VIEW).await;
    assert_eq!(page.matches("<script").count(), 1);
    assert!(page.contains("<script src=\"script.js\" defer></script>"));
    assert!(!page.contains(" style="));
    assert!(!page.contains("<style"));
}
