//! What the transport has accepted from the server, read as HTTP: which responses are on it, and
//! up to which byte.

use std::collections::VecDeque;

use super::frames::{DATA, END_STREAM, FrameReader, HEADERS, Head, Part};

/// A step of a response that became visible in the accepted bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Body {
        request: u64,
        bytes: u64,
    },
    /// The last byte of the response was accepted.
    End {
        request: u64,
    },
    /// The response has no end of its own but that of the connection.
    UntilClose {
        request: u64,
    },
    /// A whole frame of HTTP/2.
    Frame {
        kind: u8,
        stream: u32,
    },
}

#[derive(Debug)]
pub enum Wire {
    Http1(Http1),
    Http2(Http2),
    /// Bytes whose meaning is unknown.
    Raw,
}

impl Wire {
    pub fn accept(&mut self, bytes: &[u8], seen: &mut Vec<Seen>) {
        match self {
            Self::Http1(responses) => responses.accept(bytes, seen),
            Self::Http2(frames) => frames.accept(bytes, seen),
            Self::Raw => {}
        }
    }
}

#[derive(Debug, Default)]
pub struct Http2 {
    reader: FrameReader,
    /// Streams and their requests.
    streams: Vec<(u32, u64)>,
}

impl Http2 {
    pub fn open(&mut self, stream: u32, request: u64) {
        self.streams.push((stream, request));
    }

    fn accept(&mut self, bytes: &[u8], seen: &mut Vec<Seen>) {
        let Self { reader, streams } = self;
        let request_of = |stream: u32| {
            let found = streams.iter().find(|(opened, _)| *opened == stream);
            found.map(|(_, request)| *request)
        };
        reader.read(bytes, |part| match part {
            Part::Payload { head, bytes, .. } if head.kind == DATA => {
                if let Some(request) = request_of(head.stream) {
                    let bytes = bytes.len() as u64;
                    seen.push(Seen::Body { request, bytes });
                }
            }
            Part::Payload { .. } => {}
            Part::End(head) => {
                let Head { kind, stream, .. } = head;
                seen.push(Seen::Frame { kind, stream });
                if matches!(kind, DATA | HEADERS) && head.has(END_STREAM) {
                    if let Some(request) = request_of(stream) {
                        seen.push(Seen::End { request });
                    }
                }
            }
        });
    }
}

#[derive(Debug, Default)]
pub struct Http1 {
    /// Requests without a response, and whether they are for the head alone.
    expected: VecDeque<(u64, bool)>,
    state: State,
    /// A head, a line, or nothing.
    text: Vec<u8>,
    current: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    Trailers,
    UntilClose,
    NoHttp,
}

impl Http1 {
    pub fn expect(&mut self, request: u64, head_only: bool) {
        self.expected.push_back((request, head_only));
    }

    fn accept(&mut self, mut bytes: &[u8], seen: &mut Vec<Seen>) {
        while !bytes.is_empty() {
            let request = self.current;
            match self.state {
                State::Head => {
                    self.text.push(bytes[0]);
                    bytes = &bytes[1..];
                    if self.text.ends_with(b"\r\n\r\n") {
                        self.head(seen);
                        self.text.clear();
                    }
                }
                State::Length(left) => {
                    let taken = left.min(bytes.len() as u64);
                    bytes = &bytes[taken as usize..];
                    seen.push(Seen::Body {
                        request,
                        bytes: taken,
                    });
                    self.state = State::Length(left - taken);
                    if left == taken {
                        self.end(seen);
                    }
                }
                State::ChunkSize | State::Trailers => {
                    self.text.push(bytes[0]);
                    bytes = &bytes[1..];
                    if self.text.ends_with(b"\r\n") {
                        self.line(seen);
                        self.text.clear();
                    }
                }
                State::Chunk(left) => {
                    // The last two bytes of a chunk are its CRLF.
                    let taken = left.min(bytes.len() as u64);
                    let of_body = left.saturating_sub(2).min(taken);
                    bytes = &bytes[taken as usize..];
                    if of_body > 0 {
                        seen.push(Seen::Body {
                            request,
                            bytes: of_body,
                        });
                    }
                    self.state = match left - taken {
                        0 => State::ChunkSize,
                        left => State::Chunk(left),
                    };
                }
                State::UntilClose => {
                    let bytes_seen = bytes.len() as u64;
                    seen.push(Seen::Body {
                        request,
                        bytes: bytes_seen,
                    });
                    return;
                }
                State::NoHttp => return,
            }
        }
    }

    fn head(&mut self, seen: &mut Vec<Seen>) {
        let head = String::from_utf8_lossy(&self.text).to_ascii_lowercase();
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let status: u16 = status.unwrap_or(0);
        if (100..200).contains(&status) && status != 101 {
            return;
        }
        // hyper answers what is no request with a 400 of its own.
        let Some((request, head_only)) = self.expected.pop_front() else {
            self.state = State::NoHttp;
            return;
        };
        self.current = request;
        let field = |name: &str| {
            let mut lines = head.split("\r\n");
            let line = lines.find(|line| line.starts_with(name))?;
            Some(line[name.len()..].trim())
        };
        if status == 101 {
            seen.push(Seen::End { request });
            self.state = State::NoHttp;
        } else if head_only || status == 204 || status == 304 {
            self.end(seen);
        } else if field("transfer-encoding:").is_some() {
            self.state = State::ChunkSize;
        } else if let Some(length) = field("content-length:") {
            match length.parse() {
                Ok(0) | Err(_) => self.end(seen),
                Ok(length) => self.state = State::Length(length),
            }
        } else {
            seen.push(Seen::UntilClose { request });
            self.state = State::UntilClose;
        }
    }

    fn line(&mut self, seen: &mut Vec<Seen>) {
        if self.state == State::Trailers {
            if self.text == b"\r\n" {
                self.end(seen);
            }
            return;
        }
        let text = String::from_utf8_lossy(&self.text);
        let size = u64::from_str_radix(text.trim(), 16).unwrap_or(0);
        self.state = match size {
            0 => State::Trailers,
            size => State::Chunk(size + 2),
        };
    }

    fn end(&mut self, seen: &mut Vec<Seen>) {
        seen.push(Seen::End {
            request: self.current,
        });
        self.state = State::Head;
    }
}
