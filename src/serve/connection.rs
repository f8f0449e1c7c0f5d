//! One connection, from its first byte to its last.

use std::{convert::Infallible, future::ready, pin::pin, time::Duration};

use axum::extract::Request;
use http::Response;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tower_service::Service;

use super::{app::App, head_timeout::HeadTimeout, stop::Stop};
use crate::{callback::output::BoxError, sent::io::SentIo};

/// How long an HTTP/2 client on whose connection nothing is under way has to answer the ping by
/// which h2 learns that no more requests are on their way to it.
const TO_ANSWER: Duration = Duration::from_secs(5);

pub(super) async fn serve<I, S, B>(
    builder: Builder<TokioExecutor>,
    io: SentIo<I>,
    app: App<S>,
    head_timeout: HeadTimeout,
    stop: Stop,
) where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let state = app.connection().clone();
    // What breaks a connection is the peer's business; what was deferred hears of it.
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), app));
    // In this order: what has come before the signal is read before the server hears of it, and
    // the time-out looks at what the connection has come to.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = stop => {}
        () = head_timeout => {
            connection.as_mut().graceful_shutdown();
            // Once, for a proper goodbye where nothing has come.
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                () = ready(()) => {}
            }
            if state.is_busy() {
                // The head has come in this very moment, and is the last one.
                let _ = connection.await;
            }
            return;
        }
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
