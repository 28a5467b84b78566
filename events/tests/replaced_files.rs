//! A log whose files are moved, removed, replaced or shortened under it acknowledges nothing that the next
//! start would miss.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, OpenOptions};
use std::path::Path;

use events::conformance::{append, stream};
use events::{AppendError, EventLog, Expected, Options, Refusal, SledLog};

async fn offer(log: &SledLog, number: u64) -> Result<(), AppendError> {
    log.append(append(&stream("a"), Expected::Any, number, 1)).await.map(drop)
}

fn journal(folder: &Path) -> std::path::PathBuf {
    folder.join("gen-000001/journal")
}

#[tokio::test]
async fn a_journal_that_is_not_whole_any_more_is_noticed_with_the_next_commit() {
    let removed = |folder: &Path| fs::remove_file(journal(folder)).unwrap();
    let renamed = |folder: &Path| fs::rename(journal(folder), folder.join("gen-000001/old")).unwrap();
    let replaced = |folder: &Path| {
        fs::copy(journal(folder), folder.join("copy")).unwrap();
        fs::rename(folder.join("copy"), journal(folder)).unwrap();
    };
    let shortened = |folder: &Path| {
        let file = OpenOptions::new().write(true).open(journal(folder)).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    };
    let harms: [fn(&Path); 4] = [removed, renamed, replaced, shortened];
    for (number, harm) in harms.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let log = SledLog::open(folder.path(), Options::default()).unwrap();
        offer(&log, 0).await.unwrap();
        harm(folder.path());
        let refused = offer(&log, 1).await.unwrap_err();
        assert!(matches!(refused, AppendError::Closed), "{number}: {refused:?}");
        let failure = log.failed().await;
        assert!(failure.to_string().contains("removed, replaced or shortened"), "{number}: {failure}");
    }
}

#[tokio::test]
async fn in_a_folder_that_was_moved_nothing_is_stored_until_it_is_back() {
    let parent = tempfile::tempdir().unwrap();
    let (here, there) = (parent.path().join("here"), parent.path().join("there"));
    let log = SledLog::open(&here, Options::default()).unwrap();
    offer(&log, 0).await.unwrap();
    fs::rename(&here, &there).unwrap();
    for put_in_its_place in [false, true] {
        if put_in_its_place {
            fs::create_dir(&here).unwrap();
        }
        let refused = offer(&log, 1).await.unwrap_err();
        assert!(matches!(refused, AppendError::Refused { reason: Refusal::StorageFull }), "{refused:?}");
    }
    fs::remove_dir(&here).unwrap();
    fs::rename(&there, &here).unwrap();
    offer(&log, 1).await.unwrap();
    log.close().await.unwrap();
    let log = SledLog::open(&here, Options::default()).unwrap();
    assert_eq!(log.head().await.unwrap().get(), 2);
}
