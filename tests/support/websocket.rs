//! The server side of a WebSocket, on hyper's upgrade. axum's extractor would add twenty dependencies
//! for all examples. `examples/websocket` uses it.

use std::future::Future;

use axum::{body::Body, extract::Request, response::Response};
use http::{StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

pub(crate) type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Responds to the handshake, and runs the socket on a task of its own, like axum.
pub(crate) fn upgrade<F>(
    mut request: Request,
    socket: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let key = derive_accept_key(request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes());
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgraded.await.unwrap());
        socket(WebSocketStream::from_raw_socket(io, Role::Server, None).await).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, key)
        .body(Body::empty())
        .unwrap()
}
