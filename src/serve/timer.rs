//! The clock of one connection's time-outs, wound up seldom.
//!
//! hyper asks for a new sleep for each request, and drops it as soon as the head is there: with
//! Tokio's own timer, something that all threads share is locked three times for each request, to
//! enter a sleep, to hear of it, and to take it back. Here the sleep that is dropped stays entered,
//! as an alarm for the next one, whose deadline is later. If it rings before that deadline, it is
//! set anew: once in the time of a time-out, and not once for each request.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::task::unconstrained;

/// For one connection, as the alarm that is kept wakes the task which has slept last.
///
/// Any number of sleeps of one timer may be awaited at a time; one of them has the alarm that was
/// kept, and the others have alarms of their own.
#[derive(Clone, Default)]
pub(super) struct ConnectionTimer {
    kept: Arc<Mutex<Option<Alarm>>>,
}

impl ConnectionTimer {
    fn kept(&self) -> MutexGuard<'_, Option<Alarm>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl hyper::rt::Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep {
            deadline: deadline.into(),
            alarm: None,
            timer: self.clone(),
        })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(sleep) => sleep.get_mut().deadline = deadline.into(),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

struct Sleep {
    deadline: tokio::time::Instant,
    /// From the first poll on.
    alarm: Option<Alarm>,
    timer: ConnectionTimer,
}

impl hyper::rt::Sleep for Sleep {}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            deadline,
            alarm,
            timer,
        } = self.get_mut();
        if alarm.is_none() {
            *alarm = timer.kept().take();
        }
        alarm
            .get_or_insert_with(|| Alarm::set(*deadline))
            .poll_until(*deadline, cx)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(alarm) = self.alarm.take() {
            let before = self.timer.kept().replace(alarm);
            drop(before);
        }
    }
}

/// A sleep that Tokio knows of.
struct Alarm {
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// Whom it wakes.
    wakes: Option<Waker>,
}

impl Alarm {
    fn set(deadline: tokio::time::Instant) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep_until(deadline)),
            wakes: None,
        }
    }

    fn poll_until(&mut self, deadline: tokio::time::Instant, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.sleep.deadline() > deadline {
                self.reset(deadline);
            }
            let wakes_this_task = self
                .wakes
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()));
            if wakes_this_task && !self.sleep.is_elapsed() {
                return Poll::Pending;
            }
            // A task whose budget is used up would hear that this is pending, and Tokio would not
            // know whom to wake.
            let mut sleep = unconstrained(self.sleep.as_mut());
            if Pin::new(&mut sleep).poll(cx).is_pending() {
                self.wakes = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if self.sleep.deadline() == deadline {
                return Poll::Ready(());
            }
            self.reset(deadline);
        }
    }

    fn reset(&mut self, deadline: tokio::time::Instant) {
        self.sleep.as_mut().reset(deadline);
        self.wakes = None;
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::ready};

    use hyper::rt::Timer;
    use tokio::time::{advance, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn in_seconds(timer: &ConnectionTimer, seconds: u32) -> Pin<Box<dyn hyper::rt::Sleep>> {
        timer.sleep(SECOND * seconds)
    }

    /// How long something takes, with a clock that goes on when there is nothing else to do.
    async fn seconds_of(future: impl Future<Output = ()>) -> f64 {
        let start = tokio::time::Instant::now();
        let never = SECOND * 1_000_000;
        timeout(never, future).await.expect("it ends");
        start.elapsed().as_secs_f64()
    }

    async fn poll_once(sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>) -> Poll<()> {
        poll_fn(|cx| Poll::Ready(sleep.as_mut().poll(cx))).await
    }

    fn alarm_of(timer: &ConnectionTimer) -> Option<tokio::time::Instant> {
        timer.kept().as_ref().map(|alarm| alarm.sleep.deadline())
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_ends_at_its_deadline_whatever_the_one_before_it_was() {
        for before in [1, 5, 9] {
            for waited in 0..=10 {
                let timer = ConnectionTimer::default();
                let mut dropped = in_seconds(&timer, before);
                let is_over = poll_once(&mut dropped).await.is_ready();
                assert!(!is_over);
                drop(dropped);
                advance(SECOND * waited).await;
                assert_eq!(seconds_of(in_seconds(&timer, 5)).await, 5.0);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_past_is_over_at_once() {
        let timer = ConnectionTimer::default();
        let now = timer.now();
        let mut dropped = in_seconds(&timer, 5);
        assert!(poll_once(&mut dropped).await.is_pending());
        drop(dropped);
        advance(SECOND).await;
        assert_eq!(seconds_of(timer.sleep_until(now)).await, 0.0);
        assert_eq!(seconds_of(timer.sleep(Duration::ZERO)).await, 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_that_is_reset_ends_at_its_new_deadline() {
        for polled_before in [false, true] {
            for (first, then) in [(5, 2), (5, 9), (2, 5)] {
                let timer = ConnectionTimer::default();
                let mut sleep = in_seconds(&timer, first);
                if polled_before {
                    assert!(poll_once(&mut sleep).await.is_pending());
                }
                timer.reset(&mut sleep, timer.now() + SECOND * then);
                assert_eq!(seconds_of(&mut sleep).await, f64::from(then));
                timer.reset(&mut sleep, timer.now() + SECOND);
                assert_eq!(seconds_of(&mut sleep).await, 1.0, "also when it was over");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_of_another_timer_is_reset_too() {
        let timer = ConnectionTimer::default();
        let mut sleep = hyper_util::rt::TokioTimer::new().sleep(SECOND);
        timer.reset(&mut sleep, timer.now() + SECOND * 3);
        assert_eq!(seconds_of(sleep).await, 3.0);
    }

    #[tokio::test(start_paused = true)]
    async fn tokio_hears_of_one_sleep_in_the_time_of_a_time_out() {
        let timer = ConnectionTimer::default();
        let mut alarm = None;
        let mut alarms = 0;
        for _ in 0..100 {
            let mut sleep = in_seconds(&timer, 30);
            assert!(poll_once(&mut sleep).await.is_pending());
            drop(sleep);
            let before = std::mem::replace(&mut alarm, alarm_of(&timer));
            alarms += u32::from(before != alarm);
            advance(SECOND).await;
        }
        assert_eq!(alarms, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn two_sleeps_at_a_time_wake_a_task_each() {
        let timer = ConnectionTimer::default();
        let mut dropped = in_seconds(&timer, 1);
        assert!(poll_once(&mut dropped).await.is_pending());
        drop(dropped);
        let both = [2, 3].map(|seconds| {
            let sleep = in_seconds(&timer, seconds);
            tokio::spawn(seconds_of(sleep))
        });
        for (sleeping, seconds) in both.into_iter().zip([2.0, 3.0]) {
            assert_eq!(sleeping.await.expect("no panic"), seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_that_polls_last_is_woken() {
        let timer = ConnectionTimer::default();
        let mut sleep = in_seconds(&timer, 5);
        assert!(poll_once(&mut sleep).await.is_pending());
        let elsewhere = tokio::spawn(seconds_of(sleep));
        assert_eq!(elsewhere.await.expect("no panic"), 5.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_without_budget_is_woken_too() {
        let timer = ConnectionTimer::default();
        let mut sleep = in_seconds(&timer, 5);
        let without_budget = poll_fn(|cx| {
            while tokio::task::coop::has_budget_remaining() {
                let mut spends = std::pin::pin!(tokio::task::coop::consume_budget());
                ready!(spends.as_mut().poll(cx));
            }
            sleep.as_mut().poll(cx)
        });
        assert_eq!(seconds_of(without_budget).await, 5.0);
    }
}
