//! HTTP/2 clients that write frames themselves, and may ignore what the server sends.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    app::ROUTES,
    dice::Dice,
    frames::{
        ACK, DATA, END_HEADERS, END_STREAM, FrameReader, GOAWAY, HEADER_TABLE_SIZE, HEADERS,
        INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, PING, PREFACE, Part, SETTINGS, frame, request_fields,
        reset, settings, window_update,
    },
    network::ClientEnd,
    record::World,
};

pub struct Http2Client {
    pub link: ClientEnd,
    pub world: World,
    pub dice: Dice,
}

/// How a client gives the server room to send.
#[derive(Clone, Copy)]
enum Windows {
    AtOnce,
    Late(Duration),
    Never,
}

/// Keeps frames whole while several tasks write them.
#[derive(Clone)]
struct Writer {
    link: ClientEnd,
    turn: Arc<Mutex<Dice>>,
}

impl Writer {
    async fn write(&self, bytes: &[u8]) {
        let mut dice = self.turn.lock().await;
        if dice.one_in(8) {
            let (start, rest) = bytes.split_at(dice.below(bytes.len() as u64) as usize);
            self.link.send(start);
            sleep(dice.short_pause()).await;
            self.link.send(rest);
        } else {
            self.link.send(bytes);
        }
    }

    async fn reset(&self, stream: u32, request: u64) {
        let _turn = self.turn.lock().await;
        self.link.send_reset(&reset(stream), request);
    }
}

impl Http2Client {
    pub async fn run(mut self) {
        let writer = Writer {
            link: self.link.clone(),
            turn: Arc::new(Mutex::new(self.dice.fork())),
        };
        if self.dice.one_in(12) {
            let length = self.dice.below(PREFACE.len() as u64) as usize;
            self.link.send(&PREFACE[..length]);
            self.world.falls_silent(self.link.number());
            return self.link.until_gone().await;
        }
        let windows = match self.dice.below(5) {
            0..=1 => Windows::AtOnce,
            2..=3 => Windows::Late(self.dice.short_pause()),
            _ => Windows::Never,
        };
        let window = self.dice.pick(&[0, 1, 100, 65_535, 1 << 20]);
        let frame_size = self.dice.pick(&[16_384, 100_000]);
        let values = [
            (HEADER_TABLE_SIZE, 0),
            (INITIAL_WINDOW_SIZE, window),
            (MAX_FRAME_SIZE, frame_size),
        ];
        writer.write(&[PREFACE, &settings(&values)].concat()).await;
        let is_mute = self.dice.one_in(6);
        let patience = if self.dice.one_in(8) {
            self.dice.below(20)
        } else {
            u64::MAX
        };
        let reader = Reader {
            writer: writer.clone(),
            windows,
            is_mute,
            patience,
            most: self.dice.pick(&[100, 4_000, 1_000_000]),
        };
        tokio::spawn(reader.run());

        let mut streams = JoinSet::new();
        for stream in 0..self.dice.below(7) as u32 {
            let request = self.world.request(self.link.number(), true);
            let opened = Stream {
                number: 2 * stream + 1,
                request,
                writer: writer.clone(),
                world: self.world.clone(),
                dice: self.dice.fork(),
            };
            // In order, because the numbers of streams must rise.
            let method = opened.open().await;
            streams.spawn(opened.run(method));
            if self.dice.one_in(3) {
                sleep(self.dice.pause()).await;
            }
        }
        if self.dice.one_in(4) {
            sleep(self.dice.pause()).await;
        } else if self.dice.one_in(3) {
            let patience = self.dice.pause();
            let all = async { while streams.join_next().await.is_some() {} };
            let _ = timeout(patience, all).await;
        } else {
            while streams.join_next().await.is_some() {}
        }
        if self.dice.one_in(3) {
            writer.write(&frame(PING, 0, 0, &[7; 8])).await;
        }
        match self.dice.below(4) {
            0 => self.link.close(),
            1 => self.link.reset(),
            2 => {
                writer.write(&frame(GOAWAY, 0, 0, &[0; 8])).await;
                self.link.until_gone().await;
            }
            _ => self.link.until_gone().await,
        }
    }
}

struct Stream {
    number: u32,
    request: u64,
    writer: Writer,
    world: World,
    dice: Dice,
}

impl Stream {
    /// Returns whether a body follows.
    async fn open(&self) -> bool {
        let mut dice = self.dice.clone();
        let method = match dice.below(10) {
            0 => "HEAD",
            1..=2 => "POST",
            _ => "GET",
        };
        let has_body = method == "POST";
        let path = format!("/{}/{}", dice.below(ROUTES), self.request);
        let flags = END_HEADERS | if has_body { 0 } else { END_STREAM };
        let fields = request_fields(method, &path);
        self.writer.link.open_stream(self.number, self.request);
        self.writer
            .write(&frame(HEADERS, flags, self.number, &fields))
            .await;
        has_body
    }

    async fn run(mut self, has_body: bool) {
        self.dice = self.dice.fork();
        if has_body {
            let pieces = self.dice.below(4);
            for _ in 0..pieces {
                let length = self.dice.pick(&[0, 1, 3_000]);
                let data = vec![b'x'; length];
                self.writer.write(&frame(DATA, 0, self.number, &data)).await;
                sleep(self.dice.short_pause()).await;
            }
            if !self.dice.one_in(6) {
                self.writer
                    .write(&frame(DATA, END_STREAM, self.number, &[]))
                    .await;
            }
        }
        let (world, request) = (self.world.clone(), self.request);
        let link = self.writer.link.clone();
        let resets = match self.dice.below(12) {
            0 => true,
            1 => {
                sleep(self.dice.pause()).await;
                true
            }
            2..=3 => {
                let limit = self.dice.pick(&[10, 20_000, 100_000]);
                let bytes = self.dice.below(limit);
                let came = || {
                    let body = world.with_request(request, |request| {
                        request.body > bytes || request.end_accepted
                    });
                    body.unwrap_or(true)
                };
                link.until(came).await
            }
            _ => false,
        };
        if resets {
            self.writer.reset(self.number, self.request).await;
        } else {
            let is_over =
                || world.with_request(request, |request| request.end_accepted) != Some(false);
            link.until(is_over).await;
        }
    }
}

struct Reader {
    writer: Writer,
    windows: Windows,
    /// It acknowledges nothing.
    is_mute: bool,
    /// It stops reading after so many reads.
    patience: u64,
    most: usize,
}

impl Reader {
    async fn run(mut self) {
        let mut frames = FrameReader::default();
        let mut ping = Vec::new();
        while self.patience > 0 && self.writer.link.readable().await {
            self.patience -= 1;
            let bytes = self.writer.link.take(self.most);
            let mut answers = Vec::new();
            frames.read(&bytes, |part| match part {
                Part::Payload { head, bytes, .. } if head.kind == PING => ping.extend(bytes),
                Part::Payload { head, bytes, .. } if head.kind == DATA => {
                    let length = bytes.len() as u32;
                    answers.push((true, window_update(0, length)));
                    answers.push((true, window_update(head.stream, length)));
                }
                Part::End(head) if head.kind == SETTINGS && !head.has(ACK) => {
                    answers.push((false, frame(SETTINGS, ACK, 0, &[])));
                }
                Part::End(head) if head.kind == PING => {
                    if !head.has(ACK) && ping.len() == 8 {
                        answers.push((false, frame(PING, ACK, 0, &ping)));
                    }
                    ping.clear();
                }
                _ => {}
            });
            let mut windows = Vec::new();
            for (is_window, answer) in answers {
                if is_window {
                    windows.extend(answer);
                } else if !self.is_mute {
                    self.writer.write(&answer).await;
                }
            }
            if windows.is_empty() {
                continue;
            }
            match self.windows {
                Windows::AtOnce => self.writer.write(&windows).await,
                Windows::Late(pause) => {
                    sleep(pause).await;
                    self.writer.write(&windows).await;
                }
                Windows::Never => {}
            }
        }
    }
}
