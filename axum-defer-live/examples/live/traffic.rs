//! The requests that the app sends itself.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

/// Sends requests, up to 32 at the same time.
pub(crate) async fn send_all(address: SocketAddr, requests: Option<u64>) {
    let mut clients = JoinSet::new();
    for id in 0..requests.unwrap_or(u64::MAX) {
        let (request, leaves) = match id % 8 {
            1 => (
                format!("POST /sign-up/{}", ["ada", "bob", "eve"][id as usize % 3]),
                false,
            ),
            3 => (format!("POST /payments/{id}"), false),
            4 => (format!("POST /photos/{id}"), false),
            6 => (format!("GET /reports/{id}"), id % 3 == 0),
            // An example that ends would wait for the export.
            7 if id % 80 == 7 && requests.is_none() => ("POST /export".to_owned(), false),
            _ => (format!("POST /orders/{id}"), false),
        };
        clients.spawn(send(address, request, leaves));
        while clients.len() > 32 || clients.try_join_next().is_some() {
            if clients.len() > 32 {
                clients.join_next().await;
            }
        }
        sleep(Duration::from_millis(20 + id * 37 % 200)).await;
    }
    while clients.join_next().await.is_some() {}
}

async fn send(address: SocketAddr, request: String, leaves: bool) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    if leaves {
        let mut beginning = [0; 200];
        stream.read_exact(&mut beginning).await?;
        return Ok(());
    }
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    Ok(())
}
