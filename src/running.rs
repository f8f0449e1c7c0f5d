//! The callbacks of a scope that are running now, for those who ask what is not finished.

use crate::{callback::Header, drain::UnfinishedCallback};

/// Callbacks run one at a time unless the layer is concurrent, so one place needs no allocation.
#[derive(Default)]
pub(crate) struct Running {
    one: Option<(u64, UnfinishedCallback)>,
    others: Vec<(u64, UnfinishedCallback)>,
}

impl Running {
    pub(crate) fn insert(&mut self, header: &Header) {
        let running = (header.id, describe(header, true));
        match self.one {
            None => self.one = Some(running),
            Some(_) => self.others.push(running),
        }
    }

    pub(crate) fn remove(&mut self, id: u64) {
        if self.one.as_ref().is_some_and(|(one, _)| *one == id) {
            self.one = None;
        } else {
            self.others.retain(|(other, _)| *other != id);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &UnfinishedCallback> {
        self.one
            .iter()
            .chain(&self.others)
            .map(|(_, callback)| callback)
    }
}

pub(crate) fn describe(header: &Header, running: bool) -> UnfinishedCallback {
    UnfinishedCallback {
        name: header.name.clone(),
        location: header.location,
        running,
    }
}
