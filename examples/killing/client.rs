//! A client that writes down what it was told, until the server is gone.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::random::Random;

/// One request, and its end as the client saw it.
#[derive(Debug)]
pub struct Request {
    /// No two requests have the same.
    pub email: String,
    pub expected: u16,
    /// The status, unless the server was gone before.
    pub told: Option<u16>,
}

/// Sends at most `requests`, one after the other on one connection, until the server is gone.
/// `on_first_byte` is called with the number of the request when its answer begins.
pub fn send_orders(
    address: SocketAddr,
    name: &str,
    requests: usize,
    mut random: Random,
    on_first_byte: impl Fn(usize),
) -> Vec<Request> {
    let mut told = Vec::new();
    let Ok(mut stream) = TcpStream::connect(address) else {
        return told;
    };
    stream.set_nodelay(true).unwrap();
    // Who waits for so long hangs.
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    for number in 0..requests {
        // One that fails at once, and one that fails when its job is written.
        let (item, quantity, expected) = match random.within(0..8) {
            0 => ("tea", 0, 422),
            1 => ("gold", 1, 409),
            _ => ("tea", 1, 201),
        };
        let email = format!("{name}-{number}@example.org");
        let body = format!(r#"{{"item":"{item}","quantity":{quantity},"email":"{email}"}}"#);
        let request = format!(
            "POST /orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len(),
        );
        let sent = stream.write_all(request.as_bytes());
        let (status, ended) = match sent {
            Ok(()) => read_answer(&mut stream, || on_first_byte(number)),
            Err(_) => (None, true),
        };
        told.push(Request {
            email,
            expected,
            told: status,
        });
        if ended {
            break;
        }
    }
    told
}

/// The status, when that much has come, and whether the connection ended.
fn read_answer(stream: &mut TcpStream, on_first_byte: impl Fn()) -> (Option<u16>, bool) {
    let mut answer = Vec::new();
    let whole = read_whole(stream, &mut answer, on_first_byte);
    let status = answer.get(9..12).map(|status| {
        let status = std::str::from_utf8(status).unwrap();
        status.parse().unwrap()
    });
    if let Err(error) = &whole {
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the server hangs");
    }
    (status, whole.is_err())
}

fn read_whole(
    stream: &mut TcpStream,
    answer: &mut Vec<u8>,
    on_first_byte: impl Fn(),
) -> io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    answer.push(byte[0]);
    on_first_byte();
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    let head = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).expect("a length");
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    answer.extend(body);
    Ok(())
}
