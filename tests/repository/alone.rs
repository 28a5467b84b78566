//! Tests that nothing may disturb are named twice: they take a lock, and `.config/nextest.toml` keeps them
//! apart. This holds the two lists against each other.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const CONFIG: &str = include_str!("../../.config/nextest.toml");
/// What such a test begins with.
const TAKES_THE_LOCK: &str = "    let _alone = support::alone();";

/// As `file::name`, the tests of one binary that take the lock. Its modules are the files of one folder.
fn taken_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let module = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut name = "";
        for line in text.lines() {
            let function = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
            name = function.and_then(|rest| rest.split('(').next()).unwrap_or(name);
            if line == TAKES_THE_LOCK {
                found.insert(format!("{module}::{name}"));
            }
        }
    }
}

#[test]
fn every_test_that_runs_alone_does_so_with_nextest_too() {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut taken = BTreeSet::new();
    for binary in ["api", "recovery", "streams", "workers"] {
        taken_in(&tests.join(binary), &mut taken);
    }
    assert!(taken.len() > 10, "{taken:?}");
    let group = CONFIG.split("[[").find(|part| part.contains("test-group = \"alone\"")).unwrap();
    let named = group.split("test(=").skip(1).filter_map(|rest| rest.split(')').next());
    let named: BTreeSet<String> = named.map(str::to_owned).collect();
    assert_eq!(named, taken);
}
