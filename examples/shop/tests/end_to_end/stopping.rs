//! The program itself, told to stop when it has just answered.

use std::process::Command;

use crate::{
    client::Client, killing::process::Process, mail_server::MailServer, running_shop::folder,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_what_was_deferred() {
    let mail = MailServer::start().await;
    let process = Process::start(
        Command::new(env!("CARGO_BIN_EXE_shop"))
            .env("DATA", folder("stopping"))
            .env("MAIL_SERVER", mail.address.to_string()),
    );
    let mut ada = Client::new(process.address);
    ada.sign_up("ada@example.org").await;
    ada.log_in("ada@example.org").await;
    for _ in 0..10 {
        ada.order(b"abc").await;
    }
    let stopped = tokio::task::spawn_blocking(move || process.stop());
    assert!(stopped.await.unwrap().success());
    assert_eq!(mail.letters().len(), 11);
}
