//! The oracle, which checks the outcome of each response against the bytes that the transport
//! accepted.

use std::sync::{Arc, Mutex};

use super::super::delivery::DeliveryOutcome;

/// One byte that the transport accepted.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Byte {
    Framing(usize),
    Body(usize),
    Control,
}

/// The bytes that the transport accepted, and the state of each response.
#[derive(Default)]
pub(super) struct Oracle {
    pub(super) accepted: Vec<Byte>,
    pub(super) flushed: usize,
    pub(super) responses: Vec<Expected>,
    /// Wrong outcomes. They are collected because a panic in a waiter that a destructor calls would
    /// abort the process.
    pub(super) violations: Vec<String>,
}

#[derive(Default)]
pub(super) struct Expected {
    pub(super) body_bytes: usize,
    pub(super) watched_from_start: bool,
    pub(super) has_waiter: bool,
    pub(super) unwatched_bytes: bool,
    /// The server has passed all of the response to the connection.
    pub(super) is_whole: bool,
    /// The bytes of the response, including framing.
    pub(super) total_bytes: usize,
    /// The client reset the stream, or the body was aborted or missing.
    pub(super) may_abort: bool,
    pub(super) outcomes: Vec<DeliveryOutcome>,
}

impl Oracle {
    pub(super) fn flushed_of(&self, matches: impl Fn(Byte) -> bool) -> usize {
        self.accepted[..self.flushed]
            .iter()
            .filter(|byte| matches(**byte))
            .count()
    }
}

impl Oracle {
    /// Returns the reason if this outcome is wrong.
    pub(super) fn violation_of(
        &self,
        index: usize,
        outcome: DeliveryOutcome,
        is_http1: bool,
    ) -> Option<&'static str> {
        let expected = &self.responses[index];
        match outcome {
            DeliveryOutcome::Flushed { bytes } => {
                let body = self.flushed_of(|byte| byte == Byte::Body(index));
                let framing = self.flushed_of(|byte| byte == Byte::Framing(index));
                if bytes != expected.body_bytes as u64 {
                    return Some("wrong byte count");
                }
                if is_http1 && !(expected.is_whole && body + framing == expected.total_bytes) {
                    return Some("early by unsent bytes");
                }
                if self.responses.len() == 1 && body + framing == 0 {
                    return Some("nothing of it was flushed");
                }
                if expected.watched_from_start && body != expected.body_bytes {
                    return Some("early by body bytes");
                }
                None
            }
            DeliveryOutcome::Aborted { bytes } => {
                if bytes > expected.body_bytes as u64 {
                    return Some("wrong byte count");
                }
                (!expected.may_abort).then_some("aborted without a cause")
            }
        }
    }
}

pub(super) type SharedOracle = Arc<Mutex<Oracle>>;
