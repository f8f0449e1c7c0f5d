//! A server on a Unix socket, for example behind a proxy on the same machine: `cargo run --example
//! unix_socket`.
//!
//! It serves one request, runs its callback, and shuts down. The socket provides the client's user.

#[cfg(unix)]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    unix::main().await
}

#[cfg(not(unix))]
fn main() {
    println!("this platform has no Unix sockets");
}

#[cfg(unix)]
mod unix {
    use std::{env, error::Error, fs, process};

    use axum::{
        Router,
        extract::{ConnectInfo, connect_info::Connected},
        routing::get,
    };
    use axum_defer::{DeferLayer, defer, serve::IncomingStream};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{UnixListener, UnixStream},
        sync::oneshot,
    };

    /// The client's credentials, provided by the operating system.
    #[derive(Clone)]
    struct Peer {
        user: Option<u32>,
    }

    impl Connected<IncomingStream<'_, UnixListener>> for Peer {
        fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
            let credentials = stream.io().peer_cred();
            Self {
                user: credentials.ok().map(|credentials| credentials.uid()),
            }
        }
    }

    async fn hello(ConnectInfo(peer): ConnectInfo<Peer>) -> String {
        let user = peer.user.map_or("unknown".to_owned(), |id| id.to_string());
        let line = format!("sent a response to user {user}");
        defer(async move { println!("{line}") }).name("log");
        format!("hello, user {user}\n")
    }

    pub(super) async fn main() -> Result<(), Box<dyn Error>> {
        let path = env::temp_dir().join(format!("axum-defer-{}.sock", process::id()));
        // A killed process leaves its socket, and `bind` fails if the file exists.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        let app = Router::new()
            .route("/", get(hello))
            .layer(DeferLayer::new())
            .into_make_service_with_connect_info::<Peer>();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum_defer::serve(listener, app).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let server = tokio::spawn(server.into_future());
        println!("listening on {}", path.display());

        let mut client = UnixStream::connect(&path).await?;
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut response = String::new();
        client.read_to_string(&mut response).await?;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.contains("hello, user "), "{response}");

        let _ = stop.send(());
        let report = server.await??;
        println!("{report}");
        assert!(report.is_complete());
        fs::remove_file(path)?;
        Ok(())
    }
}
