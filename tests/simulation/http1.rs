//! HTTP/1 clients that write their requests byte by byte, and read at a speed of their own.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

use super::{app::ROUTES, dice::Dice, network::ClientEnd, record::World};

pub struct Http1Client {
    pub link: ClientEnd,
    pub world: World,
    pub dice: Dice,
}

/// How a connection ends for its client.
#[derive(Clone, Copy)]
enum Exit {
    Close,
    Reset,
    StaySilent,
}

impl Http1Client {
    pub async fn run(mut self) {
        tokio::spawn(read(self.link.clone(), self.dice.fork()));
        for _ in 0..self.dice.below(5) {
            let batch = if self.dice.one_in(4) { 3 } else { 1 };
            let mut requests = Vec::new();
            for _ in 0..batch {
                requests.push(self.request().await);
            }
            let last = requests[batch - 1];
            if self.dice.one_in(6) {
                let limit = self.dice.pause();
                let _ = tokio::time::timeout(limit, self.response(last)).await;
                break;
            }
            if !self.response(last).await {
                return;
            }
            sleep(self.dice.pause()).await;
        }
        if self.link.is_gone() {
            return;
        }
        if self.dice.one_in(4) {
            // Half of a head.
            let head: &[u8] = b"GET /0/0 HTTP/1.1\r\nhost: a\r\n";
            let length = self.dice.below(head.len() as u64) as usize;
            self.link.send(&head[..length]);
        }
        match self
            .dice
            .pick(&[Exit::Close, Exit::Reset, Exit::StaySilent])
        {
            Exit::Close => self.link.close(),
            Exit::Reset => self.link.reset(),
            Exit::StaySilent => {
                self.world.falls_silent(self.link.number());
                self.link.until_gone().await;
            }
        }
    }

    fn response(&self, request: u64) -> impl Future<Output = bool> + use<> {
        let (link, world) = (self.link.clone(), self.world.clone());
        async move {
            let is_over = || {
                let over = world.with_request(request, |request| request.end_accepted);
                over.unwrap_or(true)
            };
            link.until(is_over).await
        }
    }

    async fn request(&mut self) -> u64 {
        let number = self.world.request(self.link.number(), false);
        let dice = &mut self.dice;
        let mut fields = String::from("host: a\r\n");
        let mut body = Vec::new();
        let method = match dice.below(10) {
            0 => "HEAD",
            1..=3 => {
                let length = dice.pick(&[0, 1, 100, 20_000]);
                if dice.one_in(2) {
                    fields += &format!("content-length: {length}\r\n");
                    body.resize(length, b'x');
                } else {
                    fields += "transfer-encoding: chunked\r\n";
                    if length > 0 {
                        body.extend(format!("{length:x}\r\n").bytes());
                        body.resize(body.len() + length, b'x');
                        body.extend(b"\r\n");
                    }
                    body.extend(b"0\r\n\r\n");
                }
                if dice.one_in(4) {
                    fields += "expect: 100-continue\r\n";
                }
                "POST"
            }
            4 if dice.one_in(2) => {
                fields += "connection: upgrade\r\nupgrade: simulated\r\n";
                "GET"
            }
            _ => "GET",
        };
        let version = if dice.one_in(12) { 0 } else { 1 };
        if dice.one_in(12) {
            fields += "connection: close\r\n";
        }
        let route = dice.below(ROUTES);
        let head = format!("{method} /{route}/{number} HTTP/1.{version}\r\n{fields}\r\n");
        self.link.expect(number, method == "HEAD");
        if !body.is_empty() {
            self.world.sends_body(self.link.number());
        }
        let bytes = [head.into_bytes(), body].concat();
        self.send(&bytes).await;
        number
    }

    async fn send(&mut self, bytes: &[u8]) {
        let is_slow = self.dice.one_in(4);
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = match is_slow {
                true => 1 + self.dice.below(rest.len() as u64) as usize,
                false => rest.len(),
            };
            self.link.send(&rest[..length]);
            rest = &rest[length..];
            if is_slow {
                sleep(self.dice.short_pause()).await;
            }
        }
    }
}

/// Reads what comes: at once, slowly, or only at first.
pub async fn read(link: ClientEnd, mut dice: Dice) {
    let most = dice.pick(&[100, 4_000, 1_000_000]);
    let pause = match dice.below(3) {
        0 => dice.short_pause(),
        _ => Duration::ZERO,
    };
    let mut patience = if dice.one_in(6) {
        dice.below(20)
    } else {
        u64::MAX
    };
    let start = Instant::now();
    while patience > 0 && link.readable().await {
        link.take(most);
        patience -= 1;
        // Slow, but not for hours.
        if !pause.is_zero() && start.elapsed() < Duration::from_secs(600) {
            sleep(pause).await;
        }
    }
}
