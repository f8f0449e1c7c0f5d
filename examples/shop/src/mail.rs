//! Mail through an SMTP server.

use std::{error::Error, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum_defer::BoxError;
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor, message::Mailbox,
};
use tokio::{sync::Semaphore, time::timeout};

pub const MAX_CONNECTIONS: usize = 16;

#[derive(Clone)]
pub struct Mail {
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    timeout: Duration,
    /// Limits the load of the mail server, and not the callbacks of the layer: they have nothing in
    /// common with mail.
    connections: Arc<Semaphore>,
}

impl Mail {
    pub fn new(server: SocketAddr, timeout: Duration) -> Result<Self, Box<dyn Error>> {
        // "Dangerous" means without TLS, here to a server on this machine.
        let transport =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.ip().to_string());
        Ok(Self {
            server: transport.port(server.port()).build(),
            from: "The shop <shop@example.org>".parse()?,
            timeout,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        })
    }

    /// Returns a future to defer. It owns its data and does nothing until it is polled.
    pub fn send(
        &self,
        to: Address,
        subject: String,
    ) -> impl Future<Output = Result<(), BoxError>> + Send + use<> {
        let mail = self.clone();
        async move {
            let message = Message::builder()
                .from(mail.from)
                .to(to.into())
                .subject(subject)
                .body("Thank you.\n".to_owned())?;
            timeout(mail.timeout, async {
                let _permit = mail.connections.acquire().await?;
                mail.server.send(message).await?;
                Ok(())
            })
            .await?
        }
    }
}
