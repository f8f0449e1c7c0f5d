//! The routes of the page.

use std::{future::ready, sync::Arc};

use axum::{
    Router,
    extract::{OriginalUri, Request},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderName, Method, StatusCode, header, request::Parts};

use crate::{
    access::Access,
    html::{Text, Time, fill},
    recorder::Recorder,
    snapshot::{Filter, Snapshot},
    snapshot_json::snapshot_json,
    sse::{self, Viewers},
    views::{self, Item},
};

const PAGE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

const VIEW: &str = "/view";
const STYLE_PATH: &str = "/style.css";
const SCRIPT_PATH: &str = "/script.js";
const SNAPSHOT: &str = "/snapshot.json";
const EVENTS: &str = "/events";

/// Allows no script but the page's own file, and no frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// The number of requests in the page before its script runs.
const MAX_REQUESTS: usize = 200;

pub(crate) fn router<S>(recorder: Arc<Recorder>, access: Access) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let page = Page {
        recorder,
        access,
        viewers: Viewers::default(),
    };
    let handler = move |request: Request| ready(page.handle(request));
    let mut router = Router::new();
    for path in ["/", VIEW, STYLE_PATH, SCRIPT_PATH, SNAPSHOT, EVENTS] {
        router = router.route(path, any(handler.clone()));
    }
    router.fallback(handler)
}

#[derive(Clone)]
struct Page {
    recorder: Arc<Recorder>,
    access: Access,
    viewers: Viewers,
}

impl Page {
    fn handle(&self, request: Request) -> Response {
        let (parts, _) = request.into_parts();
        let headers = [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
        ];
        (headers, self.respond(&parts)).into_response()
    }

    fn respond(&self, request: &Parts) -> Response {
        if let Err(refusal) = self.access.check(request) {
            return (StatusCode::FORBIDDEN, refusal).into_response();
        }
        if request.method != Method::GET {
            let allow = [(header::ALLOW, "GET")];
            return (StatusCode::METHOD_NOT_ALLOWED, allow).into_response();
        }
        let original = request.extensions.get::<OriginalUri>();
        let path = original.map_or(&request.uri, |original| &original.0).path();
        match request.uri.path() {
            "/" | "" if !path.ends_with('/') => redirect_to_view(path),
            "/" | "" | VIEW => self.page(),
            STYLE_PATH => content("text/css; charset=utf-8", STYLE),
            SCRIPT_PATH => content("text/javascript; charset=utf-8", SCRIPT),
            SNAPSHOT => {
                let snapshot = self.snapshot(usize::MAX);
                content("application/json", snapshot_json(&snapshot))
            }
            EVENTS => sse::respond(&self.recorder, &self.viewers, request),
            _ => (StatusCode::NOT_FOUND, "Not found.\n").into_response(),
        }
    }

    fn snapshot(&self, max_requests: usize) -> Snapshot {
        let filter = Filter {
            since: 0,
            max_requests,
        };
        self.recorder
            .with_record(|record| Snapshot::new(record, filter))
    }

    fn page(&self) -> Response {
        let snapshot = &self.snapshot(MAX_REQUESTS);
        let clock = &snapshot.clock;
        let html = |items: Vec<Item>| items.into_iter().map(|(_, html)| html).collect();
        let page = fill(
            PAGE,
            &[
                ("version", sse::event_id(snapshot)),
                ("max_requests", snapshot.max_requests.to_string()),
                ("max_failures", snapshot.max_failures.to_string()),
                ("time", Time(clock.time_of(clock.now)).to_string()),
                ("totals", views::totals(snapshot)),
                ("limits", views::limits(snapshot)),
                ("now", html(views::now(snapshot))),
                ("requests", html(views::requests(snapshot))),
                ("failures", html(views::failures(snapshot))),
                ("names", html(views::names(snapshot))),
            ],
        );
        content("text/html; charset=utf-8", page)
    }
}

fn content(kind: &'static str, body: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// Redirects to the page. The links in the page are relative, which needs a path with a folder, but
/// axum's `nest` does not match its prefix with a slash at the end. The redirect is relative, too,
/// because a proxy may have removed a part of the path.
fn redirect_to_view(path: &str) -> Response {
    let folder = path.rsplit('/').next().unwrap_or("");
    let location = format!("./{folder}{VIEW}");
    let body = format!("<a href=\"{0}\">{0}</a>", Text(&location));
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned());
    let headers = [kind, (header::LOCATION, location)];
    (StatusCode::TEMPORARY_REDIRECT, headers, body).into_response()
}
