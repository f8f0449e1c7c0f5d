//! A temporary file that is deleted after it has been sent: `cargo run --example file_download`.
//!
//! One client reads an export slowly to its end, another disconnects midway, and a third gets an
//! error. Afterwards, each file is deleted. This needs `axum_defer::serve`, which runs callbacks
//! after the OS has accepted the last byte.

use std::{
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_defer::{Completion, DeferLayer, defer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tower_http::services::ServeFile;

const SIZE: usize = 32 << 20;
static EXPORTS: AtomicU32 = AtomicU32::new(0);

async fn export(State(folder): State<PathBuf>, request: Request) -> Response {
    let path = folder.join(format!("{}.csv", EXPORTS.fetch_add(1, Relaxed)));
    match write_and_send(path, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn write_and_send(path: PathBuf, request: Request) -> io::Result<Response> {
    // Not with `tokio::fs`: its thread could create the file after the callback has run.
    let file = fs::File::create_new(&path)?;
    // Before the next `.await` and `?`, so that the file is deleted if the handler is cancelled or
    // fails.
    let to_delete = path.clone();
    defer(|completion: Completion| async move {
        println!("deleted: the response was {:?}", completion.delivery());
        tokio::fs::remove_file(to_delete).await
    })
    .name("delete")
    .always();

    let mut file = tokio::fs::File::from_std(file);
    file.write_all(&vec![b'x'; SIZE]).await?;
    file.flush().await?;
    let response = ServeFile::new(path).try_call(request).await?;
    Ok(response.into_response())
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let folder = env::temp_dir().join(format!("axum-defer-exports-{}", process::id()));
    fs::create_dir_all(&folder)?;
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let app = Router::new()
        .route("/export", get(export))
        .with_state(folder.clone())
        .layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum_defer::serve(listener, app).into_future());

    let mut reader = request(address, "bytes=0-", b"206").await?;
    println!("slow client, first bytes: {} file", count(&folder)?);
    assert_eq!(count(&folder)?, 1);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await?;
    assert!(rest.len() >= SIZE);
    deferred.wait_idle().await;
    println!("slow client, complete: {} files", count(&folder)?);
    assert_eq!(count(&folder)?, 0);

    let reader = request(address, "bytes=0-", b"206").await?;
    println!("second client, first bytes: {} file", count(&folder)?);
    assert_eq!(count(&folder)?, 1);
    drop(reader);
    deferred.wait_idle().await;
    println!("second client, disconnected: {} files", count(&folder)?);
    assert_eq!(count(&folder)?, 0);

    request(address, "bytes=99999999-", b"416").await?;
    deferred.wait_idle().await;
    println!("third client, invalid range: {} files", count(&folder)?);
    assert_eq!(count(&folder)?, 0);
    fs::remove_dir(folder)
}

/// Requests an export and reads only its first bytes.
async fn request(address: SocketAddr, range: &str, status: &[u8]) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // A small buffer, so that most of the response is not sent yet.
    socket.set_recv_buffer_size(64 << 10)?;
    let mut stream = socket.connect(address).await?;
    let request =
        format!("GET /export HTTP/1.1\r\nhost: a\r\nconnection: close\r\nrange: {range}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = [0; 12];
    stream.read_exact(&mut line).await?;
    assert_eq!(&line[9..], status);
    Ok(stream)
}

fn count(folder: &Path) -> io::Result<usize> {
    Ok(fs::read_dir(folder)?.count())
}
