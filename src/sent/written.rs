//! The bytes that a server writes, as far as they show whether a response is complete: an HTTP/2
//! control frame (for example the acknowledgment of a PING) is no part of one.

const FRAME_HEADER: u8 = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// Follows the bytes that are written to a client, and counts those that belong to responses.
#[derive(Debug, Default)]
pub(super) enum WrittenFrames {
    /// Nothing was written.
    #[default]
    Start,
    /// Another protocol than HTTP/2.
    Other,
    Http2(Position),
}

/// The position in a sequence of HTTP/2 frames.
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
            if self.header_length < FRAME_HEADER {
                bytes = rest;
                if let Some(byte) = self.header.get_mut(usize::from(self.header_length)) {
                    *byte = *first;
                }
                self.header_length += 1;
                if self.header_length < FRAME_HEADER {
                    continue;
                }
                let [a, b, c, _] = self.header;
                self.remaining = u32::from_be_bytes([0, a, b, c]);
                if self.is_of_response() {
                    count += usize::from(FRAME_HEADER);
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

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        frame.resize(9 + usize::from(length), b'x');
        frame
    }

    #[test]
    fn control_frames_are_no_part_of_a_response() {
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
