#![doc = include_str!("../../docs/testing.md")]

mod completion;
mod event;
mod recorder;

pub use self::{
    completion::{CompletionBuilder, completion},
    event::{CallbackEvent, RecordedEvent},
    recorder::Recorder,
};
