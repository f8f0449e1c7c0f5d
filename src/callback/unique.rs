//! One at a time across requests: who has which name.

use std::{borrow::Cow, collections::HashSet, sync::Arc};

use crate::{
    observe::phase::Phase,
    sync::{Mutex, lock},
};

/// The names that callbacks of a layer hold, of those that are to be unique.
#[derive(Default)]
pub(crate) struct UniqueNames(Mutex<HashSet<(Phase, Cow<'static, str>)>>);

/// Nobody else has the name while this lives.
///
/// It is part of the callback that it is for, so it ends with that, however it does.
pub(crate) struct Claim {
    names: Arc<UniqueNames>,
    name: (Phase, Cow<'static, str>),
}

impl UniqueNames {
    #[expect(
        clippy::ptr_arg,
        reason = "a name that is a literal is cloned for nothing"
    )]
    pub(crate) fn claim(self: &Arc<Self>, phase: Phase, name: &Cow<'static, str>) -> Option<Claim> {
        let name = (phase, name.clone());
        let is_free = lock(&self.0).insert(name.clone());
        is_free.then(|| Claim {
            names: self.clone(),
            name,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.names.0).remove(&self.name);
    }
}
