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

    pub(super) fn around<F>(self, future: F) -> InSpan<F> {
        InSpan {
            future: Some(future),
            span: self,
        }
    }
}

pin_project! {
    /// A future that is polled and dropped inside of a span.
    pub(super) struct InSpan<F> {
        // Gone only while this is dropped.
        #[pin]
        future: Option<F>,
        span: ConnectionSpan,
    }

    impl<F> PinnedDrop for InSpan<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _entered = this.span.enter();
            this.future.set(None);
        }
    }
}

impl<F: Future> Future for InSpan<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        match this.future.as_pin_mut() {
            Some(future) => future.poll(cx),
            None => Poll::Pending,
        }
    }
}
