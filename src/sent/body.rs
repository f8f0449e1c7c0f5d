//! The outermost response body, which follows the frames to the end and watches the buffers.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{buf::SentBuf, delivery::Flush, response::ResponseHandle};
use crate::response::end_of_body::{EndOfBody, Progress};

pin_project! {
    /// The response body of [`Sent`](super::Sent).
    ///
    /// ```
    /// use axum_defer::sent::{SentBody, SentBuf};
    /// use bytes::Bytes;
    /// use http_body_util::Full;
    ///
    /// // What the server sends if the inner service returns a `Full<Bytes>`.
    /// fn send(body: SentBody<Full<Bytes>>) -> impl http_body::Body<Data = SentBuf<Bytes>> {
    ///     body
    /// }
    /// ```
    #[derive(Debug)]
    pub struct SentBody<B> {
        // Dropped before the inner body, whose drop registers the waiter.
        outgoing: Outgoing,
        #[pin]
        inner: B,
    }
}

/// The rest of the response. It reports the end of the body to the handle once, at the latest when
/// it is dropped.
#[derive(Debug)]
struct Outgoing {
    handle: ResponseHandle,
    end: EndOfBody,
    /// HTTP/2: other responses share the connection, and h2's queue.
    multiplexed: bool,
    /// The last frame ended the response and is watched itself.
    last_frame_watched: bool,
    /// Bytes of unwatched frames.
    unwatched: u64,
    /// HTTP/2: an upper bound of the bytes of responses that the connection had written when the
    /// server took the response, or its last unwatched frame, plus the length of that frame.
    unwatched_offset: u64,
    /// HTTP/2: the response is aborted if it stalls.
    may_stall: bool,
    /// HTTP/2: the last poll of the body returned a frame.
    is_sending: bool,
    has_ended: bool,
}

impl<B: Body> SentBody<B> {
    pub(super) fn new(inner: B, end: EndOfBody, multiplexed: bool, handle: ResponseHandle) -> Self {
        let mut outgoing = Outgoing {
            handle,
            end,
            multiplexed,
            last_frame_watched: false,
            unwatched: 0,
            unwatched_offset: 0,
            may_stall: false,
            is_sending: false,
            has_ended: false,
        };
        outgoing.unwatched_offset = outgoing.handle.offset();
        if multiplexed && outgoing.handle.has_scope() {
            outgoing.may_stall = true;
            outgoing.handle.abort_if_stalled();
        }
        if outgoing.end.has_ended_unpolled(&inner) {
            let progress = outgoing.end.end();
            outgoing.progressed(progress);
        }
        Self { outgoing, inner }
    }
}

impl Outgoing {
    fn ended(&mut self, flush: Flush) {
        // If nothing was deferred, there is no other handle in general.
        if !std::mem::replace(&mut self.has_ended, true) && self.handle.is_shared() {
            self.handle.set_has_bytes(true);
            self.handle.ended(flush, self.unwatched);
        }
    }

    fn progressed(&mut self, progress: Progress) {
        match progress {
            Progress::Continues => {}
            Progress::Ended => self.ended(self.last_flush()),
            Progress::Short => self.abort(),
        }
    }

    /// Returns the flush that covers a response that ends now.
    fn last_flush(&self) -> Flush {
        if !self.multiplexed {
            // The task that polls an HTTP/1 body also writes, and it flushes nothing between the end
            // of the body and the end of the message.
            self.handle.next_flush()
        } else if self.last_frame_watched {
            Flush::OF_BUFFERS
        } else {
            Flush::PastOffset(self.handle.offset().max(self.unwatched_offset))
        }
    }

    fn set_sending(&mut self, is_sending: bool) {
        if self.multiplexed && self.is_sending != is_sending {
            self.is_sending = is_sending;
            self.handle.set_sending(is_sending);
            if self.may_stall {
                self.handle.set_has_bytes(is_sending);
            }
        }
    }

    fn abort(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.handle.abort(self.unwatched);
        }
    }

    fn buffer<D: Buf>(&mut self, data: D, length: u64, progress: Progress) -> SentBuf<D> {
        // A callback that an HTTP/2 stream defers later also waits for this frame, and only the frame
        // itself shows whether h2 has written it or dropped it after a reset.
        let may_defer =
            self.multiplexed && matches!(progress, Progress::Continues) && self.handle.has_scope();
        self.last_frame_watched = length > 0 && (may_defer || self.handle.is_watched());
        if self.last_frame_watched {
            SentBuf::watched(data, &self.handle, length)
        } else {
            self.unwatched += length;
            // The flush must cover at least one more byte: the head of this frame.
            self.unwatched_offset = self.handle.offset() + length;
            if self.multiplexed && length > 0 {
                SentBuf::counted(data, &self.handle, length)
            } else {
                SentBuf::unwatched(data)
            }
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.end.may_be_dropped(false) {
            self.ended(if self.multiplexed && !self.last_frame_watched {
                // h2 has the whole response, and may have flushed it already.
                Flush::PastOffset(self.unwatched_offset)
            } else {
                self.last_flush()
            });
        } else {
            self.abort();
        }
        if self.multiplexed && !self.last_frame_watched && self.unwatched == 0 {
            self.handle.queued();
        }
        if self.is_sending {
            self.handle.set_sending(false);
        }
        self.handle.taken();
    }
}

impl<B: Body> Body for SentBody<B> {
    type Data = SentBuf<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let outgoing = this.outgoing;
        let polled = this.inner.as_mut().poll_frame(cx);
        outgoing.set_sending(polled.is_ready());
        let polled = ready!(polled);
        Poll::Ready(match polled {
            Some(Ok(frame)) => {
                let to_send = frame
                    .data_ref()
                    .map(|data| outgoing.end.bytes_to_send(data.remaining() as u64));
                let progress = outgoing.end.frame(&frame, &*this.inner);
                // A frame without data has no buffer that could mark its end.
                outgoing.last_frame_watched = false;
                let frame =
                    frame.map_data(|data| outgoing.buffer(data, to_send.unwrap_or(0), progress));
                outgoing.progressed(progress);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                outgoing.abort();
                Some(Err(error))
            }
            None => {
                outgoing.last_frame_watched = false;
                let progress = outgoing.end.end();
                outgoing.progressed(progress);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
