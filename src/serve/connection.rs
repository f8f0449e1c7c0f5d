//! One connection, from its first byte to its last.

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::{body::Body, extract::Request};
use http::{Response, Version};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::{TowerToHyperService, TowerToHyperServiceFuture},
};
use tower_service::Service;

use super::{
    in_span::{ConnectionSpan, InSpan},
    stop::Stop,
};
use crate::{callback::output::BoxError, sent::io::SentIo};

/// How long an HTTP/2 client on whose connection nothing is under way has to answer the ping by
/// which h2 learns that no more requests are on their way to it.
const TO_ANSWER: Duration = Duration::from_secs(5);

pub(super) async fn serve<I, S, B>(
    builder: Builder<TokioExecutor>,
    io: SentIo<I>,
    service: S,
    span: ConnectionSpan,
    stop: Stop,
) where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let layer = io.layer();
    let state = layer.connection().clone();
    let service = layer.shared(App {
        service: TowerToHyperService::new(service),
        span,
    });
    // What breaks a connection is the peer's business; what was deferred hears of it.
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
    // In this order: what has come before the signal is read before the server hears of it.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = stop => {}
    }
    state.listen_anew();
    connection.as_mut().graceful_shutdown();
    if state.has_only_begun() {
        // hyper would wait for the rest of a first request.
        return;
    }
    loop {
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(TO_ANSWER) => {}
        }
        if state.is_silent() {
            return;
        }
    }
}

/// The app as hyper calls it: it may let requests wait until it is ready for them.
struct App<S> {
    service: TowerToHyperService<S>,
    span: ConnectionSpan,
}

impl<S: Service<Request> + Clone> hyper::service::Service<Request<Incoming>> for App<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = InSpan<TowerToHyperServiceFuture<S, Request>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // Over HTTP/2 requests are answered on tasks of their own.
        let span = match request.version() {
            Version::HTTP_2 => self.span.clone(),
            _ => ConnectionSpan::default(),
        };
        span.around(self.service.call(request.map(Body::new)))
    }
}
