//! Runs it as a reader would.

use std::process::Command;

#[test]
fn the_server_says_goodbye_and_waits_for_the_conversation() {
    let output = Command::new(env!("CARGO_BIN_EXE_websocket")).output();
    let output = output.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for line in [
        "deferred: the handshake is out",
        "the server has answered: hello",
        "the server has said goodbye",
    ] {
        assert!(stdout.lines().any(|said| said == line), "{stdout}");
    }
}
