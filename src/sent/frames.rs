//! HTTP/2 frames among the bytes of a connection.
//!
//! [`FrameTracker`] follows the bytes that a client sends, as far as timeouts must understand them:
//! which protocol it is, and whether an HTTP/2 header block is incomplete. [`WrittenFrames`] follows
//! the bytes that a server writes, as far as they show whether a response is complete: an HTTP/2
//! control frame (for example the acknowledgment of a PING) is no part of one.

#![cfg_attr(
    not(feature = "serve"),
    allow(dead_code, reason = "only `serve` has timeouts")
)]

use super::activity::{ConnectionActivity, Protocol};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A tracker of the bytes that are read from a client. It updates the [`ConnectionActivity`].
#[derive(Debug)]
pub(super) enum FrameTracker {
    /// This many bytes of the HTTP/2 preface have arrived.
    Preface(usize),
    Http1,
    Http2(Frames),
}

/// The position in the HTTP/2 frames of the client.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; FRAME_HEADER],
    header_length: usize,
    /// Bytes of the current frame's payload that have not arrived.
    remaining: usize,
    has_settings: bool,
    /// A HEADERS frame without END_HEADERS has arrived, and no CONTINUATION that has it.
    in_block: bool,
}

impl FrameTracker {
    pub(super) fn new() -> Self {
        Self::Preface(0)
    }

    /// Follows bytes that were read.
    pub(super) fn read(&mut self, mut bytes: &[u8], activity: &ConnectionActivity) {
        if let Self::Preface(matched) = self {
            let missing = &PREFACE[*matched..];
            let length = missing.len().min(bytes.len());
            if bytes[..length] != missing[..length] {
                *self = Self::Http1;
                activity.set_protocol(Protocol::Http1);
            } else if length < missing.len() {
                *matched += length;
            } else {
                bytes = &bytes[length..];
                *self = Self::Http2(Frames::default());
                activity.set_protocol(Protocol::Http2);
            }
        }
        if let Self::Http2(frames) = self {
            frames.read(bytes, activity);
            activity.set_head_open(frames.head_is_open());
        }
    }
}

impl Frames {
    fn read(&mut self, mut bytes: &[u8], activity: &ConnectionActivity) {
        while !bytes.is_empty() {
            if self.header_length < FRAME_HEADER {
                let length = bytes.len().min(FRAME_HEADER - self.header_length);
                let end = self.header_length + length;
                self.header[self.header_length..end].copy_from_slice(&bytes[..length]);
                self.header_length = end;
                bytes = &bytes[length..];
                if end < FRAME_HEADER {
                    return;
                }
                self.begin_frame(activity);
            }
            let length = bytes.len().min(self.remaining);
            self.remaining -= length;
            bytes = &bytes[length..];
            if self.remaining == 0 {
                self.end_frame();
            }
        }
    }

    fn begin_frame(&mut self, activity: &ConnectionActivity) {
        let [a, b, c, kind, ..] = self.header;
        self.remaining = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == HEADERS && self.has_settings {
            activity.begin_head();
        }
        if self.remaining == 0 {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        let [_, _, _, kind, flags, ..] = self.header;
        match kind {
            SETTINGS => self.has_settings = true,
            HEADERS | CONTINUATION => self.in_block = flags & END_HEADERS == 0,
            _ => {}
        }
        self.header_length = 0;
    }

    fn head_is_open(&self) -> bool {
        let [_, _, _, kind, ..] = self.header;
        let in_head = self.header_length == FRAME_HEADER && matches!(kind, HEADERS | CONTINUATION);
        !self.has_settings || self.in_block || in_head
    }
}

/// A tracker of the bytes that are written to a client. It counts those that belong to responses.
#[derive(Debug, Default)]
pub(super) enum WrittenFrames {
    /// Nothing was written.
    #[default]
    Start,
    /// Another protocol than HTTP/2.
    Other,
    Http2(Position),
}

/// The position in the HTTP/2 frames of the server.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// The start of the current frame's header: its length, and its type.
    header: [u8; 4],
    header_length: u8,
    /// Bytes of the current frame's payload that were not written.
    remaining: u32,
}

impl WrittenFrames {
    /// Follows bytes that were written, and returns how many of them belong to responses.
    pub(super) fn count(&mut self, bytes: &[u8]) -> usize {
        if let (Self::Start, Some(first)) = (&self, bytes.first()) {
            // HTTP/2 servers begin with a SETTINGS frame, whose length starts with a 0.
            *self = match first {
                0 => Self::Http2(Position::default()),
                _ => Self::Other,
            };
        }
        match self {
            Self::Start | Self::Other => bytes.len(),
            Self::Http2(position) => position.count(bytes),
        }
    }
}

impl Position {
    fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut count = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if usize::from(self.header_length) < FRAME_HEADER {
                bytes = rest;
                if let Some(byte) = self.header.get_mut(usize::from(self.header_length)) {
                    *byte = *first;
                }
                self.header_length += 1;
                if usize::from(self.header_length) < FRAME_HEADER {
                    continue;
                }
                let [a, b, c, _] = self.header;
                self.remaining = u32::from_be_bytes([0, a, b, c]);
                if self.is_of_response() {
                    count += FRAME_HEADER;
                }
            }
            let length = bytes.len().min(self.remaining as usize);
            bytes = &bytes[length..];
            self.remaining -= length as u32;
            if self.is_of_response() {
                count += length;
            }
            if self.remaining == 0 {
                self.header_length = 0;
            }
        }
        count
    }

    fn is_of_response(&self) -> bool {
        let [_, _, _, kind] = self.header;
        matches!(kind, DATA | HEADERS | CONTINUATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend(payload);
        frame
    }

    /// Feeds bytes one by one, or all at once, and returns the state after them.
    fn feed(bytes: &[u8], bytewise: bool) -> (Protocol, bool, u64) {
        let activity = ConnectionActivity::default();
        let mut tracker = FrameTracker::new();
        let step = if bytewise { 1 } else { bytes.len() };
        for bytes in bytes.chunks(step) {
            tracker.read(bytes, &activity);
        }
        (
            activity.protocol(),
            activity.head_is_open(),
            activity.heads(),
        )
    }

    #[test]
    fn heads_are_tracked_across_reads() {
        let start = [PREFACE, &frame(SETTINGS, 0, &[0; 6])].concat();
        let rest = |frames: &[Vec<u8>]| [start.clone(), frames.concat()].concat();
        let (open, whole) = (
            frame(HEADERS, 0, b"abc"),
            frame(HEADERS, END_HEADERS, b"abc"),
        );
        let cases = [
            (b"GET / HTTP/1.1\r\n".to_vec(), (Protocol::Http1, false, 0)),
            (b"PUT".to_vec(), (Protocol::Http1, false, 0)),
            (PREFACE[..20].to_vec(), (Protocol::Unknown, false, 0)),
            (PREFACE.to_vec(), (Protocol::Http2, true, 0)),
            (start[..30].to_vec(), (Protocol::Http2, true, 0)),
            (start.clone(), (Protocol::Http2, false, 0)),
            (
                rest(std::slice::from_ref(&whole)),
                (Protocol::Http2, false, 1),
            ),
            (rest(&[whole[..10].to_vec()]), (Protocol::Http2, true, 1)),
            (rest(&[whole[..5].to_vec()]), (Protocol::Http2, false, 0)),
            (
                rest(std::slice::from_ref(&open)),
                (Protocol::Http2, true, 1),
            ),
            (
                rest(&[open.clone(), frame(CONTINUATION, 0, b"")]),
                (Protocol::Http2, true, 1),
            ),
            (
                rest(&[open, frame(CONTINUATION, END_HEADERS, b""), whole]),
                (Protocol::Http2, false, 2),
            ),
            // Half a DATA frame is no head.
            (
                rest(&[frame(0, 0, b"data")[..11].to_vec()]),
                (Protocol::Http2, false, 0),
            ),
        ];
        for (bytes, expected) in cases {
            for bytewise in [false, true] {
                assert_eq!(feed(&bytes, bytewise), expected, "{bytes:?}");
            }
        }
    }

    #[test]
    fn control_frames_are_no_part_of_a_response() {
        let frame = |kind, length| frame(kind, 0, &vec![b'x'; length]);
        let (settings, ping, reset) = (frame(4, 6), frame(6, 8), frame(3, 4));
        let cases = [
            (vec![], 0),
            (b"HTTP/1.1 200 OK\r\n".to_vec(), 17),
            (settings.clone(), 0),
            ([settings.clone(), frame(HEADERS, 0)].concat(), 9),
            (
                [&settings[..], &ping, &frame(HEADERS, 5), &reset].concat(),
                14,
            ),
            (
                [&settings[..], &frame(DATA, 200), &ping, &frame(DATA, 0)].concat(),
                218,
            ),
            ([&settings[..], &frame(CONTINUATION, 3)[..10]].concat(), 10),
            ([&settings[..], &frame(HEADERS, 3)[..8]].concat(), 0),
        ];
        for (bytes, expected) in cases {
            for step in [1, 5, bytes.len().max(1)] {
                let mut written = WrittenFrames::default();
                let count: usize = bytes.chunks(step).map(|part| written.count(part)).sum();
                assert_eq!(count, expected, "{bytes:?} in steps of {step}");
            }
        }
    }
}
