//! HTTP/2 streams that the client resets at the worst of moments: no callback waits for a flush
//! that nothing will cause.

#[path = "support/window.rs"]
mod window;

use std::sync::Arc;

use axum::{Router, routing::get};
use axum_defer::{Completion, DeferLayer, Delivery, Level, defer};
use tokio::sync::{Notify, mpsc};
use window::{Window, serve_window};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short frames only");
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// HEADERS of `GET http://a/`, all of the request.
fn get_request(stream: u8) -> Vec<u8> {
    // :method GET, :scheme http, :path / are in HPACK's static table.
    frame(1, 5, stream, &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'])
}

fn reset(stream: u8) -> Vec<u8> {
    frame(3, 0, stream, &[0, 0, 0, 8])
}

#[tokio::test]
async fn a_response_to_a_stream_that_was_reset_before_it_is_aborted_while_the_connection_is_idle() {
    let (sender, mut completions) = mpsc::unbounded_channel::<Completion>();
    let app = Router::new()
        .route(
            "/",
            get(move || {
                let sender = sender.clone();
                async move {
                    defer(move |completion: Completion| async move { sender.send(completion) });
                }
            }),
        )
        .layer(DeferLayer::new());
    let window = Window::new(usize::MAX);
    let connection = serve_window(&window, app);
    window.send(&[PREFACE, SETTINGS, &get_request(1), &reset(1)].concat());
    window.settle().await;

    let completion = completions
        .try_recv()
        .expect("it fired, though nothing more was written");
    assert_eq!(completion.delivery(), Delivery::Aborted);
    assert_eq!(completion.level(), Level::Sent);
    assert!(!connection.is_finished());
}

#[tokio::test]
#[ignore = "known fault: a control frame is taken for the end of the response"]
async fn reset_and_ping_in_one_round_is_aborted() {
    let (sender, mut completions) = mpsc::unbounded_channel::<Completion>();
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let app = Router::new()
        .route(
            "/",
            get(move || {
                let (sender, gate) = (sender.clone(), gate.clone());
                async move {
                    defer(move |completion: Completion| async move { sender.send(completion) });
                    gate.notified().await;
                }
            }),
        )
        .layer(DeferLayer::new());
    let window = Window::new(usize::MAX);
    serve_window(&window, app);
    window.send(&[PREFACE, SETTINGS, &get_request(1)].concat());
    window.settle().await;
    // First the response enters h2's queue. Then h2 drops it, and writes the acknowledgment of the
    // ping in its place.
    opened.notify_one();
    let ping = frame(6, 0, 0, &[7; 8]);
    window.send(&[&reset(1)[..], &ping].concat());
    window.settle().await;

    let completion = completions.try_recv().expect("the scope is decided");
    assert_eq!(completion.delivery(), Delivery::Aborted);
}
