//! Classification of responses as success or failure, by their head or their trailers.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Request, Response};
use tower_http::classify::{
    ClassifiedResponse, ClassifyEos, ClassifyResponse, GrpcEosErrorsAsFailures,
    GrpcErrorsAsFailures, MakeClassifier,
};

/// The classifier of a layer.
#[derive(Clone, Default)]
pub(crate) enum Classification {
    /// A status below 400 is a success.
    #[default]
    Status,
    /// A grpc-status of 0 is a success.
    Grpc,
    /// A classifier of tower-http, or one of the user. Boxed, so that all layers have the same type.
    Custom(Arc<MakeCustom>),
}

type MakeCustom = dyn Fn(&Request<()>) -> Box<ClassifyHead> + Send + Sync;
type ClassifyHead = dyn FnOnce(&Response<()>) -> Classified + Send + Sync;
type ClassifyEnd = dyn FnOnce(Option<&HeaderMap>) -> bool + Send + Sync;

/// The classifier of one response.
pub(crate) enum Classifier {
    Status,
    Grpc,
    Custom(CustomClassifier),
}

/// A custom classifier that has seen the request.
pub(crate) type CustomClassifier = Box<ClassifyHead>;

/// The classification of a response by its head.
pub(crate) struct Classified {
    pub(crate) is_success: bool,
    /// `Some` if the end of the stream decides.
    pub(crate) at_end: Option<EndClassifier>,
}

/// The classifier of the end of a response.
pub(crate) enum EndClassifier {
    Grpc(GrpcEosErrorsAsFailures),
    Custom(Box<ClassifyEnd>),
}

impl Classification {
    pub(crate) fn custom<M>(make_classifier: M) -> Self
    where
        M: MakeClassifier<Classifier: Send + Sync + 'static, ClassifyEos: Send + Sync + 'static>
            + Send
            + Sync
            + 'static,
    {
        Self::Custom(Arc::new(move |request| {
            let classifier = make_classifier.make_classifier(request);
            Box::new(move |response| {
                Classified::by(classifier, response, |classify_eos| {
                    EndClassifier::Custom(Box::new(move |trailers| {
                        classify_eos.classify_eos(trailers).is_ok()
                    }))
                })
            })
        }))
    }

    /// Shows the request to a custom classifier, and returns what will classify the response.
    #[inline]
    pub(crate) fn of_request<B>(&self, request: &mut Request<B>) -> Option<CustomClassifier> {
        match self {
            Self::Status | Self::Grpc => None,
            Self::Custom(make) => Some(head_of_request(request, |head| make(head))),
        }
    }

    /// Returns the classifier of a response. `custom` is the result of [`of_request`](Self::of_request).
    #[inline]
    pub(crate) fn of_response(&self, custom: Option<CustomClassifier>) -> Classifier {
        match (self, custom) {
            (_, Some(custom)) => Classifier::Custom(custom),
            (Self::Grpc, None) => Classifier::Grpc,
            (Self::Status | Self::Custom(_), None) => Classifier::Status,
        }
    }
}

impl Classifier {
    #[inline]
    pub(crate) fn classify<B>(self, response: &mut Response<B>) -> Classified {
        match self {
            Self::Status => Classified {
                is_success: is_success(response),
                at_end: None,
            },
            Self::Grpc => {
                Classified::by(GrpcErrorsAsFailures::new(), response, EndClassifier::Grpc)
            }
            Self::Custom(classify) => head_of_response(response, |head| classify(head)),
        }
    }
}

impl Classified {
    fn by<B, C: ClassifyResponse>(
        classifier: C,
        response: &Response<B>,
        at_end: impl FnOnce(C::ClassifyEos) -> EndClassifier,
    ) -> Self {
        match classifier.classify_response(response) {
            ClassifiedResponse::Ready(result) => Self {
                is_success: result.is_ok(),
                at_end: None,
            },
            // The HTTP status counts until the stream ends, because there may be no trailers.
            ClassifiedResponse::RequiresEos(classify_eos) => Self {
                is_success: is_success(response),
                at_end: Some(at_end(classify_eos)),
            },
        }
    }
}

impl EndClassifier {
    #[expect(
        clippy::wrong_self_convention,
        reason = "it is called once, at the end"
    )]
    pub(crate) fn is_success(self, trailers: Option<&HeaderMap>) -> bool {
        match self {
            Self::Grpc(classify_eos) => classify_eos.classify_eos(trailers).is_ok(),
            Self::Custom(classify) => classify(trailers),
        }
    }
}

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Returns the code in the `grpc-status` of headers or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<i32> {
    headers.get(&GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

fn is_success<B>(response: &Response<B>) -> bool {
    response.status().as_u16() < 400
}

/// Shows the head to a custom classifier, whose type must not depend on the body.
fn head_of_request<B, T>(request: &mut Request<B>, look: impl FnOnce(&Request<()>) -> T) -> T {
    let mut head = Request::new(());
    let mut swap = |head: &mut Request<()>| {
        std::mem::swap(head.method_mut(), request.method_mut());
        std::mem::swap(head.uri_mut(), request.uri_mut());
        std::mem::swap(head.version_mut(), request.version_mut());
        std::mem::swap(head.headers_mut(), request.headers_mut());
        std::mem::swap(head.extensions_mut(), request.extensions_mut());
    };
    swap(&mut head);
    let seen = look(&head);
    swap(&mut head);
    seen
}

fn head_of_response<B, T>(response: &mut Response<B>, look: impl FnOnce(&Response<()>) -> T) -> T {
    let mut head = Response::new(());
    let mut swap = |head: &mut Response<()>| {
        std::mem::swap(head.status_mut(), response.status_mut());
        std::mem::swap(head.version_mut(), response.version_mut());
        std::mem::swap(head.headers_mut(), response.headers_mut());
        std::mem::swap(head.extensions_mut(), response.extensions_mut());
    };
    swap(&mut head);
    let seen = look(&head);
    swap(&mut head);
    seen
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode, Version};
    use tower_http::classify::{NeverClassifyEos, ServerErrorsAsFailures, SharedClassifier};

    use super::*;

    /// A classifier for which the response to a POST is a failure if it has the header `x-response`.
    #[derive(Clone)]
    struct ByHead;

    impl MakeClassifier for ByHead {
        type Classifier = ByMethod;
        type FailureClass = ();
        type ClassifyEos = NeverClassifyEos<()>;

        fn make_classifier<B>(&self, request: &Request<B>) -> ByMethod {
            assert_eq!(request.uri(), "/path?query");
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.headers()["x-request"], "yes");
            assert_eq!(request.extensions().get(), Some(&7_u8));
            ByMethod(request.method().clone())
        }
    }

    struct ByMethod(Method);

    impl ClassifyResponse for ByMethod {
        type FailureClass = ();
        type ClassifyEos = NeverClassifyEos<()>;

        fn classify_response<B>(
            self,
            response: &Response<B>,
        ) -> ClassifiedResponse<(), NeverClassifyEos<()>> {
            assert_eq!(response.status(), StatusCode::ACCEPTED);
            assert_eq!(response.version(), Version::HTTP_10);
            assert_eq!(response.extensions().get(), Some(&8_u8));
            let fails = self.0 == Method::POST && response.headers().contains_key("x-response");
            ClassifiedResponse::Ready(if fails { Err(()) } else { Ok(()) })
        }

        fn classify_error<E: std::fmt::Display + 'static>(self, _: &E) {}
    }

    #[test]
    fn custom_classifier_leaves_messages_unchanged() {
        for (method, success) in [(Method::POST, false), (Method::PUT, true)] {
            let request = || {
                Request::builder()
                    .method(method.clone())
                    .uri("/path?query")
                    .version(Version::HTTP_2)
                    .header("x-request", "yes")
                    .extension(7_u8)
                    .body("body")
                    .unwrap()
            };
            let response = || {
                Response::builder()
                    .status(StatusCode::ACCEPTED)
                    .version(Version::HTTP_10)
                    .header("x-response", "yes")
                    .extension(8_u8)
                    .body("body")
                    .unwrap()
            };
            let (mut classified_request, mut classified_response) = (request(), response());
            let classified = classify(
                &Classification::custom(ByHead),
                &mut classified_request,
                &mut classified_response,
            );
            assert_eq!(classified.is_success, success);
            assert!(classified.at_end.is_none());
            assert_eq!(classified_request.extensions().get(), Some(&7_u8));
            assert_eq!(classified_response.extensions().get(), Some(&8_u8));
            assert_eq!(
                format!("{classified_request:?}"),
                format!("{:?}", request())
            );
            assert_eq!(
                format!("{classified_response:?}"),
                format!("{:?}", response())
            );
        }
    }

    fn classify<B>(
        classification: &Classification,
        request: &mut Request<B>,
        response: &mut Response<B>,
    ) -> Classified {
        let custom = classification.of_request(request);
        classification.of_response(custom).classify(response)
    }

    fn is_success(classification: &Classification, status: u16) -> bool {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        classify(classification, &mut Request::new(()), &mut response).is_success
    }

    #[test]
    fn status_below_400_is_success() {
        for status in [100, 200, 302, 399] {
            assert!(is_success(&Classification::Status, status));
        }
        for status in [400, 404, 500, 999] {
            assert!(!is_success(&Classification::Status, status));
        }
        let custom = SharedClassifier::new(ServerErrorsAsFailures::new());
        let custom = Classification::custom(custom);
        assert!(is_success(&custom, 404) && !is_success(&custom, 500));
    }

    #[test]
    fn grpc_status_is_read_from_head_or_trailers() {
        let of_head = |header: Option<&'static str>| {
            let mut response = Response::new(());
            if let Some(status) = header {
                let status = http::HeaderValue::from_static(status);
                response.headers_mut().insert("grpc-status", status);
            }
            classify(&Classification::Grpc, &mut Request::new(()), &mut response)
        };
        let head = of_head(Some("5"));
        assert!(!head.is_success && head.at_end.is_none());
        let custom = SharedClassifier::new(GrpcErrorsAsFailures::new());
        for classification in [Classification::Grpc, Classification::custom(custom)] {
            for (status, success) in [("0", true), ("13", false)] {
                let (mut request, mut response) = (Request::new(()), Response::new(()));
                let head = classify(&classification, &mut request, &mut response);
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", http::HeaderValue::from_static(status));
                assert!(head.is_success, "without trailers, the HTTP status counts");
                assert_eq!(head.at_end.unwrap().is_success(Some(&trailers)), success);
            }
        }
    }
}
