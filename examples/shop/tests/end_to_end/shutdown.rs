//! The program itself, stopped right after responses.

use std::process::Command;

use crate::{
    client::Client, mail_server::MailServer, running_shop::folder, test_support::process::Process,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_runs_deferred_callbacks() {
    let mail = MailServer::start().await;
    let process = Process::start(
        Command::new(env!("CARGO_BIN_EXE_shop"))
            .env("DATA", folder("shutdown"))
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
