//! A buffer of a response that tells when the server is done with it.

use std::{fmt, io::IoSlice};

use bytes::{Buf, Bytes};

use super::transmission::Transmission;

/// The data frames of a [`SentBody`](super::SentBody): the wrapped body's own data, watched when
/// the request has deferred something.
///
/// A server consumes a buffer with [`Buf::advance`]: hyper and h2 do so after the bytes were
/// written, or when they copy them to the buffer that they write next. Either way a flush of the
/// connection follows, and it covers them.
///
/// ```
/// use axum_defer::sent::SentBuf;
/// use bytes::{Buf, Bytes};
///
/// /// What a server does with it, in short.
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
    transmission: Transmission,
    /// Bytes until the server is done with this buffer; it may be less than is in it.
    remaining: u64,
    consumed: u64,
}

impl<D: Buf> SentBuf<D> {
    pub(super) fn unwatched(data: D) -> Self {
        Self { data, watch: None }
    }

    /// `length` is what the server will send of the data.
    pub(super) fn watched(data: D, transmission: Transmission, length: u64) -> Self {
        transmission.buffer_taken();
        Self {
            data,
            watch: Some(Watch {
                transmission,
                remaining: length,
                consumed: 0,
            }),
        }
    }

    fn consumed(&mut self, count: usize) {
        let Some(watch) = &mut self.watch else { return };
        let count = watch.remaining.min(count as u64);
        watch.consumed += count;
        watch.remaining -= count;
        if watch.remaining == 0 {
            watch.transmission.buffer_consumed(watch.consumed);
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
            watch.transmission.buffer_discarded(watch.consumed);
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
