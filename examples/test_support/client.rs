//! A client that records responses until the server is gone.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::random::Random;

/// A request and its result.
#[derive(Debug)]
pub struct Request {
    /// Unique.
    pub email: String,
    pub expected: u16,
    /// `None` if the server was gone before the response.
    pub status: Option<u16>,
}

/// Sends up to `requests` orders, one after the other on one connection, until the server is gone.
/// Calls `on_first_byte` with the number of the request when its response begins.
pub fn send_orders(
    address: SocketAddr,
    name: &str,
    requests: usize,
    mut random: Random,
    on_first_byte: impl Fn(usize),
) -> Vec<Request> {
    let mut sent = Vec::new();
    let Ok(mut stream) = connect(address) else {
        return sent;
    };
    for number in 0..requests {
        // Some fail before the transaction, and some after the job was added.
        let (item, quantity, expected) = match random.within(0..8) {
            0 => ("tea", 0, 422),
            1 => ("gold", 1, 409),
            _ => ("tea", 1, 201),
        };
        let email = format!("{name}-{number}@example.org");
        let request = order_request(item, quantity, &email);
        let (status, ended) = match stream.write_all(request.as_bytes()) {
            Ok(()) => read_response(&mut stream, || on_first_byte(number)),
            Err(_) => (None, true),
        };
        sent.push(Request {
            email,
            expected,
            status,
        });
        if ended {
            break;
        }
    }
    sent
}

pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    // A server that takes longer hangs.
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

pub fn order_request(item: &str, quantity: i64, email: &str) -> String {
    let body = format!(r#"{{"item":"{item}","quantity":{quantity},"email":"{email}"}}"#);
    format!(
        "POST /orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len(),
    )
}

/// Returns the status, if that much was received, and `true` if the connection ended.
pub fn read_response(stream: &mut TcpStream, on_first_byte: impl Fn()) -> (Option<u16>, bool) {
    let mut response = Vec::new();
    let read = read_to_end(stream, &mut response, on_first_byte);
    let status = response.get(9..12).map(|status| {
        let status = std::str::from_utf8(status).unwrap();
        status.parse().unwrap()
    });
    if let Err(error) = &read {
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the server hangs");
    }
    (status, read.is_err())
}

fn read_to_end(
    stream: &mut TcpStream,
    response: &mut Vec<u8>,
    on_first_byte: impl Fn(),
) -> io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    response.push(byte[0]);
    on_first_byte();
    while !response.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        response.push(byte[0]);
    }
    let head = String::from_utf8_lossy(response).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).expect("a length");
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    response.extend(body);
    Ok(())
}
