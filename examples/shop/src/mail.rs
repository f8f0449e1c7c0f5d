//! Mail, through an SMTP server.

use std::{error::Error, future::Future, net::SocketAddr};

use axum_defer::BoxError;
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor, message::Mailbox,
};

#[derive(Clone)]
pub struct Mail {
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Mail {
    pub fn new(server: SocketAddr) -> Result<Self, Box<dyn Error>> {
        // "Dangerous" without TLS: to a server on this machine.
        let transport =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.ip().to_string());
        Ok(Self {
            server: transport.port(server.port()).build(),
            from: "The shop <shop@example.org>".parse()?,
        })
    }

    /// A future to defer: it owns what it needs, and does nothing until it is awaited.
    pub fn send(
        &self,
        to: Address,
        subject: String,
    ) -> impl Future<Output = Result<(), BoxError>> + Send + use<> {
        let Self { server, from } = self.clone();
        async move {
            let mail = Message::builder()
                .from(from)
                .to(to.into())
                .subject(subject)
                .body("Thank you.\n".to_owned())?;
            server.send(mail).await?;
            Ok(())
        }
    }
}
