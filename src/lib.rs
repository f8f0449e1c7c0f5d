//! WIP
#![forbid(unsafe_code)]

mod admission;
mod body;
mod callback;
mod collection;
mod completer;
mod completion;
mod current;
mod drain;
mod end_of_body;
#[cfg(feature = "axum")]
mod extract;
mod handle;
mod isolate;
mod layer;
#[cfg(all(test, axum_defer_loom))]
mod model;
mod never;
mod observe;
mod options;
mod queue;
mod run_to_completion;
mod runner;
mod running;
mod scope;
pub mod sent;
#[cfg(feature = "serve")]
pub mod serve;
mod service;
mod sync;
mod unit;

#[cfg(feature = "axum")]
pub use self::extract::MissingDeferLayer;
#[cfg(feature = "serve")]
pub use self::serve::serve;
pub use self::{
    body::ResponseBody,
    callback::{BoxError, CallbackEnd, CallbackOutput, Deferrable, DeferrableBlocking},
    collection::{DeferredCallbackCollection, NoScope, defer, defer_blocking, try_defer},
    completion::{Completion, Delivery, Level},
    drain::{DeferHandle, DrainReport, UnfinishedCallback},
    handle::DeferredCallback,
    layer::{DeferLayer, InPlace, ToCompletion},
    observe::{CallbackInfo, DeferObserver, Finished, LostReason, Outcome},
    options::CallbackFuture,
    run_to_completion::{RunToCompletion, ToCompletionFuture},
    service::{Defer, ResponseFuture},
    unit::{UnitOutput, scope},
};
