//! The shop on a real socket, with a real client and a test mail server.

mod books;
mod client;
mod failed_commit;
mod mail_outage;
mod mail_server;
mod routes;
mod running_shop;
mod shutdown;
#[path = "../../../test_support/mod.rs"]
#[allow(dead_code, reason = "its client sends orders of other examples")]
mod test_support;
