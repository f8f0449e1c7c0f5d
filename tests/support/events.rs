//! An observer that records all events as text.
#![allow(dead_code, reason = "each test file uses only a part of it")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum_defer::{CallbackInfo, Completion, DeferLayer, DeferObserver, Finished, LostReason};

/// The recorded events, one line each: the event, the name, and details.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<String>>>);

/// Returns a layer and the events of its callbacks.
pub(crate) fn observed() -> (DeferLayer, Events) {
    let events = Events::default();
    (DeferLayer::new().observer(events.clone()), events)
}

impl Events {
    pub(crate) fn all(&self) -> Vec<String> {
        self.lines().clone()
    }

    /// Returns the events of one callback, without its name.
    pub(crate) fn of(&self, name: &str) -> Vec<String> {
        let lines = self.lines();
        let of_name = lines.iter().filter_map(|line| {
            let (event, rest) = line.split_once(' ')?;
            let rest = rest.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with(' ')).then(|| format!("{event}{rest}"))
        });
        of_name.collect()
    }

    /// Returns the lines that start with this text.
    pub(crate) fn starting_with(&self, start: &str) -> Vec<String> {
        let mut lines = self.all();
        lines.retain(|line| line.starts_with(start));
        lines
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().expect("no panic while locked")
    }

    fn add(&self, event: &str, callback: &CallbackInfo<'_>, more: &str) {
        let name = callback.name().unwrap_or("-");
        self.lines()
            .push(format!("{event} {name} {more}").trim_end().to_owned());
    }
}

impl DeferObserver for Events {
    fn registered(&self, callback: &CallbackInfo<'_>) {
        self.add("registered", callback, "");
    }

    fn deduplicated(&self, callback: &CallbackInfo<'_>) {
        self.add("duplicate", callback, "");
    }

    fn replaced(&self, callback: &CallbackInfo<'_>) {
        self.add("replaced", callback, "");
    }

    fn started(&self, callback: &CallbackInfo<'_>, _: Duration) {
        self.add("started", callback, "");
    }

    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        self.add("finished", callback, &finished.outcome.to_string());
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
        let delivery = format!("{:?}", completion.delivery());
        self.add("skipped", callback, &delivery);
    }

    fn cancelled(&self, callback: &CallbackInfo<'_>) {
        self.add("cancelled", callback, "");
    }

    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        self.add("lost", callback, &format!("{reason:?}"));
    }
}
