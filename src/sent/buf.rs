//! A buffer of a response that reports when the server has consumed it.

use std::{fmt, io::IoSlice};

use bytes::{Buf, Bytes};

use super::response::ResponseHandle;

/// A data frame of a [`SentBody`](super::SentBody). It wraps the data of the inner body, and reports
/// its consumption if the request has deferred something.
///
/// A server consumes a buffer with [`Buf::advance`]. hyper and h2 do so after the bytes were written,
/// or when they copy them to the buffer that they write next. In both cases, a flush that covers the
/// bytes follows.
///
/// ```
/// use axum_defer::sent::SentBuf;
/// use bytes::{Buf, Bytes};
///
/// /// A server in short.
/// fn write(mut data: SentBuf<Bytes>, to: &mut Vec<u8>) {
///     while data.has_remaining() {
///         let chunk = data.chunk();
///         to.extend_from_slice(chunk);
///         data.advance(chunk.len());
///     }
/// }
/// ```
pub struct SentBuf<D: Buf> {
    data: D,
    watch: Option<Watch>,
}

struct Watch {
    handle: ResponseHandle,
    /// Bytes that the server will still send, which may be fewer than the buffer holds.
    remaining: u64,
    consumed: u64,
}

impl<D: Buf> SentBuf<D> {
    pub(super) fn unwatched(data: D) -> Self {
        Self { data, watch: None }
    }

    /// Watches a buffer of which the server will send `length` bytes.
    pub(super) fn watched(data: D, handle: ResponseHandle, length: u64) -> Self {
        handle.buffer_taken();
        Self {
            data,
            watch: Some(Watch {
                handle,
                remaining: length,
                consumed: 0,
            }),
        }
    }

    fn consumed(&mut self, count: usize) {
        let Some(watch) = &mut self.watch else { return };
        let count = watch.remaining.min(count as u64);
        watch.consumed += count;
        watch.handle.add_consumed(count);
        watch.remaining -= count;
        if watch.remaining == 0 {
            watch.handle.buffer_consumed(watch.consumed);
            self.watch = None;
        }
    }
}

impl<D: Buf> Buf for SentBuf<D> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
        self.consumed(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        let bytes = self.data.copy_to_bytes(length);
        self.consumed(length);
        bytes
    }
}

impl<D: Buf> Drop for SentBuf<D> {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.handle.buffer_discarded(watch.consumed);
        }
    }
}

impl<D: Buf> fmt::Debug for SentBuf<D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SentBuf")
            .field("remaining", &self.data.remaining())
            .field("watched", &self.watch.is_some())
            .finish()
    }
}
