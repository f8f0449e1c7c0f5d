//! As much of SMTP as it takes to receive mails.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
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
}

impl MailServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let letters = Arc::<Mutex<Vec<Letter>>>::default();
        let received = letters.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(stream, received.clone()));
            }
        });
        Self { address, letters }
    }

    /// In the order of their text.
    pub fn letters(&self) -> Vec<Letter> {
        let mut letters = self.letters.lock().unwrap().clone();
        letters.sort();
        letters
    }
}

async fn receive(stream: TcpStream, letters: Arc<Mutex<Vec<Letter>>>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 here\r\n").await?;
    let mut to = String::new();
    loop {
        let line = read_line(&mut stream).await?;
        let answer = match line.split([' ', ':']).next().unwrap() {
            "EHLO" | "MAIL" => "250 yes\r\n",
            "RCPT" => {
                let (_, address) = line.split_once('<').unwrap();
                to = address.split('>').next().unwrap().to_owned();
                "250 yes\r\n"
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let subject = read_letter(&mut stream).await?;
                let to = to.clone();
                letters.lock().unwrap().push(Letter { to, subject });
                "250 received\r\n"
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => "502 what\r\n",
        };
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Returns the subject.
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
