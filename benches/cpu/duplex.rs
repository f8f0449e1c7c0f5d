//! Client and listener of connections in memory.

use std::{future, io};

use axum::serve::Listener;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::yield_now,
};

/// A listener that accepts only the given connections.
pub(crate) struct Connections(Vec<DuplexStream>);

impl Listener for Connections {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.pop() {
            Some(io) => (io, ()),
            None => future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Client(Vec<DuplexStream>);

impl Client {
    pub(crate) fn connect(connections: usize) -> (Self, Connections) {
        let (client, server) = (0..connections).map(|_| duplex(16 * 1024)).unzip();
        (Self(client), Connections(server))
    }

    /// Sends a request on every connection, reads all responses, and repeats this until the given
    /// number of requests is done.
    pub(crate) async fn requests(&mut self, count: usize, request: &[u8]) {
        let mut left = count;
        while left > 0 {
            let batch = left.min(self.0.len());
            left -= batch;
            let connections = &mut self.0[..batch];
            for connection in &mut *connections {
                let written = connection.write_all(request).await;
                written.expect("the server reads");
            }
            for connection in connections {
                read_response(connection).await;
            }
            // The callbacks run here.
            yield_now().await;
        }
    }
}

async fn read_response(connection: &mut DuplexStream) {
    let mut response = [0; 1024];
    let mut length = 0;
    while !response[..length].ends_with(b"hello") {
        let read = connection.read(&mut response[length..]).await;
        let read = read.expect("the server writes");
        assert!(read > 0, "the server closed the connection");
        length += read;
    }
    assert!(response.starts_with(b"HTTP/1.1 200"));
}
