//! Over a Unix socket, a callback may run while the client has some of the response still to read:
//! as much as the kernel holds, and no more.

#![allow(clippy::unwrap_used)]
#![cfg(unix)]

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use axum::{Router, body::Body, routing::get, serve::Listener};
use axum_defer::{Completion, DeferLayer, Delivery, Level, defer, serve};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
};

use crate::support::{get as request, in_time};

const BODY: usize = 3_000_000;
/// Less than a Unix socket takes by default.
const UNREAD: usize = 64 * 1024;

/// Counts what the kernel takes from it and gives to it, and reads no more than it may.
struct Counting {
    stream: UnixStream,
    written: Arc<AtomicUsize>,
    read: usize,
    may_read: watch::Receiver<usize>,
    changed: Option<Changed>,
}

type Changed = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Counting {
    fn new(stream: UnixStream, may_read: watch::Receiver<usize>) -> Self {
        Self {
            stream,
            written: Arc::default(),
            read: 0,
            may_read,
            changed: None,
        }
    }
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let may_read = *self.may_read.borrow_and_update();
            let left = may_read.saturating_sub(self.read).min(buf.remaining());
            if left > 0 {
                let mut part = vec![0; left];
                let mut part = ReadBuf::new(&mut part);
                let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
                buf.put_slice(part.filled());
                self.read += part.filled().len();
                return polled;
            }
            let mut may_read = self.may_read.clone();
            let changed = self.changed.get_or_insert_with(|| {
                Box::pin(async move {
                    let _ = may_read.changed().await;
                })
            });
            std::task::ready!(changed.as_mut().poll(cx));
            self.changed = None;
        }
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.written.fetch_add(written, SeqCst);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The server's side of the one connection.
struct One(Option<Counting>);

impl Listener for One {
    type Io = Counting;
    type Addr = ();

    async fn accept(&mut self) -> (Counting, ()) {
        match self.0.take() {
            Some(io) => (io, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_unread_when_a_callback_runs_lies_in_the_kernel_and_nowhere_else() {
    for is_http2 in [false, true] {
        let name = format!("axum-defer-unix-{}-{is_http2}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let (reads, may_read) = watch::channel(usize::MAX);
        let (limit, limited) = watch::channel(BODY - UNREAD);
        let client = Counting::new(UnixStream::connect(&path).await.unwrap(), limited);
        let server = Counting::new(listener.accept().await.unwrap().0, may_read);
        std::fs::remove_file(path).unwrap();

        let written = server.written.clone();
        let (sender, mut fired) = mpsc::unbounded_channel();
        let by_then = written.clone();
        let handler = || async move {
            defer(move |completion: Completion| async move {
                sender.send((completion, by_then.load(SeqCst)))
            });
            Body::from(vec![b'x'; BODY])
        };
        let app = Router::new().route("/", get(handler));
        let app = app.layer(DeferLayer::new());
        tokio::spawn(serve(One(Some(server)), app).into_future());

        // The window is wide open: what holds the server up is the socket alone.
        let response = if is_http2 {
            let (mut client, connection) =
                hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(1 << 30)
                    .initial_connection_window_size(1 << 30)
                    .handshake(TokioIo::new(client))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let asking = client.send_request(request::<Full<Bytes>>("/"));
            in_time(asking).await.unwrap()
        } else {
            let (mut client, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(client))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let asking = client.send_request(request::<Full<Bytes>>("/"));
            in_time(asking).await.unwrap()
        };
        let reading = tokio::spawn(response.into_body().collect());

        // It runs although the client reads no further than this.
        let (completion, by_then) = in_time(fired.recv()).await.unwrap();
        assert_eq!(completion.level(), Level::Flushed);
        assert_eq!(completion.delivery(), Delivery::Complete);
        assert!(!reading.is_finished());
        assert!(by_then >= BODY, "the kernel had all of it: {by_then}");
        // And not a byte of it is written later.
        limit.send(usize::MAX).unwrap();
        let body = in_time(reading).await.unwrap().unwrap().to_bytes();
        assert_eq!(body.len(), BODY);
        assert_eq!(written.load(SeqCst), by_then);
        drop(reads);
    }
}
