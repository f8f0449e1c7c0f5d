//! A server of `axum_defer::serve` that the test shuts down, over sockets or in memory.

#![allow(dead_code, reason = "each test file uses only a part of it")]

use std::{fmt::Debug, io, net::SocketAddr, time::Duration};

use axum::{Router, body::Body, serve::Listener};
use axum_defer::{
    DrainReport,
    serve::{Serve, serve},
};
use tokio::{
    io::{DuplexStream, duplex},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::support::{in_time, listen};

/// A deadline that no test reaches, so a shutdown that waits for it hangs.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// A server with a graceful shutdown.
pub(crate) struct Serving {
    stop: oneshot::Sender<()>,
    report: JoinHandle<DrainReport>,
}

impl Serving {
    /// Starts a server on a free port of 127.0.0.1.
    pub(crate) async fn start(app: Router, drain: Duration) -> (Self, SocketAddr) {
        let (listener, address) = listen().await;
        (Self::on(serve(listener, app), drain), address)
    }

    /// Starts a server in memory, because a paused clock does not wait for sockets.
    pub(crate) fn in_memory(app: Router, drain: Duration) -> (Self, Connect) {
        let (connect, listener) = in_memory();
        (Self::on(serve(listener, app), drain), connect)
    }

    pub(crate) fn on<L>(server: Serve<L, Router, Router, Body>, drain: Duration) -> Self
    where
        L: Listener<Addr: Debug>,
    {
        let (stop, stopped) = oneshot::channel();
        let server = server
            .with_graceful_shutdown(async { stopped.await.unwrap() })
            .drain_timeout(drain);
        Self {
            stop,
            report: tokio::spawn(async { server.await.unwrap() }),
        }
    }

    /// Sends the signal, and returns the task of the shutdown.
    pub(crate) fn stop(self) -> JoinHandle<DrainReport> {
        self.stop.send(()).unwrap();
        self.report
    }

    pub(crate) async fn stopped(self) -> DrainReport {
        in_time(self.stop()).await.unwrap()
    }
}

pub(crate) fn in_memory() -> (Connect, InMemory) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Connect(sender), InMemory(receiver))
}

/// A connector to a server in memory.
pub(crate) struct Connect(mpsc::UnboundedSender<DuplexStream>);

impl Connect {
    pub(crate) fn connect(&self) -> DuplexStream {
        self.connect_over(16 * 1024)
    }

    /// Connects over buffers of this size.
    pub(crate) fn connect_over(&self, bytes: usize) -> DuplexStream {
        let (client, server) = duplex(bytes);
        self.0.send(server).unwrap();
        client
    }
}

pub(crate) struct InMemory(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for InMemory {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(io) => (io, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Yields until the server cannot continue without the test. Requires a runtime of one thread.
pub(crate) async fn settle() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}
