//! A transport that accepts and flushes on demand.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::oracle::{Byte, SharedOracle};
use crate::sync::lock;

/// A transport that accepts the announced bytes, and flushes if allowed.
pub(super) struct Transport {
    pub(super) oracle: SharedOracle,
    pub(super) next_bytes: Arc<Mutex<Vec<Byte>>>,
    pub(super) flush_is_ready: Arc<Mutex<bool>>,
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut bytes = lock(&self.next_bytes);
        assert_eq!(bytes.len(), buf.len());
        lock(&self.oracle).accepted.append(&mut bytes);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !*lock(&self.flush_is_ready) {
            return Poll::Pending;
        }
        let mut oracle = lock(&self.oracle);
        oracle.flushed = oracle.accepted.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
