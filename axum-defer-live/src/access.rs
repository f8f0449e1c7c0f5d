//! Access control.

use std::{net::SocketAddr, sync::Arc};

use axum::extract::{ConnectInfo, connect_info::MockConnectInfo};
use http::{HeaderName, Uri, header, request::Parts};

type Predicate = dyn Fn(&Parts) -> bool + Send + Sync;

#[derive(Clone)]
pub(crate) enum Access {
    Loopback,
    If(Arc<Predicate>),
}

/// The text of a 403.
type Refusal = &'static str;

const UNKNOWN_PEER: Refusal = "The live view is open to this machine only, and the address of the client is not known. \
     Serve the app with `app.into_make_service_with_connect_info::<SocketAddr>()`, or use \
     `live.router_if(..)`.\n";
const REMOTE_PEER: Refusal =
    "The live view is open to this machine only. To open it to others, use `live.router_if(..)`.\n";
const PROXY: Refusal = "The live view is open to this machine only, and this request came through a proxy. \
     Behind a proxy, use `live.router_if(..)`.\n";
const FOREIGN_HOST: Refusal =
    "The live view is open to this machine only. Open it as `localhost` or `127.0.0.1`.\n";
const CROSS_SITE: Refusal = "The live view is open to this machine only, and a page of another origin sent this \
     request. Open it directly.\n";
const NOT_ALLOWED: Refusal = "Access denied.\n";

/// Headers that proxies add, in addition to `X-Forwarded-*`. The address of the peer is not enough: all
/// clients of a proxy on this machine have a loopback address.
const PROXY_HEADERS: [&str; 8] = [
    "cf-connecting-ip",
    "fly-client-ip",
    "forwarded",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-envoy-external-address",
    "x-real-ip",
];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

impl Access {
    pub(crate) fn check(&self, request: &Parts) -> Result<(), Refusal> {
        match self {
            Self::Loopback => check_loopback(request),
            Self::If(predicate) if predicate(request) => Ok(()),
            Self::If(_) => Err(NOT_ALLOWED),
        }
    }
}

fn check_loopback(request: &Parts) -> Result<(), Refusal> {
    let peer = peer(request).ok_or(UNKNOWN_PEER)?;
    if !peer.ip().to_canonical().is_loopback() {
        return Err(REMOTE_PEER);
    }
    let mut headers = request.headers.keys().map(HeaderName::as_str);
    if headers.any(|name| name.starts_with("x-forwarded-") || PROXY_HEADERS.contains(&name)) {
        return Err(PROXY);
    }
    let authority = authority(request);
    // Without this check, a DNS name that resolves to this machine could be used to read the page.
    if authority.as_ref().is_some_and(|uri| !is_loopback(uri)) {
        return Err(FOREIGN_HOST);
    }
    if is_cross_site(request, authority.as_ref()) {
        return Err(CROSS_SITE);
    }
    Ok(())
}

fn peer(request: &Parts) -> Option<&SocketAddr> {
    let extensions = &request.extensions;
    let peer = extensions.get().map(|ConnectInfo(peer)| peer);
    peer.or_else(|| extensions.get().map(|MockConnectInfo(peer)| peer))
}

/// Returns `true` if a page of another origin sent the request. The app may have a CORS layer that
/// lets such pages read every response.
///
/// Links are not refused: the other page cannot read the document that they open.
fn is_cross_site(request: &Parts, authority: Option<&Uri>) -> bool {
    let value = |name: HeaderName| request.headers.get(name).map(|value| value.as_bytes());
    let is_navigation =
        value(SEC_FETCH_MODE) == Some(b"navigate") && value(SEC_FETCH_DEST) == Some(b"document");
    let is_other_site = match value(SEC_FETCH_SITE) {
        None => false,
        Some(site) => !matches!(site, b"same-origin" | b"none") && !is_navigation,
    };
    is_other_site || is_other_origin(request, authority)
}

fn is_other_origin(request: &Parts, authority: Option<&Uri>) -> bool {
    let Some(origin) = request.headers.get(header::ORIGIN) else {
        return false;
    };
    let origin = origin.to_str().ok().and_then(|uri| uri.parse::<Uri>().ok());
    let origin = origin.as_ref().and_then(Uri::authority);
    let own = authority.and_then(Uri::authority);
    // Both are unknown for `Origin: null` without a host.
    origin.is_none() || origin != own
}

/// Returns the authority of the request as a URI, which is empty if it cannot be parsed.
fn authority(request: &Parts) -> Option<Uri> {
    if request.uri.authority().is_some() {
        return Some(request.uri.clone());
    }
    let host = request.headers.get(header::HOST)?;
    let uri = host.to_str().ok().and_then(|host| host.parse().ok());
    Some(uri.unwrap_or_default())
}

fn is_loopback(authority: &Uri) -> bool {
    let host = authority.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
