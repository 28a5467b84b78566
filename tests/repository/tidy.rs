//! Tidiness of this repository as a test: sizes, names, docs, arrows, and what must never be committed.
//! It owns the walk over the files and the exemptions; the rules themselves are pure and live in `tidy/`.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod arrows;
mod source;
mod style;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Check = fn(&str, &str) -> Vec<String>;

/// Where our Rust sources live.
const SOURCE_FOLDERS: [&str; 8] =
    ["actors", "benches", "domain", "events", "platforms", "snapshots", "src", "tests"];

/// A rule that some files must break, and why. Nothing else is exempt from anything.
struct Exemption {
    check: Check,
    prefix: &'static str,
    _reason: &'static str,
}

const EXEMPTIONS: [Exemption; 4] = [
    Exemption {
        check: style::unfinished_work,
        prefix: "tests/repository/tidy",
        _reason: "the rule and its bad snippets spell the markers out",
    },
    Exemption {
        check: style::unfinished_work,
        prefix: "src/review",
        _reason: "the demo's review counts these markers in other repositories",
    },
    Exemption {
        check: arrows::no_machine_paths,
        prefix: "tests/repository/tidy/",
        _reason: "the rule and its bad snippets spell the folders out",
    },
    Exemption {
        check: arrows::only_the_shell_names_actix,
        prefix: "tests/streams/websocket.rs",
        _reason: "serves an echo over the product's socket code, which the product itself must not have",
    },
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below the source folders, with its path from the root.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in SOURCE_FOLDERS {
        collect(&root().join(folder), &mut found);
    }
    let mut sources: Vec<_> =
        found.iter().filter(|path| path.ends_with(".rs")).filter_map(|path| read(path)).collect();
    sources.sort();
    sources
}

/// The root manifest and each member's.
fn manifests() -> Vec<(String, String)> {
    let members = SOURCE_FOLDERS.iter().map(|folder| format!("{folder}/Cargo.toml"));
    members.chain(["Cargo.toml".to_owned()]).filter_map(|path| read(&path)).collect()
}

/// What git tracks, so that a stray file of the reader breaks nothing; without git, our sources.
fn tracked() -> Vec<(String, String)> {
    tracked_paths().iter().filter_map(|path| read(path)).collect()
}

fn tracked_paths() -> Vec<String> {
    let listing = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let paths = match listing {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => output.stdout,
        Ok(_) | Err(_) => return sources().into_iter().chain(manifests()).map(|(path, _)| path).collect(),
    };
    let paths = String::from_utf8_lossy(&paths).into_owned();
    paths.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect()
}

fn collect(folder: &Path, found: &mut Vec<String>) {
    // A source folder may be missing; git keeps no empty ones.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("an entry of a source folder can be read").path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found);
        } else if path.is_file() {
            let relative = path.strip_prefix(root()).expect("the walk began at the root");
            found.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
}

/// Reads a text file; a binary or a vanished one has nothing to check.
fn read(path: &str) -> Option<(String, String)> {
    let text = fs::read_to_string(root().join(path)).ok()?;
    Some((path.to_owned(), text))
}

/// Runs one check over files and fails with all it found, one line each.
fn verify(files: &[(String, String)], check: Check) {
    assert!(!files.is_empty(), "no file was found to check");
    let is_exempt = |path: &str| {
        EXEMPTIONS.iter().any(|one| std::ptr::fn_addr_eq(one.check, check) && path.starts_with(one.prefix))
    };
    let checked = files.iter().filter(|(path, _)| !is_exempt(path));
    let violations: Vec<String> = checked.flat_map(|(path, text)| check(path, text)).collect();
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn files_have_at_most_500_lines() {
    verify(&sources(), style::file_length);
}

#[test]
fn functions_have_at_most_70_lines() {
    verify(&sources(), style::function_length);
}

#[test]
fn lines_have_at_most_110_characters() {
    verify(&sources(), style::line_length);
}

#[test]
fn every_module_says_what_it_owns() {
    verify(&sources(), style::module_docs);
}

#[test]
fn files_and_folders_are_named_by_concept() {
    verify(&sources(), style::names);
}

#[test]
fn no_unfinished_work_is_committed() {
    verify(&sources(), style::unfinished_work);
}

#[test]
fn nothing_panics_outside_tests() {
    verify(&sources(), style::no_panics);
}

#[test]
fn no_message_ignores_a_full_mailbox() {
    verify(&sources(), style::bounded_sends);
}

#[test]
fn log_lines_are_lower_case_without_a_full_stop() {
    verify(&sources(), style::log_messages);
}

#[test]
fn crates_know_each_other_along_the_arrows_only() {
    verify(&manifests(), arrows::crate_arrows);
}

#[test]
fn what_is_for_tests_is_in_no_normal_build() {
    verify(&manifests(), arrows::test_features);
}

#[test]
fn foreign_crates_stay_where_they_may() {
    verify(&manifests(), arrows::foreign_crates);
}

#[test]
fn only_actors_and_src_name_actix() {
    verify(&sources(), arrows::only_the_shell_names_actix);
}

#[test]
fn only_events_names_sled() {
    verify(&sources(), arrows::only_the_log_names_sled);
}

#[test]
fn the_core_reads_no_clock() {
    verify(&sources(), arrows::no_clock_in_the_core);
}

#[test]
fn no_tracked_file_names_a_folder_of_one_machine() {
    verify(&tracked(), arrows::no_machine_paths);
}

/// What is written by hand is small; what is not, such as a memory image of a process, must not get in.
#[test]
fn no_tracked_file_is_larger_than_256_kib() {
    let size = |path: &String| fs::metadata(root().join(path)).map_or(0, |file| file.len());
    let large: Vec<String> = tracked_paths().into_iter().filter(|path| size(path) > 256 << 10).collect();
    assert!(large.is_empty(), "too large to be committed: {large:?}");
}

#[test]
fn manifests_state_a_licence_and_keep_unwinding() {
    verify(&manifests(), arrows::manifest_settings);
}

#[test]
fn every_workspace_member_has_a_manifest_and_the_lock_file_is_there() {
    assert!(root().join("Cargo.lock").is_file(), "Cargo.lock is missing: commit it, builds use --locked");
    let (_, manifest) = read("Cargo.toml").expect("the root manifest can be read");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next());
    let members = members.expect("the root manifest lists its members").split(',');
    for member in members.map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty()) {
        assert!(
            SOURCE_FOLDERS.contains(&member),
            "Cargo.toml: add `{member}` to SOURCE_FOLDERS in tests/repository/tidy.rs"
        );
        assert!(read(&format!("{member}/Cargo.toml")).is_some(), "{member}/Cargo.toml is missing");
    }
}
