//! An app as a child process.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::Mutex,
};

pub struct Process {
    child: Mutex<Child>,
    pub address: SocketAddr,
    stdout: Mutex<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts the app and waits until it listens.
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
            stdout: Mutex::new(stdout),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Sends SIGKILL and waits for the exit.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends SIGTERM and waits for the exit.
    pub fn stop(&self) -> ExitStatus {
        self.terminate();
        self.wait().0
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.id());
        let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits for the exit. Returns the status and the rest of the output.
    pub fn wait(&self) -> (ExitStatus, String) {
        let mut output = String::new();
        let mut stdout = self.stdout.lock().unwrap();
        stdout.read_to_string(&mut output).unwrap();
        (self.child.lock().unwrap().wait().unwrap(), output)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
