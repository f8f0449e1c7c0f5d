//! The reference: every byte that the transport accepted, and what became of each response.

use std::sync::{Arc, Mutex};

use super::super::delivery::DeliveryOutcome;

/// One byte on the wire.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Byte {
    Framing(usize),
    Body(usize),
    Control,
}

/// The reference: what the transport has seen, and what became of each response.
#[derive(Default)]
pub(super) struct Model {
    pub(super) accepted: Vec<Byte>,
    pub(super) flushed: usize,
    pub(super) responses: Vec<Expected>,
    /// What a waiter was told that is not so. Waiters are called in destructors too, where a
    /// panic would end the process.
    pub(super) lies: Vec<String>,
}

#[derive(Default)]
pub(super) struct Expected {
    pub(super) body_bytes: usize,
    pub(super) watched_from_the_start: bool,
    pub(super) has_waiter: bool,
    pub(super) unwatched_bytes: bool,
    /// The server has nothing more of it, and all of it was handed to the connection.
    pub(super) is_whole: bool,
    /// All that the server made of it, framing included.
    pub(super) total_bytes: usize,
    /// The client reset it, its body was cut off, or there was none.
    pub(super) may_abort: bool,
    pub(super) told: Vec<DeliveryOutcome>,
}

impl Model {
    pub(super) fn flushed_of(&self, matches: impl Fn(Byte) -> bool) -> usize {
        self.accepted[..self.flushed]
            .iter()
            .filter(|byte| matches(**byte))
            .count()
    }
}

impl Model {
    /// Why this can't be so, if it can't.
    pub(super) fn contradicts(
        &self,
        index: usize,
        transmitted: DeliveryOutcome,
        is_http1: bool,
    ) -> Option<&'static str> {
        let expected = &self.responses[index];
        match transmitted {
            DeliveryOutcome::Flushed { bytes } => {
                let body = self.flushed_of(|byte| byte == Byte::Body(index));
                let framing = self.flushed_of(|byte| byte == Byte::Framing(index));
                if bytes != expected.body_bytes as u64 {
                    return Some("a wrong count");
                }
                if is_http1 && !(expected.is_whole && body + framing == expected.total_bytes) {
                    return Some("the server has more of it");
                }
                if self.responses.len() == 1 && body + framing == 0 {
                    return Some("nothing of it was flushed");
                }
                if expected.watched_from_the_start && body != expected.body_bytes {
                    return Some("early by body bytes");
                }
                None
            }
            DeliveryOutcome::Aborted { bytes } => {
                if bytes > expected.body_bytes as u64 {
                    return Some("a wrong count");
                }
                (!expected.may_abort).then_some("nothing was wrong with it")
            }
        }
    }
}

pub(super) type Shared = Arc<Mutex<Model>>;
