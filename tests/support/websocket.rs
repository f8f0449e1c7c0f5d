//! The server's half of a WebSocket, on hyper's upgrade: axum's own extractor would bring twenty crates
//! to everybody who builds an example. `examples/websocket` has that one.

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

/// Answers the handshake, and goes on with the socket in a task of its own, as axum does.
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
