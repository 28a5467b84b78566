//! Hot spots: size × change frequency, from the history of a git checkout.
//! It runs `git log` once, with a deadline and nothing of the caller's environment that git could obey.
//! Without git or history it says so instead of failing: the rest of the review does not need it.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::findings::{Findings, Severity};
use super::survey::{Survey, lines};

const COMMITS_MAX: usize = 2_000;
const OUTPUT_BYTES_MAX: u64 = 32 * 1024 * 1024;
const GIT_TIMEOUT: Duration = Duration::from_secs(20);
/// One change brought the file; from the second on it is churn.
const CHANGES_MIN: usize = 2;
/// From here on a file is likely where the next fault will be.
const HOT_CHANGES: usize = 8;
const HOT_LINES: usize = 200;

/// Files that machines write, or that grow with every change by design.
const EXPECTED_TO_CHURN: [&str; 9] = [
    "cargo.lock",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "go.sum",
    "poetry.lock",
    "uv.lock",
    "changelog.md",
];

/// Ranks the files of a folder by their lines times the commits that touched them.
pub(super) fn rank(survey: &Survey) -> Value {
    let history = if survey.is_git_checkout {
        read_history(&survey.folder, GIT_TIMEOUT)
    } else {
        Err("the folder is not a git checkout".to_owned())
    };
    let history = match history {
        Ok(history) => history,
        Err(reason) => {
            return json!({
                "available": false, "reason": reason, "total": 0, "findings": [], "truncated": false
            });
        }
    };
    let (commits, changes) = count_changes(&history);
    let mut spots = Vec::new();
    for file in &survey.files {
        let changes = changes.get(file.path.as_str()).copied().unwrap_or(0);
        if changes >= CHANGES_MIN && !is_expected_to_churn(&file.path) {
            let lines = file.read().map_or(0, |content| lines(&content));
            spots.push((lines * changes, lines, changes, file));
        }
    }
    spots.sort_by_key(|(score, _, _, file)| (std::cmp::Reverse(*score), file.path.as_str()));
    let mut findings = Findings::default();
    for (_, lines, changes, file) in spots {
        let is_hot = lines >= HOT_LINES && changes >= HOT_CHANGES && !file.is_sample();
        let severity = if is_hot { Severity::Medium } else { Severity::Low };
        findings.add(severity, &file.path, 1, || {
            format!("{lines} lines, touched by {changes} of {commits} commits")
        });
    }
    let total = findings.total();
    let (findings, truncated) = findings.finish();
    json!({
        "available": true, "commits": commits, "total": total, "findings": findings, "truncated": truncated
    })
}

fn is_expected_to_churn(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    EXPECTED_TO_CHURN.contains(&name.as_str())
}

/// Counts commits, and for each path the commits that touched it. A commit begins with a 0x01 byte.
fn count_changes(history: &str) -> (usize, HashMap<&str, usize>) {
    let mut changes = HashMap::new();
    let commits = history.split('\u{1}').skip(1);
    let mut count = 0;
    for commit in commits {
        count += 1;
        for path in
            commit.split('\0').map(|path| path.trim_start_matches('\n')).filter(|path| !path.is_empty())
        {
            *changes.entry(path).or_default() += 1;
        }
    }
    (count, changes)
}

/// Runs `git log` in the folder. A configuration in the checkout must not make it run other programs.
fn read_history(folder: &Path, timeout: Duration) -> Result<String, String> {
    let mut command = Command::new("git");
    command.env_clear();
    // HOME holds `safe.directory`, without which git refuses a checkout of another user.
    for name in ["PATH", "HOME", "SystemRoot"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command.envs([
        ("LC_ALL", "C"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_OPTIONAL_LOCKS", "0"),
        ("GIT_NO_LAZY_FETCH", "1"),
    ]);
    command.args(["--no-pager", "-c", "core.fsmonitor=false", "-c", "log.showSignature=false", "log"]);
    command.args(["-z", "--format=%x01", "--name-only", "--no-merges", "--no-renames", "--relative"]);
    command.arg(format!("--max-count={COMMITS_MAX}")).args(["--", "."]);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("git cannot be run: {error}"))?;
    let Some(stdout) = child.stdout.take() else { return Err("git has no output".to_owned()) };
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut output = Vec::new();
        let read = stdout.take(OUTPUT_BYTES_MAX).read_to_end(&mut output);
        // Nobody listens after the deadline, and then there is nothing left to do.
        let _ = sender.send(read.map(|_| output));
    });
    // What comes too late does not count, whoever of the two threads is faster.
    let output = receiver.recv_timeout(timeout).ok().filter(|_| begun.elapsed() <= timeout);
    let is_cut = matches!(&output, Some(Ok(bytes)) if bytes.len() as u64 == OUTPUT_BYTES_MAX);
    if output.is_none() || is_cut {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| format!("git did not end: {error}"))?;
    match output {
        None => Err(format!("git log took longer than {} s", timeout.as_secs())),
        Some(Err(error)) => Err(format!("git's output cannot be read: {error}")),
        Some(Ok(_)) if !status.success() && !is_cut => Err(format!(
            "git log ended with {status}: no commit yet, or the checkout belongs to someone else"
        )),
        Some(Ok(output)) => Ok(String::from_utf8_lossy(&output).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::{folder_with, survey_of};
    use super::*;

    fn git(folder: &tempfile::TempDir, arguments: &[&str]) {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"];
        let status = Command::new("git").args(identity).args(arguments).current_dir(folder.path()).output();
        assert!(status.unwrap().status.success(), "git {arguments:?}");
    }

    #[test]
    fn large_files_that_change_often_come_first() {
        let folder =
            folder_with(&[("large", &b"x\n".repeat(300)), ("small", b"x\n"), ("Cargo.lock", b"x\n")]);
        git(&folder, &["init", "-q"]);
        for commit in 0..9 {
            for name in ["large", "Cargo.lock", "dir with\nfeed"] {
                let place = folder.path().join(name);
                let content = std::fs::read(&place).unwrap_or_default();
                std::fs::write(place, [content, format!("{commit}\n").into_bytes()].concat()).unwrap();
            }
            git(&folder, &["add", "."]);
            git(&folder, &["commit", "-q", "-m", "change"]);
        }
        let result = rank(&survey_of(&folder));
        assert_eq!(result["available"], true);
        assert_eq!(result["commits"], 9);
        assert_eq!(result["total"], 2);
        assert_eq!(result["findings"][0]["file"], "large");
        assert_eq!(result["findings"][0]["message"], "309 lines, touched by 9 of 9 commits");
        assert_eq!(result["findings"][0]["severity"], "medium");
        assert_eq!(result["findings"][1]["message"], "9 lines, touched by 9 of 9 commits");
    }

    #[test]
    fn a_folder_without_history_says_why() {
        let folder = folder_with(&[("a", b"a")]);
        let result = rank(&survey_of(&folder));
        assert_eq!(result["available"], false);
        assert_eq!(result["reason"], "the folder is not a git checkout");
        git(&folder, &["init", "-q"]);
        let result = rank(&survey_of(&folder));
        assert!(result["reason"].as_str().unwrap().contains("no commit yet"), "{result}");
    }

    #[test]
    fn git_is_given_up_at_the_deadline() {
        let folder = folder_with(&[("a", b"a")]);
        let reason = read_history(folder.path(), Duration::ZERO).unwrap_err();
        assert!(reason.contains("took longer"), "{reason}");
    }
}
