//! A response body that follows a script.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use axum_defer::Shutdown;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::{callbacks::Registrar, dice::Dice, panics::PLANNED};

pub enum Step {
    Data(usize),
    Pause(Duration),
    Register,
    UntilShutdown(Shutdown),
    Fail,
    Panic,
    Trailers,
}

pub struct ScriptedBody {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Bytes to come.
    left: u64,
    /// It announces its length.
    sized: bool,
    /// It knows after its last frame that there is none.
    knows_end: bool,
    registrar: Registrar,
    dice: Dice,
}

impl ScriptedBody {
    pub fn new(steps: Vec<Step>, registrar: Registrar, mut dice: Dice) -> Self {
        let data = steps.iter().map(|step| match step {
            Step::Data(bytes) => *bytes as u64,
            _ => 0,
        });
        Self {
            left: data.sum(),
            steps: steps.into(),
            sleep: None,
            sized: dice.one_in(2),
            knows_end: dice.one_in(2),
            registrar,
            dice,
        }
    }
}

impl HttpBody for ScriptedBody {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let this = self.get_mut();
        loop {
            if let Some(sleep) = &mut this.sleep {
                ready!(sleep.as_mut().poll(cx));
                this.sleep = None;
            }
            if let Some(Step::UntilShutdown(shutdown)) = this.steps.front_mut() {
                ready!(Pin::new(shutdown).poll(cx));
            }
            match this.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Data(bytes)) => {
                    this.left -= bytes as u64;
                    let data = Bytes::from(vec![b'x'; bytes]);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Step::Pause(pause)) => this.sleep = Some(Box::pin(sleep(pause))),
                Some(Step::Register) => this.registrar.register(&mut this.dice, 0),
                Some(Step::UntilShutdown(_)) => {}
                Some(Step::Fail) => return Poll::Ready(Some(Err(PLANNED))),
                Some(Step::Panic) => panic!("{PLANNED}"),
                Some(Step::Trailers) => {
                    let mut trailers = axum::http::HeaderMap::new();
                    trailers.insert("x-trailer", axum::http::HeaderValue::from_static("1"));
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.knows_end && self.steps.is_empty() && self.sleep.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.sized {
            true => SizeHint::with_exact(self.left),
            false => SizeHint::default(),
        }
    }
}
