//! HTTPS with concurrent handshakes: `cargo run --example tls`.
//!
//! A client that trusts the certificate sends one request, and the server shuts down. With
//! `PORT=3000`, it serves until it is stopped: `curl --insecure https://127.0.0.1:3000`.

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get, serve::Listener};
use axum_defer::{DeferLayer, defer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    server::TlsStream,
};

/// A listener that runs handshakes concurrently, so that a slow client does not block others.
pub(crate) struct TlsListener {
    pub(crate) tcp: TcpListener,
    pub(crate) tls: TlsAcceptor,
    pub(crate) handshake_timeout: Duration,
    pub(crate) handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                (stream, address) = Listener::accept(&mut self.tcp), if self.handshakes.len() < 1_000 => {
                    let handshake = timeout(self.handshake_timeout, self.tls.accept(stream));
                    self.handshakes.spawn(async move { Some((handshake.await.ok()?.ok()?, address)) });
                }
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = ended { return connection }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Accepts HTTP/2, and HTTP/1.1 if the client does not support it.
pub(crate) fn acceptor(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> TlsAcceptor {
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config
        .with_single_cert(vec![certificate], key)
        .expect("the key matches the certificate");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn hello() -> &'static str {
    defer(async { println!("the encrypted response has been sent") });
    "hello\n"
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A real app loads a certificate of an authority, and its key.
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let port = std::env::var("PORT");
    let address = format!("127.0.0.1:{}", port.as_deref().unwrap_or("0"));
    let listener = TlsListener {
        tcp: TcpListener::bind(address).await?,
        tls: acceptor(certified.cert.der().clone(), key.into()),
        handshake_timeout: Duration::from_secs(10),
        handshakes: JoinSet::new(),
    };
    let address = listener.local_addr()?;
    println!("listening on https://{address}");
    let app = Router::new()
        .route("/", get(hello))
        .layer(DeferLayer::new());
    let server = axum_defer::serve(listener, app);
    if port.is_ok() {
        return Ok(server.await?);
    }

    let mut trusted = RootCertStore::empty();
    trusted.add(certified.cert.der().clone())?;
    // Instead of a signal.
    let asked = async move { ask(address, trusted).await.expect("an answer") };
    println!("{}", server.with_graceful_shutdown(asked).await?);
    Ok(())
}

async fn ask(address: SocketAddr, trusted: RootCertStore) -> Result<(), Box<dyn Error>> {
    let config = ClientConfig::builder().with_root_certificates(trusted);
    let tls = TlsConnector::from(Arc::new(config.with_no_client_auth()));
    let tcp = TcpStream::connect(address).await?;
    let mut client = tls.connect(address.ip().into(), tcp).await?;
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await?;
    let mut response = String::new();
    client.read_to_string(&mut response).await?;
    assert!(response.ends_with("hello\n"), "{response}");
    Ok(())
}
