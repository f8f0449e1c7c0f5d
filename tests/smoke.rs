//! The crate from the outside.
use axum::{Router, routing::get};
use axum_defer::*;
use http_body_util::BodyExt;
use std::sync::{Arc, Mutex};
use tower::ServiceExt;
#[tokio::test]
async fn smoke() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let layer = DeferLayer::new();
    let handle = layer.handle();
    let l = log.clone();
    let app: Router = Router::new()
        .route(
            "/",
            get(move || {
                let l = l.clone();
                async move {
                    let l2 = l.clone();
                    defer(async move {
                        l2.lock().unwrap().push("a");
                    });
                    let l2 = l.clone();
                    defer(|c: Completion| async move {
                        dbg!(c);
                        l2.lock().unwrap().push("b");
                    })
                    .name("b")
                    .always();
                    defer_blocking(|| ());
                    "hi"
                }
            }),
        )
        .layer(layer);
    let r = app
        .clone()
        .oneshot(
            axum::extract::Request::builder()
                .body(axum::body::Body::empty())
                .unwrap(),
        )
        .await
        .unwrap();
    r.into_body().collect().await.unwrap();
    handle.wait_idle().await;
    assert_eq!(*log.lock().unwrap(), ["a", "b"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (tx, rx) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        serve(listener, app)
            .with_graceful_shutdown(async {
                let _ = rx.await;
            })
            .await
            .unwrap()
    });
    let out = tokio::process::Command::new("curl")
        .arg("-si")
        .arg(format!("http://{addr}/"))
        .output()
        .await
        .unwrap();
    eprintln!("{}", String::from_utf8_lossy(&out.stdout));
    let out = tokio::process::Command::new("curl")
        .arg("-si")
        .arg("--http2-prior-knowledge")
        .arg(format!("http://{addr}/"))
        .output()
        .await
        .unwrap();
    eprintln!("{}", String::from_utf8_lossy(&out.stdout));
    handle.wait_idle().await;
    assert_eq!(log.lock().unwrap().len(), 6);
    tx.send(()).unwrap();
    eprintln!("{}", server.await.unwrap());
}
