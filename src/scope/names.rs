//! Names across the scopes of a layer: `unique` and `coalesce`.
//!
//! A name is claimed when a runner takes a callback and its rule allows it, so a response that is
//! never read, or a request that failed, does not keep the name from other requests. The claim is
//! one value that ends with the callback, however that ends. The lock of this map is never held
//! together with a lock of the store.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tokio::sync::oneshot;

use crate::{
    callback::entry::{Competition, Name},
    sync::{Mutex, lock},
};

/// The claimed names of a layer and its clones.
#[derive(Default)]
pub(crate) struct Names(Mutex<BTreeMap<Name, Claimed>>);

struct Claimed {
    holder: Holder,
    queued: VecDeque<Queued>,
}

struct Queued {
    holder: Holder,
    grant: oneshot::Sender<Claim>,
}

/// A callback that claims a name: the address of its scope, which the callback keeps alive, and its
/// number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) scope: usize,
    pub(crate) callback: u64,
}

/// The right to run under a name. It passes to the next queued callback when it is dropped.
pub(crate) struct Claim {
    names: Arc<Names>,
    name: Name,
}

/// The result of [`Names::claim`].
pub(crate) enum Claiming {
    Claimed(Claim),
    Queued(oneshot::Receiver<Claim>),
    Duplicate,
}

impl Names {
    /// Claims a name for a callback, or queues the callback for it.
    ///
    /// `ancestors` are the callbacks that wait for the scope of this one. To queue for a name that
    /// one of them has would be to wait for itself.
    pub(crate) fn claim(
        self: &Arc<Self>,
        name: &Name,
        competition: Competition,
        holder: Holder,
        ancestors: &[Holder],
    ) -> Claiming {
        let mut names = lock(&self.0);
        let Some(claimed) = names.get_mut(name) else {
            let queued = VecDeque::new();
            names.insert(name.clone(), Claimed { holder, queued });
            return Claiming::Claimed(Claim {
                names: self.clone(),
                name: name.clone(),
            });
        };
        let is_queued = match competition {
            // A callback may defer its own successor.
            Competition::Unique => claimed.holder.scope == holder.scope,
            Competition::Coalesce => {
                let is_open = |queued: &Queued| !queued.grant.is_closed();
                !ancestors.contains(&claimed.holder) && !claimed.queued.iter().any(is_open)
            }
        };
        if !is_queued {
            return Claiming::Duplicate;
        }
        let (grant, granted) = oneshot::channel();
        claimed.queued.push_back(Queued { holder, grant });
        Claiming::Queued(granted)
    }

    /// Removes the name, or makes the next queued callback its holder.
    fn release(&self, name: &Name) -> Option<oneshot::Sender<Claim>> {
        let mut names = lock(&self.0);
        let claimed = names.get_mut(name)?;
        match claimed.queued.pop_front() {
            Some(Queued { holder, grant }) => {
                claimed.holder = holder;
                Some(grant)
            }
            None => {
                names.remove(name);
                None
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(grant) = self.names.release(&self.name) {
            let claim = Self {
                names: self.names.clone(),
                name: self.name.clone(),
            };
            // If the queued callback was dropped, `send` returns the claim, and its drop passes it
            // on.
            let _ = grant.send(claim);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Competition::{Coalesce, Unique};

    const A: Holder = Holder {
        scope: 1,
        callback: 0,
    };
    const B: Holder = Holder {
        scope: 2,
        callback: 0,
    };

    fn claim(names: &Arc<Names>, competition: Competition, holder: Holder) -> Claiming {
        names.claim(&Name::Static("a"), competition, holder, &[])
    }

    fn claimed(names: &Arc<Names>, holder: Holder) -> Claim {
        match claim(names, Unique, holder) {
            Claiming::Claimed(claim) => claim,
            _ => panic!("the name is not free"),
        }
    }

    #[test]
    fn unique_name_claimed_elsewhere_is_duplicate() {
        let names = Arc::default();
        let first = claimed(&names, A);
        assert!(matches!(claim(&names, Unique, B), Claiming::Duplicate));
        drop(first);
        drop(claimed(&names, B));
        assert!(lock(&names.0).is_empty());
    }

    #[test]
    fn unique_successor_in_same_scope_runs_after() {
        let names = Arc::default();
        let first = claimed(&names, A);
        let Claiming::Queued(mut granted) = claim(&names, Unique, A) else {
            panic!("the successor does not wait for the first");
        };
        assert!(granted.try_recv().is_err());
        drop(first);
        assert!(granted.try_recv().is_ok());
        assert!(lock(&names.0).is_empty());
    }

    #[test]
    fn coalesced_callback_queues_once() {
        let names = Arc::default();
        let first = claimed(&names, A);
        let Claiming::Queued(mut granted) = claim(&names, Coalesce, B) else {
            panic!("the callback is not queued");
        };
        assert!(matches!(claim(&names, Coalesce, A), Claiming::Duplicate));
        drop(first);
        let second = granted.try_recv().unwrap();
        let Claiming::Queued(third) = claim(&names, Coalesce, A) else {
            panic!("the callback is not queued");
        };
        drop(second);
        drop(third);
        assert!(lock(&names.0).is_empty());
    }

    #[test]
    fn queued_callback_dropped_passes_claim_on() {
        let names = Arc::default();
        let first = claimed(&names, A);
        let Claiming::Queued(dropped) = claim(&names, Coalesce, B) else {
            panic!("the callback is not queued");
        };
        drop(dropped);
        let Claiming::Queued(mut granted) = claim(&names, Coalesce, B) else {
            panic!("the claim was not released");
        };
        drop(first);
        assert!(granted.try_recv().is_ok());
        assert!(lock(&names.0).is_empty());
    }

    #[test]
    fn coalesced_callback_nested_in_holder_is_duplicate() {
        let names: Arc<Names> = Arc::default();
        let _first = claimed(&names, A);
        let nested = names.claim(&Name::Static("a"), Coalesce, B, &[A]);
        assert!(matches!(nested, Claiming::Duplicate));
    }
}
