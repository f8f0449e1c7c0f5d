//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request};
use http::{Response, Version};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::{TowerToHyperService, TowerToHyperServiceFuture},
};
use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    callback::output::BoxError,
    sent::{
        connection::{Connection, UnderWay},
        io::SentIo,
    },
};

/// How long an HTTP/2 client on whose connection nothing is under way has to answer the ping by
/// which h2 learns that no more requests are on their way to it.
const TO_ANSWER: Duration = Duration::from_secs(5);

pub(super) async fn serve<I, S, B>(
    builder: Arc<Builder<TokioExecutor>>,
    io: SentIo<I>,
    service: S,
    stop: CancellationToken,
) where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let layer = io.layer();
    let state = layer.connection().clone();
    let app = App {
        service: layer.layer(service),
        #[cfg(feature = "tracing")]
        span: tracing::Span::current(),
    };
    let service = Arriving {
        app: TowerToHyperService::new(app),
        connection: state.clone(),
    };
    // What breaks a connection is the peer's business; what was deferred hears of it.
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
    // In this order: what has come before the signal is read before the server hears of it.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
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

/// Tells the connection of each request as soon as hyper has its head. The app may let it wait
/// until it is ready for it.
struct Arriving<S> {
    app: TowerToHyperService<App<S>>,
    connection: Arc<Connection>,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Arriving<S>
where
    S: Service<Request, Response = Response<B>> + Clone,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Arrived<TowerToHyperServiceFuture<App<S>, Request<Incoming>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let is_http1 = request.version() < Version::HTTP_2;
        Arrived {
            under_way: self.connection.request_came(is_http1),
            answering: self.app.call(request),
        }
    }
}

pin_project! {
    struct Arrived<F> {
        #[pin]
        answering: F,
        under_way: UnderWay,
    }
}

impl<F: Future> Future for Arrived<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().answering.poll(cx)
    }
}

/// Gives the app the request body type that it knows.
#[derive(Clone)]
struct App<S> {
    service: S,
    /// The span of the connection: requests over HTTP/2 are answered on tasks of their own.
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

#[cfg(feature = "tracing")]
type Answering<F> = tracing::instrument::Instrumented<F>;
#[cfg(not(feature = "tracing"))]
type Answering<F> = F;

impl<S: Service<Request>> Service<Request<Incoming>> for App<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let request = request.map(Body::new);
        #[cfg(feature = "tracing")]
        {
            use tracing::{Instrument, Span};

            let span = match request.version() {
                Version::HTTP_2 => self.span.clone(),
                _ => Span::none(),
            };
            let answering = span.in_scope(|| self.service.call(request));
            answering.instrument(span)
        }
        #[cfg(not(feature = "tracing"))]
        self.service.call(request)
    }
}
