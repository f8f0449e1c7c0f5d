//! A registered callback: its header and its code in one allocation.

use std::{
    borrow::{Borrow, Cow},
    cmp::Ordering,
    fmt,
    ops::Deref,
    panic::Location,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::{deferrable::Callback, output::Failure};
use crate::{
    catch_panic::catch_panic, clock::Instant, completion::Completion, observe::callback_info::Phase,
};

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
    #[inline]
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

/// Everything known about a callback besides its code.
pub(crate) struct Header {
    pub(crate) name: Option<Name>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) phase: Phase,
    pub(crate) rule: Rule,
    /// Observers have received the registration.
    pub(crate) announced: bool,
    rare: Option<Box<RareFields>>,
}

/// A user's condition on the completion.
pub(crate) type Predicate = dyn Fn(&Completion) -> bool + Send + Sync;

/// The condition under which a callback runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The layer's rule, or success if the layer has none.
    #[default]
    Layer,
    Always,
    /// The predicate in the header.
    When,
}

/// How a callback competes with callbacks of the same name in other scopes of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Competition {
    Unique,
    Coalesce,
}

/// Fields that most callbacks do not have.
#[derive(Default)]
struct RareFields {
    predicate: Option<Box<Predicate>>,
    timeout: Option<Duration>,
    competition: Option<Competition>,
    observed: Option<Observed>,
}

/// Data for observers and subscribers.
pub(crate) struct Observed {
    pub(crate) id: u64,
    pub(crate) registered: Instant,
    #[cfg(feature = "tracing")]
    pub(crate) span: Option<tracing::Span>,
}

impl Header {
    #[inline]
    pub(crate) fn new(location: &'static Location<'static>, phase: Phase) -> Self {
        Self {
            name: None,
            location,
            phase,
            rule: Rule::default(),
            announced: false,
            rare: None,
        }
    }

    /// Replaces the rule and returns the previous predicate, which is user data.
    #[must_use]
    pub(crate) fn set_rule(
        &mut self,
        rule: Rule,
        predicate: Option<Box<Predicate>>,
    ) -> Option<Box<Predicate>> {
        self.rule = rule;
        match (&mut self.rare, predicate) {
            (None, None) => None,
            (rare, predicate) => {
                std::mem::replace(&mut rare.get_or_insert_default().predicate, predicate)
            }
        }
    }

    /// Returns `true` if the callback runs for this completion, or the message of a predicate that
    /// panicked.
    ///
    /// The layer's rule is about the end of a response, so it does not apply before the response.
    #[inline]
    pub(crate) fn allows(
        &self,
        completion: &Completion,
        layer: Option<&Predicate>,
    ) -> Result<bool, String> {
        let own = || self.rare.as_ref()?.predicate.as_deref();
        let predicate = match self.rule {
            Rule::Always => return Ok(true),
            Rule::When => own(),
            Rule::Layer if self.phase == Phase::After => layer,
            Rule::Layer => None,
        };
        match predicate {
            Some(predicate) => catch_panic(|| predicate(completion)),
            None => Ok(completion.is_success()),
        }
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.rare.as_ref()?.timeout
    }

    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.rare.get_or_insert_default().timeout = Some(timeout);
    }

    #[inline]
    pub(crate) fn competition(&self) -> Option<Competition> {
        self.rare.as_ref()?.competition
    }

    pub(crate) fn set_competition(&mut self, competition: Competition) {
        self.rare.get_or_insert_default().competition = Some(competition);
    }

    #[inline]
    pub(crate) fn observed(&self) -> Option<&Observed> {
        self.rare.as_ref()?.observed.as_ref()
    }

    pub(crate) fn observe(&mut self, observed: Observed) {
        self.rare.get_or_insert_default().observed = Some(observed);
    }

    /// Returns the number that observers know the callback by, or 0 if none observes it.
    pub(crate) fn observed_id(&self) -> u64 {
        self.observed().map_or(0, |observed| observed.id)
    }

    #[cfg(feature = "tracing")]
    #[inline]
    pub(crate) fn span(&self) -> Option<&tracing::Span> {
        self.observed()?.span.as_ref()
    }
}

/// The name of a callback. A clone neither allocates nor runs user code, so the store clones names
/// under its locks.
#[derive(Clone)]
pub(crate) enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Static(name) => name,
            Self::Shared(name) => name,
        }
    }
}

impl From<Cow<'static, str>> for Name {
    fn from(name: Cow<'static, str>) -> Self {
        match name {
            Cow::Borrowed(name) => Self::Static(name),
            Cow::Owned(name) => Self::Shared(name.into()),
        }
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

// `Borrow` requires the order of `str`.
impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}
