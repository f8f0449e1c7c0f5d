//! Runs the example.

use std::process::Command;

#[test]
fn shutdown_closes_and_waits_for_socket() {
    let output = Command::new(env!("CARGO_BIN_EXE_websocket")).output();
    let output = output.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for line in [
        "deferred: the handshake has been sent",
        "reply: hello",
        "received a close frame",
    ] {
        assert!(stdout.lines().any(|printed| printed == line), "{stdout}");
    }
}
