//! The routes of the page.

use std::{convert::Infallible, future::ready, sync::Arc};

use axum::{
    Router,
    extract::{OriginalUri, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderName, Method, StatusCode, header, request::Parts};
use tower_service::Service;

use super::{
    access::Access,
    document,
    events::{self, Viewers},
    html::{Text, fill},
    inbox::Inbox,
    parts::{element::Part, failures, names, now, requests, summary},
    snapshot::{Snapshot, Wanted},
};

const PAGE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

const VIEW: &str = "/view";
const STYLE_PATH: &str = "/style.css";
const SCRIPT_PATH: &str = "/script.js";
const SNAPSHOT: &str = "/snapshot.json";
const EVENTS: &str = "/events";

/// Nothing is loaded from elsewhere, no script but the file runs, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// So many requests are in the page as it is first sent.
const REQUESTS_IN_PAGE: usize = 200;

pub(super) fn router<S>(inbox: Arc<Inbox>, access: Access) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let page = Page {
        inbox,
        access,
        viewers: Viewers::default(),
    };
    let mut router = Router::new();
    for path in ["/", VIEW, STYLE_PATH, SCRIPT_PATH, SNAPSHOT, EVENTS] {
        router = router.route_service(path, page.clone());
    }
    router.fallback_service(page)
}

#[derive(Clone)]
struct Page {
    inbox: Arc<Inbox>,
    access: Access,
    viewers: Viewers,
}

impl Service<Request> for Page {
    type Response = Response;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (parts, _) = request.into_parts();
        let mut response = self.respond(&parts);
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (
                HeaderName::from_static("cross-origin-resource-policy"),
                "same-origin",
            ),
        ] {
            headers.insert(name, http::HeaderValue::from_static(value));
        }
        ready(Ok(response))
    }
}

impl Page {
    fn respond(&self, request: &Parts) -> Response {
        if let Err(refused) = self.access.check(request) {
            return (StatusCode::FORBIDDEN, refused.to_string()).into_response();
        }
        if request.method != Method::GET {
            let allow = [(header::ALLOW, "GET")];
            return (StatusCode::METHOD_NOT_ALLOWED, allow).into_response();
        }
        let original = request.extensions.get::<OriginalUri>();
        let path = original.map_or(&request.uri, |original| &original.0).path();
        match request.uri.path() {
            "/" | "" if !path.ends_with('/') => to_view(path),
            "/" | "" | VIEW => self.page(),
            STYLE_PATH => with_type("text/css; charset=utf-8", STYLE),
            SCRIPT_PATH => with_type("text/javascript; charset=utf-8", SCRIPT),
            SNAPSHOT => {
                let snapshot = self.snapshot(usize::MAX);
                with_type("application/json", document::snapshot(&snapshot))
            }
            EVENTS => events::respond(&self.inbox, &self.viewers, request),
            _ => (StatusCode::NOT_FOUND, "There is no such page.\n").into_response(),
        }
    }

    fn snapshot(&self, requests: usize) -> Snapshot {
        let wanted = Wanted { since: 0, requests };
        self.inbox.look(|record| Snapshot::of(record, wanted))
    }

    fn page(&self) -> Response {
        let snapshot = self.snapshot(REQUESTS_IN_PAGE);
        let html =
            |parts: Vec<Part>| -> String { parts.into_iter().map(|(_, html)| html).collect() };
        let page = fill(
            PAGE,
            &[
                ("version", &events::id(&snapshot)),
                ("limit", &snapshot.limits.requests.to_string()),
                ("failures_limit", &snapshot.limits.failures.to_string()),
                (
                    "time",
                    &super::html::Time(snapshot.clock.time_of(snapshot.clock.now)).to_string(),
                ),
                ("totals", &summary::totals(&snapshot)),
                ("bounds", &summary::bounds(&snapshot)),
                ("now", &html(now::now(&snapshot))),
                ("requests", &html(requests::requests(&snapshot))),
                ("failures", &html(failures::failures(&snapshot))),
                ("names", &html(names::names(&snapshot))),
            ],
        );
        with_type("text/html; charset=utf-8", page)
    }
}

fn with_type(kind: &'static str, body: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// All addresses in the page are relative, so that it works behind any prefix; for that its own has
/// to be in a folder. axum's `nest` leaves out the one with just a slash at its end. This address is
/// relative, too: a proxy may have taken something off the path.
fn to_view(path: &str) -> Response {
    let folder = path.rsplit('/').next().unwrap_or("");
    let location = format!("./{folder}{VIEW}");
    let body = format!("<a href=\"{0}\">{0}</a>", Text(&location));
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned());
    let headers = [kind, (header::LOCATION, location)];
    (StatusCode::TEMPORARY_REDIRECT, headers, body).into_response()
}
