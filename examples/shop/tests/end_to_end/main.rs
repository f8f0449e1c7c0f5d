//! The shop on a real socket, with a real client, and a mail server that keeps what it gets.

mod books;
mod client;
#[path = "../../../killing/mod.rs"]
#[allow(dead_code, reason = "its client buys something else")]
mod killing;
mod mail_server;
mod refused_commit;
mod routes;
mod running_shop;
mod stopping;
