//! The command line as a test calls it: without any `PHOTON_*` variable of its surroundings and in an empty
//! folder, unless the test says otherwise; and what came of it.

use std::ffi::OsStr;
use std::io::{PipeReader, PipeWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, Photon};

/// A process of `photon` without any `PHOTON_*` variable and without input, for tests that watch it run.
pub fn command(arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_photon"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PHOTON_")) {
        command.env_remove(name);
    }
    command
}

/// A call that is about to be made.
pub struct Call {
    command: Command,
    input: Option<String>,
    empty: TempDir,
}

/// Calls `photon` with these arguments.
pub fn call(arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Call {
    let (mut command, empty) = (command(arguments), TempDir::new().unwrap());
    command.current_dir(&empty);
    Call { command, input: None, empty }
}

impl Photon {
    /// Calls `photon` with these arguments and the address of this server.
    pub fn call(&self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Call {
        let mut call = call(arguments);
        call.command.args(["--server", &self.url("")]);
        call
    }
}

impl Call {
    pub fn input(mut self, input: &str) -> Self {
        self.command.stdin(Stdio::piped());
        self.input = Some(input.to_owned());
        self
    }

    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub fn with(mut self, variable: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(variable, value);
        self
    }

    /// Waits for its end.
    pub fn run(mut self) -> Called {
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Beside what is printed, so that neither waits for the other; a call that is refused reads nothing.
        let writing =
            child.stdin.take().zip(self.input).map(|(mut stdin, input)| {
                std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())))
            });
        let output = child.wait_with_output().unwrap();
        writing.into_iter().for_each(|writing| writing.join().unwrap());
        self.empty.close().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let exit = output.status.code().unwrap_or(-1);
        Called { exit, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Waits for its end, and fails the test unless the exit code is this one.
    #[track_caller]
    pub fn ends_with(self, exit: i32) -> Called {
        self.run().ends_with(exit)
    }
}

/// What came of a call.
pub struct Called {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Called {
    /// Fails the test unless the exit code is this one.
    #[track_caller]
    pub fn ends_with(self, exit: i32) -> Self {
        assert_eq!(self.exit, exit, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The document that was printed.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A pipe that takes nothing more until somebody reads it.
pub fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // What the system gives a pipe; nobody who runs tests has lowered it.
    writer.write_all(&[b'x'; 64 << 10]).unwrap();
    (reader, writer)
}

/// Waits until a condition holds that no server can be asked for: one on processes and files.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
