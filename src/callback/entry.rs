//! A registered callback: its code, and all that is known of it.

use std::{
    borrow::Cow,
    panic::Location,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::{code::Callback, output::Failure, rule::Rule, unique::Claim};
use crate::{clock::Instant, completion::Completion, observe::phase::Phase};

/// All that is known of a callback beside its code.
pub(crate) struct Header {
    /// Ascends with the order of registration within a scope.
    pub(crate) id: u64,
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) rule: Rule,
    pub(crate) phase: Phase,
    /// Observers have been told of the registration.
    pub(crate) announced: bool,
    /// Its handle may still say how it is to run.
    pub(crate) held: bool,
    /// Boxed, as most have none of it.
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    limits: Limits,
    observed: Option<Observed>,
}

/// What a callback must not exceed.
#[derive(Default)]
pub(crate) struct Limits {
    pub(crate) timeout: Option<Duration>,
    /// It is to be the only one of its name in the layer.
    pub(crate) unique: bool,
    /// What makes it so.
    pub(crate) claim: Option<Claim>,
}

/// What is only known of a callback of which somebody is told.
pub(crate) struct Observed {
    pub(crate) id: u64,
    pub(crate) registered: Instant,
    #[cfg(feature = "tracing")]
    pub(crate) span: Option<tracing::Span>,
}

impl Header {
    /// The caller fills in the id when the callback takes its place in the queue, and what else
    /// there is to know.
    #[inline]
    pub(crate) fn new(location: &'static Location<'static>, phase: Phase) -> Self {
        Self {
            id: 0,
            name: None,
            location,
            rule: Rule::default(),
            phase,
            announced: false,
            held: false,
            more: None,
        }
    }

    pub(crate) fn limits_mut(&mut self) -> &mut Limits {
        &mut self.more.get_or_insert_default().limits
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.more.as_ref()?.limits.timeout
    }

    pub(crate) fn is_unique(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.limits.unique)
    }

    /// Its name is free, for another callback.
    pub(crate) fn give_up_claim(&mut self) {
        if let Some(more) = &mut self.more {
            more.limits.claim = None;
        }
    }

    /// There where somebody is told of it.
    #[inline]
    pub(crate) fn observed(&self) -> Option<&Observed> {
        self.more.as_ref()?.observed.as_ref()
    }

    pub(crate) fn observe(&mut self, observed: Observed) {
        self.more.get_or_insert_default().observed = Some(observed);
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn span(&self) -> Option<&tracing::Span> {
        self.observed()?.span.as_ref()
    }

    /// 0 where nobody is told of it.
    pub(crate) fn observed_id(&self) -> u64 {
        self.observed().map_or(0, |observed| observed.id)
    }
}

pin_project! {
    /// A registered callback: one allocation that holds its header and its code.
    pub(crate) struct Entry<C: ?Sized = dyn Callback> {
        pub(crate) header: Header,
        #[pin]
        callback: C,
    }
}

pub(crate) type BoxEntry = Pin<Box<Entry>>;

impl<C> Entry<C> {
    pub(crate) fn new(header: Header, callback: C) -> Self {
        Self { header, callback }
    }
}

impl Entry {
    pub(crate) fn header_mut(self: Pin<&mut Self>) -> &mut Header {
        self.project().header
    }

    pub(crate) fn poll_callback(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        completion: &Completion,
    ) -> Poll<Result<(), Failure>> {
        self.project().callback.poll_callback(cx, completion)
    }
}
