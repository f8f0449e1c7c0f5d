//! The app of one connection, as hyper calls it.

use std::{convert::Infallible, sync::Arc};

use axum::{body::Body, extract::Request};
use http::{Response, Version};
use hyper::body::Incoming;
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use tower_service::Service;

use super::{
    in_span::{ConnectionSpan, InSpan},
    request_body::RequestBody,
};
use crate::sent::{SentBody, SentFuture, connection::Connection, io::SentIo};

/// hyper shares it among the requests of the connection, where Tower would have it cloned for each.
/// It may let requests wait until it is ready for them.
pub(super) struct App<S> {
    service: TowerToHyperService<S>,
    connection: Arc<Connection>,
    span: ConnectionSpan,
}

impl<S> App<S> {
    pub(super) fn new<I>(service: S, io: &SentIo<I>, span: ConnectionSpan) -> Self {
        Self {
            service: TowerToHyperService::new(service),
            connection: io.connection().clone(),
            span,
        }
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for App<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body,
{
    type Response = Response<SentBody<B>>;
    type Error = Infallible;
    type Future = SentFuture<InSpan<TowerToHyperServiceFuture<S, Request>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let is_multiplexed = request.version() == Version::HTTP_2;
        let request = if is_multiplexed {
            request.map(Body::new)
        } else {
            request.map(|body| RequestBody::of(body, &self.connection))
        };
        SentFuture::new(&self.connection, request, |request| {
            // Requests over HTTP/2 are answered on tasks of their own.
            if is_multiplexed && self.span.is_there() {
                self.span.around(self.service.call(request))
            } else {
                InSpan::Nowhere {
                    future: self.service.call(request),
                }
            }
        })
    }
}
