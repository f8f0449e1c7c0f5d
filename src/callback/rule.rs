//! Which completions a callback runs for.

use std::sync::Arc;

use crate::{completion::Completion, isolate::isolate};

/// Which completions a callback runs for.
pub(crate) type Predicate = dyn Fn(&Completion) -> bool + Send + Sync;

#[derive(Clone, Default)]
pub(crate) enum Rule {
    /// The layer's rule, or success where it has none.
    #[default]
    Layer,
    Always,
    When(Arc<Predicate>),
}

impl Rule {
    /// Whether the callback runs; a panic of the predicate is returned as its message.
    #[inline]
    pub(crate) fn allows(
        &self,
        completion: &Completion,
        layer: Option<&Arc<Predicate>>,
    ) -> Result<bool, String> {
        let predicate = match (self, layer) {
            (Self::Always, _) => return Ok(true),
            (Self::Layer, None) => return Ok(completion.is_success()),
            (Self::Layer, Some(predicate)) | (Self::When(predicate), _) => predicate,
        };
        isolate(|| predicate(completion))
    }
}
