//! What Photon wrote before its first release, at commit 859cfae: a folder, a folder with a base, a backup
//! and an export. Each is refused by the name of its format, never read as something else, never called
//! damaged, and never changed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use crate::support;

use support::called::call;
use support::{Photon, step};

/// A copy of what is stored, which each test may do everything to.
struct Former(TempDir);

impl Former {
    fn copied() -> Self {
        let stored = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/former/859cfae");
        let copy = TempDir::new().unwrap();
        copied(&stored, copy.path());
        Self(copy)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    /// Calls the program, and gives what it complains of.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let told = call(arguments).in_folder(self.0.path()).run();
        let complaint = format!("{arguments:?}: {}{}", told.stdout, told.stderr);
        assert_eq!(told.exit, 65, "{complaint}");
        let lower = complaint.to_lowercase();
        assert!(!lower.contains("damaged") && !lower.contains("corrupt"), "{complaint}");
        complaint
    }
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if path.is_dir() {
            copied(&path, &to);
        } else {
            fs::copy(path, to).unwrap();
        }
    }
}

/// Every file below a folder with its bytes, but the lock, which holds nothing.
fn everything(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything(&path));
        } else if path.file_name().unwrap() != "lock" {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

#[test]
fn a_folder_is_refused_by_the_name_of_its_format_and_stays_as_it_is() {
    let former = Former::copied();
    let before = everything(former.0.path());
    for (folder, format) in [("folder", "it has format 1,"), ("base", "it has format 2,")] {
        let calls: [&[&str]; 8] = [
            &["serve", "--port", "0", "--data-dir", folder],
            &["serve", "--port", "0", "--quarantine", "--data-dir", folder],
            &["event", "verify", "--data-dir", folder],
            &["event", "export", "--data-dir", folder],
            &["event", "export", "--data-dir", folder, "-o", "new.jsonl"],
            &["event", "compact", "--ended-hours", "24", "--data-dir", folder],
            &["backup", "create", "new", "--data-dir", folder],
            &["snapshot", "verify", "--data-dir", folder],
        ];
        for arguments in calls {
            let told = former.refused(arguments);
            let why = "which Photon wrote before its first release and this version cannot read";
            let advice = "use the version that wrote it, or start with an empty folder";
            assert!([folder, format, why, advice].iter().all(|part| told.contains(part)), "{told}");
        }
    }
    assert_eq!(everything(former.0.path()), before);
}

#[test]
fn a_backup_is_refused_by_the_name_of_its_format_and_restored_nowhere() {
    let former = Former::copied();
    let before = everything(former.0.path());
    let calls: [&[&str]; 3] = [
        &["backup", "verify", "backup"],
        &["backup", "restore", "backup", "--data-dir", "new"],
        &["backup", "restore", "backup", "--dry-run", "--data-dir", "new"],
    ];
    for arguments in calls {
        let told = former.refused(arguments);
        let why = "it has format 1, which version 0.1.0 of Photon wrote before the first release";
        let advice = "restore it with the version that made it";
        assert!(told.contains(why) && told.contains(advice), "{told}");
    }
    // The log in it too, when somebody asks for nothing else.
    assert!(former.refused(&["event", "verify", "--data-dir", "backup/log"]).contains("it has format 1,"));
    assert!(!Path::new(&former.path("new")).exists());
    assert_eq!(everything(former.0.path()), before);
}

#[test]
fn an_export_is_refused_by_the_name_of_its_format_and_imported_nowhere() {
    let former = Former::copied();
    let told = former.refused(&["event", "import", "export.jsonl", "--data-dir", "new"]);
    assert!(told.contains("it has format 1, which Photon wrote before its first release"), "{told}");
    assert!(told.contains("import it with the version that wrote it"), "{told}");
    let left: Vec<_> = everything(&former.0.path().join("new")).into_keys().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn neither_a_backup_nor_an_export_of_today_takes_the_place_of_a_former_folder() {
    let former = Former::copied();
    let mut photon = Photon::start().await;
    photon.operation(json!([step(1, "look", &[], json!({}))])).await;
    let data = photon.folder().join("data").to_string_lossy().into_owned();
    assert_eq!(photon.stopped().await, 0);
    call(["backup", "create", &former.path("today"), "--data-dir", &data]).ends_with(0);
    call(["event", "export", "-o", &former.path("today.jsonl"), "--data-dir", &data]).ends_with(0);
    let before = everything(former.0.path());
    for more in ["--dry-run", "--replace"] {
        let told = former.refused(&["backup", "restore", "today", more, "--data-dir", "folder"]);
        assert!(told.contains("it has format 1,"), "{told}");
    }
    let import = call(["event", "import", "today.jsonl", "--data-dir", "folder"]);
    import.in_folder(former.0.path()).ends_with(5);
    assert_eq!(everything(former.0.path()), before);
}

/// Snapshots are a cache: one of a former form is passed over, and the log is folded instead.
#[tokio::test]
async fn a_snapshot_of_a_former_form_is_passed_over() {
    let former = Former::copied();
    let mut photon = Photon::start().await;
    let id = photon.operation(json!([step(1, "look", &[], json!({}))])).await;
    assert_eq!(photon.stopped().await, 0);
    let snapshots = photon.folder().join("data/snapshots");
    let _ = fs::remove_dir_all(&snapshots);
    copied(Path::new(&former.path("folder/snapshots")), &snapshots);
    let verify = call(["snapshot", "verify", "-o", "json", "--data-dir", "data"]);
    let found = verify.in_folder(photon.folder()).ends_with(0).json();
    assert_eq!(
        (found.as_array().unwrap().len(), &found[0]["verdict"]),
        (1, &json!("passed over")),
        "{found}"
    );
    let why = found[0]["why"].as_str().unwrap();
    assert!(why.starts_with("it has form 1, "), "{why}");
    photon.restart().await;
    assert_eq!(photon.shown(&id).await["status"], "in_progress");
}
