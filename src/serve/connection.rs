//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use axum::{body::Body, extract::Request};
use http::Response;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto::Builder, graceful::Watcher},
    service::TowerToHyperService,
};
use tower_service::Service;

use crate::{
    callback::output::BoxError,
    sent::{io::SentIo, layer::Sent},
};

pub(super) async fn serve<I, S, B>(io: SentIo<I>, service: Sent<S>, watcher: Watcher)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let service = TowerToHyperService::new(WithAxumBody(service));
    let mut builder = Builder::new(TokioExecutor::new());
    // WebSockets over HTTP/2 (RFC 8441), which `axum::serve` accepts too.
    builder.http2().enable_connect_protocol();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
    // What breaks a connection is the peer's business; what was deferred hears of it.
    let _ = watcher.watch(connection.into_owned()).await;
}

/// Gives the app the request body type that it knows.
#[derive(Clone)]
struct WithAxumBody<S>(S);

impl<S: Service<Request>> Service<Request<Incoming>> for WithAxumBody<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> S::Future {
        self.0.call(request.map(Body::new))
    }
}
