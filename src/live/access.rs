//! Who may see it.

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::extract::{ConnectInfo, connect_info::MockConnectInfo};
use http::{Uri, header, request::Parts};

/// Says whether a request may see the page.
type Allowed = dyn Fn(&Parts) -> bool + Send + Sync;

#[derive(Clone)]
pub(super) enum Access {
    OnlyLoopback,
    If(Arc<Allowed>),
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NoConnectInfo,
    Foreign,
    Forwarded,
    ForeignHost,
    NotAllowed,
}

impl Access {
    pub(super) fn check(&self, request: &Parts) -> Result<(), Refused> {
        match self {
            Self::OnlyLoopback => only_loopback(request),
            Self::If(allowed) if allowed(request) => Ok(()),
            Self::If(_) => Err(Refused::NotAllowed),
        }
    }
}

fn only_loopback(request: &Parts) -> Result<(), Refused> {
    let extensions = &request.extensions;
    let peer = match extensions.get::<ConnectInfo<SocketAddr>>() {
        Some(ConnectInfo(peer)) => peer,
        None => match extensions.get::<MockConnectInfo<SocketAddr>>() {
            Some(MockConnectInfo(peer)) => peer,
            None => return Err(Refused::NoConnectInfo),
        },
    };
    if !peer.ip().to_canonical().is_loopback() {
        return Err(Refused::Foreign);
    }
    // To a proxy on this machine, everybody comes from it.
    let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
    if forwarded
        .iter()
        .any(|name| request.headers.contains_key(*name))
    {
        return Err(Refused::Forwarded);
    }
    // A page of somebody else whose name was made to point here, so that its script can read this.
    match host(request) {
        Some(host) if !is_loopback(&host) => Err(Refused::ForeignHost),
        _ => Ok(()),
    }
}

fn host(request: &Parts) -> Option<String> {
    if let Some(host) = request.uri.host() {
        return Some(host.to_owned());
    }
    let host = request.headers.get(header::HOST)?;
    // One that can't be read is nobody's.
    let authority = host.to_str().ok().and_then(|host| host.parse::<Uri>().ok());
    let host = authority.and_then(|authority| authority.host().map(str::to_owned));
    Some(host.unwrap_or_default())
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoConnectInfo => {
                "The live view is only for this machine, and it is not known where this request \
                 comes from: serve the app with \
                 `app.into_make_service_with_connect_info::<SocketAddr>()`, or say who may see it \
                 with `live.allow(..)`.\n"
            }
            Self::Foreign => {
                "The live view is only for this machine: see it there, or say who may see it with \
                 `live.allow(..)`.\n"
            }
            Self::Forwarded => {
                "The live view is only for this machine, and this request came through a proxy: \
                 say who may see it with `live.allow(..)`.\n"
            }
            Self::ForeignHost => {
                "The live view is only for this machine: open it as `localhost` or `127.0.0.1`.\n"
            }
            Self::NotAllowed => "This is not for you.\n",
        })
    }
}
