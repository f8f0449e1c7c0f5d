//! The span of a connection, without a dependency on the feature `tracing` elsewhere.

#[cfg(feature = "tracing")]
pub(super) use tracing::{
    Span,
    instrument::{Instrument, Instrumented},
};

#[cfg(not(feature = "tracing"))]
pub(super) use self::untraced::{Instrument, Instrumented, Span};

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
    }

    pub(crate) type Instrumented<F> = F;

    pub(crate) trait Instrument: Sized {
        fn instrument(self, _: Span) -> Self {
            self
        }
    }

    impl<F> Instrument for F {}
}
