//! `photon demo` as a black box: it succeeds on any folder, counts right, and leaves no process behind.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may end it")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support;

use support::called::{command, until};

/// The demo on a folder. Its data folder stands in the environment of every process that it starts.
fn demo(folder: &Path, data: &Path, port: u16) -> Command {
    let mut command = command(["demo".as_ref(), folder]);
    command.env("PHOTON_DATA_DIR", data).env("PHOTON_PORT", port.to_string()).env_remove("CARGO");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The number before a name in the totals.
fn total(page: &str, name: &str) -> u64 {
    let line = page.lines().find(|line| line.trim_end().ends_with(&format!("  {name}")));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).split_whitespace().next().unwrap().parse().unwrap()
}

/// Processes that were started with this folder in their environment or command line.
fn processes_of(data: &Path) -> Vec<String> {
    let needle = data.to_str().unwrap().as_bytes();
    let mentions = |file: &Path| {
        let bytes = fs::read(file).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle)
    };
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let numbered = entries.filter(|path| path.join("cmdline").exists());
    let others = numbered.filter(|path| !path.ends_with("self") && !path.ends_with("thread-self"));
    let found = others.filter(|path| mentions(&path.join("environ")) || mentions(&path.join("cmdline")));
    found.map(|path| fs::read_to_string(path.join("cmdline")).unwrap_or_default()).collect()
}

fn nothing_is_left_of(data: &Path) {
    until("every process is gone", || processes_of(data).is_empty());
}

#[test]
fn a_folder_is_reviewed_though_an_agent_is_killed_in_the_middle() {
    let (folder, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/a.rs"), "// TODO one\n// HACK two\nfn main() {}\n").unwrap();
    fs::write(folder.path().join("copy.txt"), "the same\ntwice\n").unwrap();
    fs::write(folder.path().join("again.txt"), "the same\ntwice\n").unwrap();
    fs::write(folder.path().join("README.md"), "see [there](missing.md)\n").unwrap();
    fs::write(folder.path().join("binary"), b"a\0b").unwrap();
    let output = demo(folder.path(), data.path(), 0).output().unwrap();
    let (page, talk) = (stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{talk}");
    let totals = [("files", 4), ("lines", 8), ("to-do marks", 2), ("duplicates", 1), ("broken links", 1)];
    for (name, count) in totals {
        assert_eq!(total(&page, name), count, "{name}: {page}");
    }
    assert!(page.contains("1 binary") && page.contains("README.md:1"), "{page}");
    for part in ["The demo kills twin-finder", "the agent fell silent", "goes to understudy, attempt 2"] {
        assert!(talk.contains(part), "{part}: {talk}");
    }
    let report = fs::read_to_string(data.path().join("report.md")).unwrap();
    assert!(report.starts_with("# Review of ") && report.contains("missing.md"), "{report}");
    nothing_is_left_of(data.path());
    assert!(!folder.path().join("data").exists());
}

#[test]
fn the_commands_at_the_end_open_the_log_again() {
    let (folder, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let output = demo(folder.path(), data.path(), 0).output().unwrap();
    let page = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(total(&page, "files"), 0);
    let command = |part: &str| page.lines().find(|line| line.contains(part)).unwrap().trim().to_owned();
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec env {line}")]).stdin(Stdio::null());
        command
    };
    let serve = shell(&command(" serve")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let serve = Ended(serve);
    let mut shown = String::new();
    until("the operation is shown", || {
        let output = shell(&command(" op get ")).output().unwrap();
        shown = stdout(&output);
        output.status.success()
    });
    assert!(shown.contains("completed") && shown.contains("understudy"), "{shown}");
    assert!(shown.contains("capability 0.40"), "{shown}");
    drop(serve);
    nothing_is_left_of(data.path());
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_busy_port_means_a_free_one() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port();
    let (folder, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let output = demo(folder.path(), data.path(), port).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("Port {port} is in use")), "{}", stderr(&output));
}

#[test]
fn what_is_no_folder_is_refused_in_one_sentence() {
    let (folder, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for (place, reason) in [(folder.path().join("nowhere"), "does not exist"), (file, "is not a folder")] {
        let output = demo(&place, data.path(), 0).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stderr(&output), format!("The folder {} {reason}.\n", place.display()));
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn an_interrupt_ends_everything_at_any_time() {
    let folder = TempDir::new().unwrap();
    for (moment, signal) in
        [("listens on", Signal::INT), ("(duplicates) goes to", Signal::INT), ("The demo kills", Signal::TERM)]
    {
        let data = TempDir::new().unwrap();
        let talk_file = data.path().join("talk");
        let talk = fs::File::create(&talk_file).unwrap();
        let child = demo(folder.path(), data.path(), 0).stdout(Stdio::null()).stderr(talk).spawn().unwrap();
        let mut child = Ended(child);
        until(moment, || fs::read_to_string(&talk_file).unwrap().contains(moment));
        kill_process(Pid::from_child(&child.0), signal).unwrap();
        assert_eq!(child.0.wait().unwrap().code(), Some(130), "{moment}");
        nothing_is_left_of(data.path());
    }
}

#[test]
fn a_killed_demo_leaves_no_process_either() {
    let (folder, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let talk_file = data.path().join("talk");
    let talk = fs::File::create(&talk_file).unwrap();
    let child = demo(folder.path(), data.path(), 0).stdout(Stdio::null()).stderr(talk).spawn().unwrap();
    let mut child = Ended(child);
    until("a step runs", || fs::read_to_string(&talk_file).unwrap().contains("(duplicates) goes to"));
    assert!(processes_of(data.path()).len() > 8);
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    nothing_is_left_of(data.path());
}
