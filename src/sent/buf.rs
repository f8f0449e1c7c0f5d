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
/// /// A minimal server.
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
    /// The outcome of the response depends on this buffer.
    is_watched: bool,
    /// The connection counts this buffer as something to send.
    is_counted: bool,
    /// Bytes that the server will still send, which may be fewer than the buffer holds.
    remaining: u64,
    consumed: u64,
}

impl<D: Buf> SentBuf<D> {
    pub(super) fn unwatched(data: D) -> Self {
        Self { data, watch: None }
    }

    /// Watches a buffer of which the server will send `length` bytes.
    pub(super) fn watched(data: D, handle: &ResponseHandle, length: u64) -> Self {
        handle.buffer_taken();
        Self::new(data, handle, length, true, handle.begin_frame())
    }

    /// Lets the connection count a buffer of which the server will send `length` bytes.
    pub(super) fn counted(data: D, handle: &ResponseHandle, length: u64) -> Self {
        if handle.begin_frame() {
            Self::new(data, handle, length, false, true)
        } else {
            Self::unwatched(data)
        }
    }

    fn new(
        data: D,
        handle: &ResponseHandle,
        remaining: u64,
        is_watched: bool,
        is_counted: bool,
    ) -> Self {
        let watch = Watch {
            handle: handle.clone(),
            is_watched,
            is_counted,
            remaining,
            consumed: 0,
        };
        Self {
            data,
            watch: Some(watch),
        }
    }

    fn consumed(&mut self, count: usize) {
        let Some(watch) = &mut self.watch else { return };
        let count = watch.remaining.min(count as u64);
        watch.consumed += count;
        watch.remaining -= count;
        if watch.is_watched {
            watch.handle.add_consumed(count);
        }
        if watch.is_counted {
            watch.handle.add_sent(count);
        }
        if watch.remaining == 0 {
            if watch.is_watched {
                watch.handle.buffer_consumed(watch.consumed);
                watch.is_watched = false;
            }
            self.watch = None;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.is_counted {
            self.handle.end_frame();
        }
        if self.is_watched {
            self.handle.buffer_discarded(self.consumed);
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

impl<D: Buf> fmt::Debug for SentBuf<D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SentBuf")
            .field("remaining", &self.data.remaining())
            .field(
                "watched",
                &self.watch.as_ref().is_some_and(|watch| watch.is_watched),
            )
            .finish()
    }
}
