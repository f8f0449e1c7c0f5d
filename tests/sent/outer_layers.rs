//! Layers outside of `DeferLayer` that keep or rewrite what it sends: they neither hold up the
//! firing nor bring it forward.

#![allow(clippy::unwrap_used)]

use std::{
    any::Any,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    middleware::{Next, from_fn, map_response},
    response::Response,
    routing::get,
};
use axum_defer::{Completion, DeferHandle, DeferLayer, Delivery, Level, defer};
use bytes::Bytes;
use futures_util::{StreamExt, stream::iter};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tower::ServiceExt;
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer};

use crate::support::window::{Window, serve_window};

const SIZE: usize = 300_000;

/// Text that compresses, but not to nothing.
fn text() -> Bytes {
    let words = (0..SIZE as u32).map(|number| number.wrapping_mul(2_654_435_761) >> 20);
    let text: String = words.map(|word| format!("{word} ")).collect();
    Bytes::from(text).slice(..SIZE)
}

/// Sends the text in several frames from `/`.
fn app() -> (Router, mpsc::UnboundedReceiver<Completion>, DeferHandle) {
    let (sender, completions) = mpsc::unbounded_channel();
    let layer = DeferLayer::new();
    let handle = layer.handle();
    let handler = get(move || {
        let sender = sender.clone();
        async move {
            defer(move |completion: Completion| async move { sender.send(completion) }).always();
            let text = text();
            let parts: Vec<_> = text
                .chunks(40_000)
                .map(|part| Ok::<_, Infallible>(text.slice_ref(part)))
                .collect();
            Response::builder()
                .header("content-type", "text/plain")
                .body(Body::from_stream(iter(parts)))
                .unwrap()
        }
    });
    let app = Router::new().route("/", handler).layer(layer);
    (app, completions, handle)
}

/// Opens the window step by step until the callback fires, and returns what the transport had
/// accepted by then, which has to be all of the response.
async fn fires_with_the_last_byte(
    app: Router,
    completions: &mut mpsc::UnboundedReceiver<Completion>,
) -> (Completion, Vec<u8>) {
    let window = Window::new(0);
    let connection = serve_window(&window, app);
    window.send(b"GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n");
    window.settle().await;
    let completion = loop {
        if let Ok(completion) = completions.try_recv() {
            break completion;
        }
        assert!(window.is_stuck(), "all is out, and nothing has fired");
        window.open_by(1000);
        window.settle().await;
    };
    let accepted = window.accepted();
    assert!(!window.is_stuck(), "it fired while bytes were waiting");
    window.open_for_ever();
    window.settle().await;
    assert_eq!(window.accepted_length(), accepted.len());
    assert!(completions.try_recv().is_err() && !connection.is_finished());
    (completion, accepted)
}

fn assert_sent(completion: &Completion) {
    assert_eq!(completion.delivery(), Delivery::Complete);
    assert_eq!(completion.level(), Level::Flushed);
}

fn chunked_body(response: &[u8]) -> Vec<u8> {
    let end = b"\r\n\r\n";
    let head = response.windows(4).position(|part| part == end).unwrap();
    let mut rest = &response[head + 4..];
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|part| part == b"\r\n").unwrap();
        let length = std::str::from_utf8(&rest[..line]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 2 + length + 2..];
    }
}

#[tokio::test]
async fn a_layer_that_compresses_fires_with_the_last_compressed_byte() {
    let (app, mut completions, _) = app();
    let app = app.layer(CompressionLayer::new());
    let (completion, response) = fires_with_the_last_byte(app, &mut completions).await;
    assert_sent(&completion);
    let body = chunked_body(&response);
    assert!(body.starts_with(&[0x1f, 0x8b]) && body.len() < SIZE);
    assert_eq!(completion.body_bytes(), body.len() as u64);
}

#[tokio::test]
async fn a_layer_that_keeps_every_buffer_for_ever_holds_nothing_up() {
    let (app, mut completions, handle) = app();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let cache = kept.clone();
    let app = app.layer(map_response(move |response: Response| {
        let cache = cache.clone();
        async move {
            response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let data = frame.data_ref().cloned();
                    cache.lock().unwrap().extend(data);
                    frame
                }))
            })
        }
    }));
    let (completion, response) = fires_with_the_last_byte(app, &mut completions).await;
    assert_sent(&completion);
    assert_eq!(completion.body_bytes(), SIZE as u64);
    assert_eq!(kept.lock().unwrap().concat(), chunked_body(&response));
    handle.wait_idle().await;
}

#[tokio::test]
async fn a_layer_that_collects_the_body_and_sends_its_own_fires_with_the_last_byte_of_that() {
    let (app, mut completions, handle) = app();
    let kept = Arc::new(Mutex::new(None));
    let cache = kept.clone();
    let app = app.layer(map_response(move |response: Response| {
        let cache = cache.clone();
        async move {
            let (head, body) = response.into_parts();
            let bytes = to_bytes(body, usize::MAX).await.unwrap();
            *cache.lock().unwrap() = Some(bytes.clone());
            let twice = Bytes::from([&bytes[..], &bytes[..]].concat());
            Response::from_parts(head, Body::from(twice))
        }
    }));
    let (completion, response) = fires_with_the_last_byte(app, &mut completions).await;
    assert_sent(&completion);
    assert_eq!(completion.body_bytes(), 2 * SIZE as u64);
    assert!(response.ends_with(&text()));
    handle.wait_idle().await;
}

#[tokio::test]
async fn a_layer_that_throws_the_body_away_fires_with_the_response_that_it_gives_instead() {
    let (app, mut completions, handle) = app();
    let app = app.layer(from_fn(|request: Request, next: Next| async move {
        drop(next.run(request).await);
        Response::new(Body::from("something else"))
    }));
    let (completion, response) = fires_with_the_last_byte(app, &mut completions).await;
    // What the handler had to say was cut off, and what went out in its place went out whole.
    assert_eq!(completion.delivery(), Delivery::Aborted);
    assert_eq!(completion.level(), Level::Flushed);
    assert_eq!(completion.body_bytes(), 14);
    assert!(response.ends_with(b"something else"));
    handle.wait_idle().await;
}

fn fails() -> &'static str {
    panic!("on purpose")
}

#[tokio::test]
async fn a_handler_that_panics_has_no_response_and_waits_for_the_one_that_is_sent_instead() {
    let (sender, mut completions) = mpsc::unbounded_channel();
    let panics = move || async move {
        defer(move |completion: Completion| async move { sender.send(completion) }).always();
        fails()
    };
    let answers = |_: Box<dyn Any + Send>| Response::new(Body::from("sorry"));
    let app = Router::new()
        .route("/", get(panics))
        .layer(DeferLayer::new())
        .layer(CatchPanicLayer::custom(answers));
    let (completion, response) = fires_with_the_last_byte(app, &mut completions).await;
    assert_eq!(completion.delivery(), Delivery::NoResponse);
    assert_eq!(
        (completion.status(), completion.level()),
        (None, Level::Flushed)
    );
    assert_eq!(completion.body_bytes(), 5);
    assert!(response.ends_with(b"sorry"));
}

#[tokio::test]
async fn a_test_that_keeps_the_collected_bytes_can_wait_until_idle() {
    let (app, mut completions, handle) = app();
    let response = app
        .oneshot(Request::new(Body::empty()))
        .await
        .unwrap()
        .into_body();
    let mut kept = Vec::new();
    let mut frames = response.into_data_stream();
    while let Some(frame) = frames.next().await {
        kept.push(frame.unwrap());
    }
    handle.wait_idle().await;
    let completion = completions.try_recv().unwrap();
    assert_eq!(completion.delivery(), Delivery::Complete);
    assert_eq!(completion.level(), Level::HandedOff);
    assert_eq!(completion.body_bytes(), SIZE as u64);
    assert_eq!(kept.concat(), text());
}
