//! The shapes in which servers are awaited: replacing `axum::serve` by `axum_defer::serve` compiles.

#![allow(clippy::unwrap_used)]

use std::{future::IntoFuture, io, time::Duration};

use axum::Router;
use axum_defer::{DeferLayer, DrainReport, defer, serve};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

use crate::support::{
    in_time,
    serving::{self, InMemory, LONG, in_memory},
};

fn parts() -> (InMemory, Router) {
    (in_memory().1, Router::new())
}

async fn with_question_mark(
    listener: InMemory,
    app: Router,
) -> Result<(), Box<dyn std::error::Error>> {
    serve(listener, app).await?;
    Ok(())
}

/// The tail of `main`, where `main` returns `io::Result<()>`.
async fn tail(listener: InMemory, app: Router) -> io::Result<()> {
    serve(listener, app).await
}

async fn mapped(listener: InMemory, app: Router) -> Result<(), String> {
    serve(listener, app)
        .await
        .map_err(|error| error.to_string())
}

async fn unwrapped(listener: InMemory, app: Router) {
    serve(listener, app).await.unwrap();
}

async fn expected(listener: InMemory, app: Router) {
    serve(listener, app).await.expect("the server runs");
}

async fn selected(listener: InMemory, app: Router) -> io::Result<()> {
    tokio::select! {
        result = serve(listener, app) => result?,
        () = std::future::pending() => {}
    }
    Ok(())
}

async fn joined(listener: InMemory, app: Router) -> io::Result<((), ())> {
    let other = serve(parts().0, app.clone()).into_future();
    tokio::try_join!(serve(listener, app).into_future(), other)
}

async fn spawned(listener: InMemory, app: Router) -> io::Result<()> {
    tokio::spawn(async { serve(listener, app).await }).await?
}

async fn in_a_set(listener: InMemory, app: Router) -> io::Result<()> {
    let mut set = JoinSet::new();
    set.spawn(serve(listener, app).into_future());
    set.spawn(std::future::pending::<io::Result<()>>());
    while let Some(ended) = set.join_next().await {
        ended??;
    }
    Ok(())
}

async fn drained(listener: InMemory, app: Router) -> io::Result<DrainReport> {
    let server = serve(listener, app).with_graceful_shutdown(std::future::pending());
    server.await
}

#[tokio::test]
async fn usual_shapes_compile_and_never_return() {
    macro_rules! runs {
        ($($function:ident),*) => {$(
            let (listener, app) = parts();
            let result = timeout(Duration::from_millis(5), $function(listener, app)).await;
            assert!(result.is_err(), stringify!($function));
        )*};
    }
    runs!(
        with_question_mark,
        tail,
        mapped,
        unwrapped,
        expected,
        selected,
        joined,
        spawned,
        in_a_set,
        drained
    );
}

#[tokio::test]
async fn graceful_shutdown_returns_the_report() {
    let (listener, app) = parts();
    let server = serve(listener, app).with_graceful_shutdown(async {});
    let report: io::Result<DrainReport> = in_time(server.into_future()).await;
    assert!(report.unwrap().is_complete());
}

#[tokio::test]
async fn background_tasks_are_waited_for() {
    let (listener, app) = parts();
    let server = serve(listener, app);
    let mut shutdown = server.shutdown();
    let observer = server.shutdown_observer();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        (&mut shutdown).await;
        may_go_on.await.unwrap();
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let server = server
        .with_graceful_shutdown(async { stopped.await.unwrap() })
        .drain_timeout(LONG);
    let server = tokio::spawn(server.into_future());
    serving::settle().await;
    assert!(!observer.is_shutting_down());
    stop.send(()).unwrap();
    // The observer is kept, and does not delay the shutdown.
    in_time(observer.clone()).await;
    serving::settle().await;
    assert!(!server.is_finished());
    go_on.send(()).unwrap();
    assert!(in_time(server).await.unwrap().unwrap().is_complete());
    in_time(task).await.unwrap();
    assert!(observer.is_shutting_down());
}

#[tokio::test]
async fn a_server_that_never_ran_notifies_too() {
    let (listener, app) = parts();
    let server = serve(listener, app);
    let shutdown = server.shutdown();
    drop(server);
    in_time(shutdown).await;
}

#[tokio::test]
async fn added_handles_are_drained() {
    let jobs = DeferLayer::new();
    let (listener, app) = parts();
    let server = serve(listener, app).drain(jobs.handle());
    let (go_on, may_go_on) = oneshot::channel::<()>();
    tokio::spawn(jobs.scope(async {
        defer(async { may_go_on.await.unwrap() });
    }));
    serving::settle().await;
    let server = server.with_graceful_shutdown(async {}).drain_timeout(LONG);
    let server = tokio::spawn(server.into_future());
    serving::settle().await;
    assert!(!server.is_finished());
    go_on.send(()).unwrap();
    let report = in_time(server).await.unwrap().unwrap();
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.succeeded, 1);
}
