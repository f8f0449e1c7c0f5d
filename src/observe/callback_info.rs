//! Which callback an event is about.

use std::{fmt, panic::Location};

/// Which callback an event is about.
#[derive(Clone, Copy, Debug)]
pub struct CallbackInfo<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) location: &'static Location<'static>,
    #[cfg(feature = "tracing")]
    pub(crate) span: Option<&'a tracing::Span>,
}

impl<'a> CallbackInfo<'a> {
    /// The name given with [`DeferredCallback::name`](crate::DeferredCallback::name).
    pub fn name(&self) -> Option<&'a str> {
        self.name
    }

    /// Where `defer` was called.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }
}

impl fmt::Display for CallbackInfo<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(formatter, "{name} ({})", self.location),
            None => self.location.fmt(formatter),
        }
    }
}
