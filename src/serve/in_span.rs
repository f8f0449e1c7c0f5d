//! The span of a connection, around what is done for it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

/// The span of a connection, if somebody wants it.
///
/// None without the feature `tracing`, and where it is disabled: entering a span that nobody sees
/// costs more than not to have one.
#[derive(Clone, Default)]
pub(super) struct ConnectionSpan {
    #[cfg(feature = "tracing")]
    span: Option<tracing::Span>,
}

impl ConnectionSpan {
    pub(super) fn of(remote_addr: &impl fmt::Debug) -> Self {
        #[cfg(feature = "tracing")]
        {
            let span = tracing::debug_span!(
                target: "axum_defer::connection",
                parent: None,
                "connection",
                remote_addr = ?remote_addr,
            );
            Self {
                span: (!span.is_disabled()).then_some(span),
            }
        }
        #[cfg(not(feature = "tracing"))]
        {
            let _ = remote_addr;
            Self {}
        }
    }

    /// Inside of it as long as what is returned is there.
    pub(super) fn enter(&self) -> impl Sized + use<'_> {
        #[cfg(feature = "tracing")]
        {
            self.span.as_ref().map(tracing::Span::enter)
        }
    }

    pub(super) fn around<F>(&self, future: F) -> InSpan<F> {
        InSpan::Inside {
            future: Some(future),
            span: self.clone(),
        }
    }

    #[inline]
    pub(super) fn is_there(&self) -> bool {
        #[cfg(feature = "tracing")]
        {
            self.span.is_some()
        }
        #[cfg(not(feature = "tracing"))]
        {
            false
        }
    }
}

pin_project! {
    /// A future that is polled and dropped inside of a span, if there is one.
    #[project = InSpanProjection]
    pub(super) enum InSpan<F> {
        Nowhere {
            #[pin]
            future: F,
        },
        Inside {
            // Gone only while this is dropped.
            #[pin]
            future: Option<F>,
            span: ConnectionSpan,
        },
    }

    impl<F> PinnedDrop for InSpan<F> {
        fn drop(this: Pin<&mut Self>) {
            if let InSpanProjection::Inside { mut future, span } = this.project() {
                let _entered = span.enter();
                future.set(None);
            }
        }
    }
}

impl<F: Future> Future for InSpan<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            InSpanProjection::Nowhere { future } => future.poll(cx),
            InSpanProjection::Inside { future, span } => {
                let _entered = span.enter();
                match future.as_pin_mut() {
                    Some(future) => future.poll(cx),
                    None => Poll::Pending,
                }
            }
        }
    }
}
