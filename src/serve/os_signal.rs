//! The signals with which operating systems ask a process to stop.

/// Waits for a signal to stop: Ctrl-C, and on Unix also SIGTERM, which process supervisors and
/// container platforms send.
///
/// Pass it to [`with_graceful_shutdown`](crate::serve::Serve::with_graceful_shutdown), here or of
/// `axum::serve`:
///
/// ```no_run
/// # async fn example(listener: tokio::net::TcpListener, app: axum::Router) -> std::io::Result<()> {
/// let report = axum_defer::serve(listener, app)
///     .with_graceful_shutdown(axum_defer::shutdown_signal())
///     .await?;
/// println!("{report}");
/// # Ok(()) }
/// ```
///
/// The first poll replaces the default behavior of these signals for the rest of the process, so a
/// second Ctrl-C does not end it. A signal for which no handler can be installed is ignored.
///
/// # Panics
///
/// The future panics outside a Tokio runtime whose IO driver is enabled.
pub async fn shutdown_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
