//! The outermost body: knows when the response has ended, and watches its buffers.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{buffer::SentBuf, departure::Flush, transmission::Transmission};
use crate::response::end_of_body::{EndOfBody, Progress};

pin_project! {
    /// The response body of [`Sent`](super::Sent).
    ///
    /// ```
    /// use axum_defer::sent::{SentBody, SentBuf};
    /// use bytes::Bytes;
    /// use http_body_util::Full;
    ///
    /// // What a server gets to send, if the service inside answers with a `Full<Bytes>`.
    /// fn send(body: SentBody<Full<Bytes>>) -> impl http_body::Body<Data = SentBuf<Bytes>> {
    ///     body
    /// }
    /// ```
    #[derive(Debug)]
    pub struct SentBody<B> {
        // Dropped before the inner body, whose drop decides what only the last one to go can
        // settle.
        outgoing: Outgoing,
        #[pin]
        inner: B,
    }
}

/// What is left of the response; ends the transmission exactly once, at the latest when dropped.
#[derive(Debug)]
struct Outgoing {
    transmission: Transmission,
    end: EndOfBody,
    /// HTTP/2: other responses share the connection, and h2's queue.
    multiplexed: bool,
    /// The last frame ended the response and is watched itself.
    last_frame_watched: bool,
    /// Bytes of frames that went by unwatched.
    unwatched: u64,
    /// Over HTTP/2: what the connection had written at the latest when the server took the
    /// response, or its last unwatched frame, and the length of that frame.
    unwatched_until: u64,
    is_over: bool,
}

impl<B: Body> SentBody<B> {
    pub(super) fn new(
        inner: B,
        end: EndOfBody,
        multiplexed: bool,
        transmission: Transmission,
    ) -> Self {
        let mut outgoing = Outgoing {
            transmission,
            end,
            multiplexed,
            last_frame_watched: false,
            unwatched: 0,
            unwatched_until: 0,
            is_over: false,
        };
        outgoing.unwatched_until = outgoing.transmission.written();
        if outgoing.end.is_over_already(&inner) {
            let progress = outgoing.end.end();
            outgoing.progressed(progress);
        }
        Self { outgoing, inner }
    }
}

impl Outgoing {
    fn ended(&mut self, flush: Flush) {
        // Where nothing was deferred, nobody else is left mostly.
        if !std::mem::replace(&mut self.is_over, true) && self.transmission.is_shared() {
            self.transmission.ended(flush, self.unwatched);
        }
    }

    fn progressed(&mut self, progress: Progress) {
        match progress {
            Progress::Continues => {}
            Progress::Over => self.ended(self.last_flush()),
            Progress::Short => self.abort(),
        }
    }

    /// The flush that covers a response which ends now, before the server goes on with it.
    fn last_flush(&self) -> Flush {
        if !self.multiplexed {
            // Over HTTP/1 the body is polled by the task that writes, and nothing is flushed
            // between the end of the body and the end of the message.
            self.transmission.next_flush()
        } else if self.last_frame_watched {
            Flush::OF_BUFFERS
        } else {
            Flush::Beyond(self.transmission.written().max(self.unwatched_until))
        }
    }

    fn abort(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.transmission.abort(self.unwatched);
        }
    }

    fn buffer<D: Buf>(&mut self, data: D, length: u64, progress: Progress) -> SentBuf<D> {
        // What an HTTP/2 stream defers before its end is about this frame too, and only the frame
        // itself tells whether h2 has written it or a reset has thrown it away.
        let may_defer = self.multiplexed
            && matches!(progress, Progress::Continues)
            && self.transmission.has_scope();
        self.last_frame_watched = length > 0 && (may_defer || self.transmission.is_watched());
        if self.last_frame_watched {
            SentBuf::watched(data, self.transmission.clone(), length)
        } else {
            self.unwatched += length;
            // `Beyond` asks for one byte more: at the least, the head of this frame.
            self.unwatched_until = self.transmission.written() + length;
            SentBuf::unwatched(data)
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.end.may_be_dropped(false) {
            self.ended(if self.multiplexed {
                // h2 has the whole response by now, and may even have written it: the flush that
                // covers it may be behind us.
                Flush::Beyond(self.unwatched_until)
            } else {
                self.last_flush()
            });
        } else {
            self.abort();
        }
        if self.multiplexed && !self.last_frame_watched && self.unwatched == 0 {
            self.transmission.queued();
        }
        self.transmission.taken();
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
        let polled = ready!(this.inner.as_mut().poll_frame(cx));
        let outgoing = this.outgoing;
        Poll::Ready(match polled {
            Some(Ok(frame)) => {
                let to_send = frame
                    .data_ref()
                    .map(|data| outgoing.end.bytes_to_send(data.remaining() as u64));
                let progress = outgoing.end.frame(&frame, &*this.inner);
                // A frame without data ends the response itself, so no buffer stands for its end.
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
