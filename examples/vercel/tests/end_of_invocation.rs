//! The app with Vercel's runtime. The test listens on the socket on which the runtime reports the end
//! of invocations.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Ended(u64),
    Mailed(String),
}

use Seen::{Ended, Mailed};

enum Message {
    End(u64),
    Letter {
        text: String,
        received: oneshot::Sender<()>,
    },
}

struct Function {
    child: Child,
    address: SocketAddr,
    socket: PathBuf,
    messages_received: mpsc::UnboundedReceiver<Message>,
    /// Unacknowledged letters.
    letters: Vec<(String, oneshot::Sender<()>)>,
    seen: Vec<Seen>,
}

impl Function {
    async fn start(name: &str, with_wait_until: bool) -> Self {
        let (messages, messages_received) = mpsc::unbounded_channel();
        let mail = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mail_server = mail.local_addr().unwrap().to_string();
        tokio::spawn(receive_mail(mail, messages.clone()));

        let socket = std::env::temp_dir().join(format!("{name}-{}.sock", std::process::id()));
        let platform = UnixListener::bind(&socket).unwrap();
        // The runtime cannot choose a free port and report it.
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut command = Command::new(env!("CARGO_BIN_EXE_vercel"));
        command
            .env("MAIL_SERVER", mail_server)
            .env("VERCEL_DEV_PORT", address.port().to_string())
            .env("VERCEL_IPC_PATH", &socket)
            .env_remove("VERCEL_DEV")
            .env_remove("WITHOUT_WAIT_UNTIL");
        if !with_wait_until {
            command.env("WITHOUT_WAIT_UNTIL", "1");
        }
        let child = command.spawn().unwrap();
        let (runtime, _) = platform.accept().await.unwrap();
        let mut runtime = BufReader::new(runtime);
        assert_eq!(message(&mut runtime).await["type"], "server-started");
        tokio::spawn(async move {
            loop {
                let message = message(&mut runtime).await;
                if message["type"] == "end" {
                    let id = message["payload"]["context"]["requestId"].as_u64();
                    let _ = messages.send(Message::End(id.unwrap()));
                }
            }
        });
        Self {
            child,
            address,
            socket,
            messages_received,
            letters: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Sends a request and waits for its response.
    async fn invoke(&self, id: u64, method: &str, path: &str) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\
             x-vercel-internal-invocation-id: invocation-{id}\r\n\
             x-vercel-internal-request-id: {id}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    }

    async fn step(&mut self) {
        match self.messages_received.recv().await.unwrap() {
            Message::End(id) => self.seen.push(Ended(id)),
            Message::Letter { text, received } => self.letters.push((text, received)),
        }
    }

    async fn until_ended(&mut self, id: u64) {
        while !self.seen.contains(&Ended(id)) {
            self.step().await;
        }
    }

    /// Acknowledges letters until `count` events have been observed.
    async fn until_seen(&mut self, count: usize) {
        loop {
            for (text, received) in self.letters.drain(..) {
                self.seen.push(Mailed(text));
                received.send(()).unwrap();
            }
            if self.seen.len() >= count {
                return;
            }
            self.step().await;
        }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Reads a message of the runtime: JSON that ends with a zero byte.
async fn message(runtime: &mut BufReader<UnixStream>) -> Value {
    let mut message = Vec::new();
    runtime.read_until(0, &mut message).await.unwrap();
    if message.pop().is_none() {
        // The test is over.
        std::future::pending::<()>().await;
    }
    serde_json::from_slice(&message).unwrap()
}

/// Receives letters and acknowledges each one when the test does.
async fn receive_mail(listener: TcpListener, messages: mpsc::UnboundedSender<Message>) {
    while let Ok((mut sender, _)) = listener.accept().await {
        let messages = messages.clone();
        tokio::spawn(async move {
            let mut text = String::new();
            sender.read_to_string(&mut text).await.unwrap();
            let (received, acknowledged) = oneshot::channel();
            let _ = messages.send(Message::Letter { text, received });
            if acknowledged.await.is_ok() {
                sender.write_all(b".").await.unwrap();
            }
        });
    }
}

async fn in_time<F: Future>(future: F) -> F::Output {
    let output = tokio::time::timeout(Duration::from_secs(60), future).await;
    output.expect("no timeout")
}

fn letters() -> [Seen; 3] {
    ["receipt", "invoice", "survey"].map(|letter| Mailed(letter.to_owned()))
}

#[tokio::test]
async fn invocation_with_wait_until_ends_after_callbacks() {
    in_time(async {
        let mut function = Function::start("with", true).await;
        function.invoke(1, "POST", "/orders").await;
        function.invoke(2, "GET", "/").await;
        // Without `wait_until`, the first invocation would have ended first, on one thread.
        function.until_ended(2).await;
        assert_eq!(function.seen, [Ended(2)]);

        function.until_seen(5).await;
        assert_eq!(function.seen[1..4], letters());
        assert_eq!(function.seen[4], Ended(1));
    })
    .await;
}

#[tokio::test]
async fn invocation_without_wait_until_ends_first() {
    in_time(async {
        let mut function = Function::start("without", false).await;
        function.invoke(1, "POST", "/orders").await;
        function.invoke(2, "GET", "/").await;
        function.until_ended(2).await;
        assert_eq!(function.seen, [Ended(1), Ended(2)]);

        // This process is not frozen, so the callbacks still run.
        function.until_seen(5).await;
        assert_eq!(function.seen[2..], letters());
    })
    .await;
}
