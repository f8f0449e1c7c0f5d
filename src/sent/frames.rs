//! The bytes that a client sends, as far as timeouts must understand them: which protocol it is, and
//! whether an HTTP/2 header block is incomplete.

use super::activity::{ConnectionActivity, Protocol};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
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

/// The position in a sequence of HTTP/2 frames.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![
            0,
            0,
            u8::try_from(payload.len()).unwrap(),
            kind,
            flags,
            0,
            0,
            0,
            1,
        ];
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
}
