//! An app as a child process.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::Mutex,
};

pub struct Process {
    child: Mutex<Child>,
    pub address: SocketAddr,
    /// Open, or what the app prints would end it.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Returns when the app has said where it listens.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("the app did not start: {line:?}"));
        Self {
            address: address.parse().unwrap(),
            child: Mutex::new(child),
            _stdout: stdout,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// SIGKILL. The process is gone when this returns.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and what the app makes of it.
    pub fn stop(&self) -> ExitStatus {
        let kill = format!("kill -TERM {}", self.id());
        let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(killed.success());
        let mut child = self.child.lock().unwrap();
        child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
