//! What a callback may return.

use std::error::Error;

use crate::never::Never;

/// The error that a callback may return; it is reported and goes no further.
///
/// ```
/// use axum_defer::BoxError;
///
/// async fn remind(days: &str) -> Result<(), BoxError> {
///     let days: u32 = days.parse()?;
///     if days == 0 {
///         return Err("there is no time left".into());
///     }
///     Ok(())
/// }
/// # fn callback() { axum_defer::defer(remind("3")); }
/// ```
pub type BoxError = Box<dyn Error + Send + Sync>;

/// How one callback ended when it did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// It returned an error.
    Error(BoxError),
    /// The runtime is gone before it could run.
    Lost,
}

/// What a callback may return: `()`, or a `Result<(), E>` whose error can be boxed.
///
/// Where the `?` leaves the type of the error open, the block says which one it is:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # axum_defer::scope(async {
/// axum_defer::defer(async {
///     std::fs::remove_file("/tmp/upload")?;
///     Ok::<_, axum_defer::BoxError>(())
/// });
/// # }).await;
/// # }
/// ```
///
/// `()` says nothing that could be reported, so it is no error:
///
/// ```compile_fail,E0277
/// axum_defer::defer(async { Err::<(), ()>(()) });
/// ```
#[diagnostic::on_unimplemented(
    message = "a deferred callback can't return `{Self}`",
    label = "this callback returns `{Self}`",
    note = "a callback returns `()`, or `Result<(), E>` where `E: Into<Box<dyn Error + Send + Sync>>`",
    note = "nobody waits for its value: throw it away with a `;`, or with `.map(drop)` to keep the error"
)]
pub trait CallbackOutput: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), Failure>;
}

impl CallbackOutput for () {
    fn into_result(self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Of a callback that ends the process, or panics: since edition 2024 that is what such a block
/// returns.
impl CallbackOutput for Never {
    fn into_result(self) -> Result<(), Failure> {
        match self {}
    }
}

#[diagnostic::do_not_recommend]
impl<E> CallbackOutput for Result<(), E>
where
    E: Into<BoxError>,
{
    fn into_result(self) -> Result<(), Failure> {
        self.map_err(|error| Failure::Error(error.into()))
    }
}

/// How a callback inside of [`DeferLayer::wrap`](crate::DeferLayer::wrap) ended; the wrapping
/// future returns it as it is.
///
/// ```
/// use axum_defer::{CallbackEnd, CallbackFuture, DeferLayer};
/// use tokio::sync::Semaphore;
///
/// static PRINTER: Semaphore = Semaphore::const_new(1);
///
/// let layer = DeferLayer::new().wrap(async |callback: CallbackFuture| -> CallbackEnd {
///     let _turn = PRINTER.acquire().await;
///     callback.await
/// });
/// # let _ = layer;
/// ```
#[derive(Debug)]
#[must_use = "the wrapping future returns it"]
pub struct CallbackEnd(pub(crate) Result<(), Failure>);

impl CallbackOutput for CallbackEnd {
    fn into_result(self) -> Result<(), Failure> {
        self.0
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl Sealed for super::Never {}
    impl<E> Sealed for Result<(), E> {}
    impl Sealed for super::CallbackEnd {}
}
