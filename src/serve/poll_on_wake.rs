//! A future that is polled only if it was woken, because polling it costs more than a flag.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

use pin_project_lite::pin_project;

pin_project! {
    /// Polls the future when it is first polled, and after each time that the future was woken.
    pub(super) struct PollOnWake<F> {
        #[pin]
        future: F,
        registered: Option<Arc<WakeFlag>>,
    }
}

/// Wakes a task, and notes that it did.
struct WakeFlag {
    is_woken: AtomicBool,
    task: Waker,
}

impl<F> PollOnWake<F> {
    pub(super) fn new(future: F) -> Self {
        Self {
            future,
            registered: None,
        }
    }
}

impl<F: Future> Future for PollOnWake<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let flag = match this.registered {
            Some(flag) if flag.task.will_wake(cx.waker()) && !flag.is_woken() => {
                return Poll::Pending;
            }
            registered => registered.insert(Arc::new(WakeFlag {
                is_woken: AtomicBool::new(false),
                task: cx.waker().clone(),
            })),
        };
        let waker = Waker::from(flag.clone());
        this.future.poll(&mut Context::from_waker(&waker))
    }
}

impl WakeFlag {
    fn is_woken(&self) -> bool {
        self.is_woken.load(Acquire)
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Release);
        self.task.wake_by_ref();
    }
}
