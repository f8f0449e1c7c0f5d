//! Return types of callbacks.

use std::error::Error;

/// The error type of callbacks. Errors are reported, and do not affect other callbacks.
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

/// The reason why a callback did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// It returned an error.
    Error(BoxError),
    /// Its runtime ended before it did.
    Lost,
}

/// The output of a callback: `()`, or a `Result<(), E>` whose error can be boxed.
///
/// If `?` leaves the error type open, name it in the last line of the block:
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
/// An error type that does not implement [`Error`] can be reported as text:
///
/// ```
/// # #[derive(Debug)]
/// # struct AppError;
/// # async fn send_mail() -> Result<(), AppError> { Ok(()) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # axum_defer::scope(async {
/// axum_defer::defer(async { send_mail().await.map_err(|error| format!("{error:?}")) });
/// # }).await;
/// # }
/// ```
///
/// `()` is not an error type, because it contains nothing to report:
///
/// ```compile_fail,E0277
/// axum_defer::defer(async { Err::<(), ()>(()) });
/// ```
#[diagnostic::on_unimplemented(
    message = "a deferred callback cannot return `{Self}`",
    label = "this callback returns `{Self}`",
    note = "if its error type does not implement `std::error::Error`, report it as text: `.map_err(|error| error.to_string())`",
    note = "a callback returns `()`, or `Result<(), E>` where `E: Into<Box<dyn Error + Send + Sync>>`",
    note = "the value of a callback is not used: discard it with `;`, or with `.map(drop)` to keep the error"
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

/// Lets a callback end in a panic or `std::process::exit`. In edition 2024, such a block returns
/// `!`.
#[diagnostic::do_not_recommend]
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

/// The result of a callback inside [`DeferLayer::wrap`](crate::DeferLayer::wrap). The wrapping
/// future returns it unchanged.
///
/// ```
/// use axum_defer::{CallbackFuture, CallbackResult, DeferLayer};
/// use tokio::sync::Semaphore;
///
/// static PRINTER: Semaphore = Semaphore::const_new(1);
///
/// let layer = DeferLayer::new().wrap(async |callback: CallbackFuture| -> CallbackResult {
///     let _permit = PRINTER.acquire().await;
///     callback.await
/// });
/// # let _ = layer;
/// ```
#[derive(Debug)]
#[must_use = "the wrapping future returns it"]
pub struct CallbackResult(pub(crate) Result<(), Failure>);

impl CallbackOutput for CallbackResult {
    fn into_result(self) -> Result<(), Failure> {
        self.0
    }
}

/// The type `!`, which stable Rust cannot name: the return type of functions that never return.
type Never = <fn() -> ! as Returns>::Output;

/// Names the return type of a function.
pub trait Returns {
    type Output;
}

impl<T> Returns for fn() -> T {
    type Output = T;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    #[diagnostic::do_not_recommend]
    impl Sealed for super::Never {}
    impl<E> Sealed for Result<(), E> {}
    impl Sealed for super::CallbackResult {}
}
