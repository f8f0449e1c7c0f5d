//! The part of SMTP that receives mails.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Letter {
    pub to: String,
    pub subject: String,
}

pub struct MailServer {
    pub address: SocketAddr,
    letters: Arc<Mutex<Vec<Letter>>>,
    connections: Arc<AtomicUsize>,
}

impl MailServer {
    pub async fn start() -> Self {
        Self::listen(true).await
    }

    /// Starts a server that accepts connections and never responds.
    pub async fn silent() -> Self {
        Self::listen(false).await
    }

    async fn listen(responds: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            letters: Arc::default(),
            connections: Arc::default(),
        };
        let (letters, connections) = (server.letters.clone(), server.connections.clone());
        tokio::spawn(async move {
            let mut ignored = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                if responds {
                    tokio::spawn(receive(stream, letters.clone()));
                } else {
                    ignored.push(stream);
                }
            }
        });
        server
    }

    /// Returns the received mails, sorted.
    pub fn letters(&self) -> Vec<Letter> {
        let mut letters = self.letters.lock().unwrap().clone();
        letters.sort();
        letters
    }

    /// Returns the number of accepted connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn receive(stream: TcpStream, letters: Arc<Mutex<Vec<Letter>>>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 ready\r\n").await?;
    let mut to = String::new();
    loop {
        let line = read_line(&mut stream).await?;
        let reply = match line.split([' ', ':']).next().unwrap() {
            "EHLO" | "MAIL" => "250 ok\r\n",
            "RCPT" => {
                let (_, address) = line.split_once('<').unwrap();
                to = address.split('>').next().unwrap().to_owned();
                "250 ok\r\n"
            }
            "DATA" => {
                stream.write_all(b"354 go ahead\r\n").await?;
                let subject = read_letter(&mut stream).await?;
                let to = to.clone();
                letters.lock().unwrap().push(Letter { to, subject });
                "250 received\r\n"
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => "502 unknown command\r\n",
        };
        stream.write_all(reply.as_bytes()).await?;
    }
}

/// Reads a mail and returns its subject.
async fn read_letter(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut subject = String::new();
    loop {
        let line = read_line(stream).await?;
        if line == "." {
            return Ok(subject);
        }
        if let Some(text) = line.strip_prefix("Subject: ") {
            subject = text.to_owned();
        }
    }
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
