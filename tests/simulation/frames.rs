//! HTTP/2 frames, written and read without an HTTP/2 library: RFC 9113, section 4, and the part of
//! RFC 7541 that needs no table.

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const CANCEL: u32 = 8;

pub const HEADER_TABLE_SIZE: u16 = 1;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in values {
        payload.extend(name.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

pub fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// The header block of a request: names from HPACK's static table, literal values.
pub fn request_fields(method: &str, path: &str) -> Vec<u8> {
    // `:scheme: http`.
    let mut block = vec![0x86];
    match method {
        "GET" => block.push(0x82),
        "POST" => block.push(0x83),
        _ => literal(&mut block, 2, method),
    }
    literal(&mut block, 4, path);
    literal(&mut block, 1, "a");
    block
}

/// A literal without indexing (RFC 7541, section 6.2.2), whose name has an index below 15.
fn literal(block: &mut Vec<u8>, name: u8, value: &str) {
    block.extend([name, u8::try_from(value.len()).expect("a short value")]);
    block.extend(value.as_bytes());
}

/// A frame as it comes, of which only the head is complete.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Head {
    fn parse(bytes: [u8; 9]) -> Self {
        let [a, b, c, kind, flags, s, t, u, v] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([s & 0x7f, t, u, v]),
        }
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What [`FrameReader`] has found.
#[derive(Debug)]
pub enum Part<'a> {
    /// Some more of a frame's payload; `offset` is where in the payload it begins.
    Payload {
        head: Head,
        offset: u32,
        bytes: &'a [u8],
    },
    /// The last byte of a frame.
    End(Head),
}

/// Finds frames in a stream of bytes that comes in pieces.
#[derive(Debug, Default)]
pub struct FrameReader {
    head_bytes: Vec<u8>,
    head: Option<(Head, u32)>,
}

impl FrameReader {
    pub fn read(&mut self, mut bytes: &[u8], mut found: impl FnMut(Part<'_>)) {
        loop {
            let (head, offset) = match self.head {
                Some(begun) => begun,
                None => {
                    let missing = (9 - self.head_bytes.len()).min(bytes.len());
                    self.head_bytes.extend(&bytes[..missing]);
                    bytes = &bytes[missing..];
                    let Ok(head) = <[u8; 9]>::try_from(&self.head_bytes[..]) else {
                        return;
                    };
                    self.head_bytes.clear();
                    (Head::parse(head), 0)
                }
            };
            let length = (head.length - offset).min(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            let (payload, rest) = bytes.split_at(length as usize);
            if length > 0 {
                found(Part::Payload {
                    head,
                    offset,
                    bytes: payload,
                });
            }
            bytes = rest;
            if offset + length < head.length {
                self.head = Some((head, offset + length));
                return;
            }
            self.head = None;
            found(Part::End(head));
        }
    }
}
