//! The span of a connection, without a dependency on the feature `tracing` elsewhere.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
#[cfg(feature = "tracing")]
pub(super) use tracing::Span;
#[cfg(feature = "tracing")]
use tracing::instrument::{Instrument, Instrumented};

#[cfg(not(feature = "tracing"))]
pub(super) use self::untraced::Span;
#[cfg(not(feature = "tracing"))]
use self::untraced::{Instrument, Instrumented};

pin_project! {
    /// A future in the span of its connection, if there is a subscriber for it.
    #[project = InSpanProjected]
    pub(super) enum InSpan<F> {
        None {
            #[pin]
            future: F,
        },
        Span {
            #[pin]
            future: Instrumented<F>,
        },
    }
}

impl<F> InSpan<F> {
    pub(super) fn new(future: F, span: Option<Span>) -> Self {
        match span {
            Some(span) if !span.is_disabled() => Self::Span {
                future: future.instrument(span),
            },
            _ => Self::None { future },
        }
    }
}

impl<F: Future> Future for InSpan<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            InSpanProjected::None { future } => future.poll(cx),
            InSpanProjected::Span { future } => future.poll(cx),
        }
    }
}

/// Returns the span of a connection.
pub(super) fn of_connection(remote_addr: &impl std::fmt::Debug) -> Span {
    #[cfg(feature = "tracing")]
    {
        tracing::debug_span!(
            target: "axum_defer::connection",
            parent: None,
            "connection",
            remote_addr = ?remote_addr,
        )
    }
    #[cfg(not(feature = "tracing"))]
    {
        let _ = remote_addr;
        Span::none()
    }
}

#[cfg(not(feature = "tracing"))]
mod untraced {
    #[derive(Clone)]
    pub(crate) struct Span;

    impl Span {
        pub(crate) fn none() -> Self {
            Self
        }

        pub(crate) fn is_disabled(&self) -> bool {
            true
        }
    }

    pub(crate) type Instrumented<F> = F;

    pub(crate) trait Instrument: Sized {
        fn instrument(self, _: Span) -> Self {
            self
        }
    }

    impl<F> Instrument for F {}
}
