//! The app of one connection, as hyper calls it.

use std::{convert::Infallible, sync::Arc};

use axum::extract::Request;
use http::{Response, Version};
use hyper::body::Incoming;
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use tower_service::Service;

use super::{
    request_body::RequestBody,
    span::{InSpan, Span},
};
use crate::sent::{SentBody, SentFuture, connection::Connection, io::SentIo};

/// The service of one connection. hyper shares it among the requests, so it is not cloned for each.
pub(super) struct ConnectionService<S> {
    service: TowerToHyperService<S>,
    connection: Arc<Connection>,
    span: Span,
}

impl<S> ConnectionService<S> {
    pub(super) fn new<I>(service: S, io: &SentIo<I>, span: Span) -> Self {
        Self {
            service: TowerToHyperService::new(service),
            connection: io.connection().clone(),
            span,
        }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body,
{
    type Response = Response<SentBody<B>>;
    type Error = Infallible;
    type Future = SentFuture<InSpan<TowerToHyperServiceFuture<S, Request>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // An HTTP/2 request runs on a task of its own, outside of the connection's span.
        let is_http2 = request.version() == Version::HTTP_2;
        let span = is_http2.then(|| self.span.clone());
        let request: Request = request.map(|body| RequestBody::wrap(body, &self.connection));
        SentFuture::new(&self.connection, request, |request| {
            InSpan::new(self.service.call(request), span)
        })
    }
}
