//! TLS under `axum_defer::serve`, as `examples/integrations/tls.rs` has it, and `SentIo` under axum-server.

#![allow(clippy::unwrap_used)]

#[path = "../../examples/integrations/tls.rs"]
#[allow(dead_code, reason = "it has a `main`")]
mod example;

use std::{
    future::{Ready, ready},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::{Router, routing::get};
use axum_defer::{
    Completion, DeferLayer, Delivery, Level, defer,
    sent::{Sent, SentIo},
    serve,
};
use axum_server::accept::Accept;
use bytes::Bytes;
use example::{TlsListener, acceptor};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{PrivatePkcs8KeyDer, ServerName},
    },
};
use tower::Layer;

use crate::support::{in_time, listen};

fn app() -> (Router, mpsc::UnboundedReceiver<Completion>) {
    let (sender, completions) = mpsc::unbounded_channel();
    let handler = || async move {
        defer(|completion: Completion| async move { sender.send(completion) });
        "hello"
    };
    let app = Router::new().route("/", get(handler));
    (app.layer(DeferLayer::new()), completions)
}

async fn ask<S>(stream: S) -> Bytes
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/").header("host", "a");
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let response = in_time(client.send_request(request)).await.unwrap();
    response.into_body().collect().await.unwrap().to_bytes()
}

async fn listener(handshake_timeout: Duration) -> (TlsListener, SocketAddr, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (tcp, address) = listen().await;
    let listener = TlsListener {
        tcp,
        tls: acceptor(certificate, key.into()),
        handshake_timeout,
        handshakes: JoinSet::new(),
    };
    (listener, address, TlsConnector::from(Arc::new(client)))
}

#[tokio::test]
async fn slow_handshakes_do_not_delay_others() {
    let (listener, address, connector) = listener(Duration::from_secs(3600)).await;
    let (app, mut completions) = app();
    tokio::spawn(serve(listener, app).into_future());
    let silent = TcpStream::connect(address).await.unwrap();
    let mut broken = TcpStream::connect(address).await.unwrap();
    broken.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    broken.read_to_end(&mut Vec::new()).await.ok();

    let name = ServerName::try_from("localhost").unwrap();
    for _ in 0..2 {
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = in_time(connector.connect(name.clone(), stream))
            .await
            .unwrap();
        assert_eq!(&ask(stream).await[..], b"hello");
        let completion = in_time(completions.recv()).await.unwrap();
        assert_eq!(completion.level(), Level::Flushed);
        assert_eq!(completion.delivery(), Delivery::Complete);
    }
    // It still may.
    let stream = in_time(connector.connect(name, silent)).await.unwrap();
    assert_eq!(&ask(stream).await[..], b"hello");
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_let_go() {
    let (listener, address, _) = listener(Duration::from_millis(20)).await;
    tokio::spawn(serve(listener, app().0).into_future());
    let mut silent = TcpStream::connect(address).await.unwrap();
    let read = in_time(silent.read(&mut [0; 1])).await;
    assert_eq!(read.unwrap_or(0), 0);
}

#[derive(Clone)]
struct SentAcceptor;

impl<S> Accept<TcpStream, S> for SentAcceptor {
    type Stream = SentIo<TcpStream>;
    type Service = Sent<S>;
    type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let io = SentIo::new(stream);
        let service = io.layer().layer(service);
        ready(Ok((io, service)))
    }
}

#[tokio::test]
async fn axum_server_tells_what_was_sent_with_an_acceptor() {
    let (app, mut completions) = app();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let server = axum_server::from_tcp(listener).unwrap();
    tokio::spawn(server.acceptor(SentAcceptor).serve(app.into_make_service()));
    let stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(&ask(stream).await[..], b"hello");
    let completion = in_time(completions.recv()).await.unwrap();
    assert_eq!(completion.level(), Level::Flushed);
}
