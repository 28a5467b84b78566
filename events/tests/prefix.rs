//! The beginning of a log as a copy: whole commits only, of a running log too, and under an identity that is
//! given to it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use events::conformance::{append, stream};
use events::{
    Audit, Epoch, EventLog, Expected, Identity, OpenError, Options, Position, Recorded, Retention, SledLog,
    StreamId,
};

mod support;

fn small() -> Options {
    let mut options = Options::default();
    (options.generation_bytes_max, options.idle_ms) = (20_000, 1);
    options
}

fn audited(folder: &Path) -> (Audit, Vec<Recorded>) {
    let mut all = Vec::new();
    let audit = SledLog::audit(folder, &mut |event| {
        all.push(event.clone());
        Ok(())
    });
    (audit.unwrap(), all)
}

/// The bytes that tell the last event from every other.
fn last_id(folder: &Path) -> Vec<u8> {
    let (_, all) = audited(folder);
    all.last().unwrap().id.get().as_bytes().to_vec()
}

fn copied(source: &Path, until: u64) -> (tempfile::TempDir, Position) {
    let target = tempfile::tempdir().unwrap();
    let prefix = SledLog::prefix(source, Position::new(until)).unwrap();
    let identity = Identity { log: prefix.identity.log, epoch: Epoch::fresh() };
    prefix.copy_to(target.path(), &identity).unwrap();
    assert_eq!(SledLog::identity(target.path()).unwrap(), Some(identity));
    (target, prefix.position)
}

#[tokio::test]
async fn a_copy_beside_a_running_log_holds_all_that_was_acknowledged_before() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(SledLog::open(folder.path(), small()).unwrap());
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (log, acknowledged, stop) = (Arc::clone(&log), Arc::clone(&acknowledged), Arc::clone(&stop));
            tokio::spawn(async move {
                for number in 0.. {
                    let id = writer * 1_000_000 + number * 10;
                    let head = log.append(append(&stream("a"), Expected::Any, id, 3)).await.unwrap();
                    acknowledged.fetch_max(head.position.get(), Ordering::AcqRel);
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                }
            })
        })
        .collect();
    let path = folder.path().to_owned();
    for _ in 0..20 {
        let (before, path) = (acknowledged.load(Ordering::Acquire), path.clone());
        let (copy, position) = tokio::task::spawn_blocking(move || copied(&path, u64::MAX)).await.unwrap();
        let (audit, all) = audited(copy.path());
        assert!(audit.last == position && position.get() >= before, "{audit:?} {before}");
        assert_eq!((audit.events, all.len() as u64), (position.get(), position.get()));
        assert_eq!((audit.events % 3, audit.torn_bytes), (0, 0), "an append is there as a whole");
    }
    stop.store(true, Ordering::Release);
    for writer in writers {
        writer.await.unwrap();
    }
    log.close().await.unwrap();
    let (whole, events) = audited(folder.path());
    assert!(whole.generations > 2);
    let (copy, _) = copied(folder.path(), u64::MAX);
    let (audit, copied) = audited(copy.path());
    assert_eq!((audit.last, audit.generations, copied), (whole.last, whole.generations, events));
    let id = last_id(copy.path());
    assert!(support::flip_stored_byte(copy.path(), &id));
    let damage = SledLog::audit(copy.path(), &mut |_| Ok(())).unwrap_err();
    assert!(matches!(damage, OpenError::Corrupt(_)), "its last commit cannot pass for a torn tail");
}

#[tokio::test]
async fn a_copy_beside_an_idle_log_that_was_not_closed_cleanly_before_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.idle_ms = 3_600_000;
    let log = SledLog::open(folder.path(), options.clone()).unwrap();
    log.append(append(&stream("a"), Expected::Any, 0, 3)).await.unwrap();
    options.faults.abandon();
    log.close().await.unwrap();
    let log = SledLog::open(folder.path(), small()).unwrap();
    let (copy, position) = copied(folder.path(), u64::MAX);
    assert_eq!((position.get(), audited(copy.path()).0.events), (3, 3));
    log.close().await.unwrap();
}

/// Lets one stream go.
struct Going;

impl Retention for Going {
    fn look(&mut self, _: &Recorded) {}

    fn choose(&mut self, _: i64) -> HashSet<StreamId> {
        HashSet::from([stream("going")])
    }

    fn archive(&mut self, _: &Recorded) -> io::Result<()> {
        Ok(())
    }

    fn archived(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_log_that_was_compacted_while_it_was_copied_is_not_taken_for_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    let log = SledLog::open(folder.path(), small()).unwrap();
    for number in 0..60 {
        let mut append = append(&stream(["going", "a"][number as usize / 30]), Expected::Any, number, 1);
        append.events[0].body = vec![7; 1_000].into();
        log.append(append).await.unwrap();
    }
    log.close().await.unwrap();
    drop(log);
    let held = fs::File::open(folder.path().join("lock")).unwrap();
    held.lock().unwrap();
    let prefix = SledLog::prefix(folder.path(), Position::new(u64::MAX)).unwrap();
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    prefix.copy_to(before.path(), &prefix.identity).unwrap();
    drop(held);
    assert!(SledLog::compact(folder.path(), 0, &mut Going).unwrap().events > 0);
    let refused = prefix.copy_to(after.path(), &prefix.identity).unwrap_err();
    assert!(matches!(refused, OpenError::Compacted), "{refused}");
}

#[tokio::test]
async fn a_copy_up_to_any_position_ends_with_a_whole_commit_and_can_be_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let log = SledLog::open(folder.path(), small()).unwrap();
    for number in 0..60 {
        let mut append = append(&stream("a"), Expected::Any, number * 10, 2);
        append.events[0].body = vec![7; 1_000].into();
        log.append(append).await.unwrap();
    }
    log.close().await.unwrap();
    let (_, events) = audited(folder.path());
    for until in 0..=120 {
        let (copy, position) = copied(folder.path(), until);
        assert_eq!(position.get(), until / 2 * 2, "each commit has two events");
        assert_eq!(audited(copy.path()).1, events[..position.get() as usize]);
    }
    let (copy, _) = copied(folder.path(), 61);
    let log = SledLog::open(copy.path(), small()).unwrap();
    let head = log.append(append(&stream("a"), Expected::Any, 9_999, 1)).await.unwrap();
    assert_eq!(head.position.get(), 61);
    log.close().await.unwrap();
}

#[tokio::test]
async fn nothing_that_is_damaged_or_missing_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let missing = SledLog::prefix(folder.path(), Position::new(9)).unwrap_err();
    assert!(matches!(missing, OpenError::Io(fault) if fault.kind() == std::io::ErrorKind::NotFound));
    let log = SledLog::open(folder.path(), small()).unwrap();
    for number in 0..3 {
        let mut append = append(&stream("a"), Expected::Any, number * 10, 1);
        append.events[0].body = format!("event {number} of the test").into();
        log.append(append).await.unwrap();
    }
    log.close().await.unwrap();
    assert!(support::flip_stored_byte(folder.path(), b"event 1 of the test"));
    let damage = SledLog::prefix(folder.path(), Position::new(9)).unwrap_err();
    assert!(matches!(damage, OpenError::Corrupt(damage) if damage.position == Position::new(2)));
}

#[tokio::test]
async fn a_log_keeps_its_identity_and_every_log_has_its_own() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut found = Vec::new();
    for folder in [&one, &other, &one] {
        let log = SledLog::open(folder.path(), small()).unwrap();
        let identity = SledLog::identity(folder.path()).unwrap().unwrap();
        assert_eq!(log.marks().epoch, Some(identity.epoch));
        log.close().await.unwrap();
        let seen = SledLog::open_read_only(folder.path(), &small()).unwrap();
        assert_eq!(seen.marks().epoch, Some(identity.epoch));
        found.push(identity);
    }
    assert!(found[0] == found[2] && found[0].log != found[1].log && found[0].epoch != found[1].epoch);
    fs::remove_file(one.path().join("identity")).unwrap();
    let without = SledLog::identity(one.path()).unwrap().unwrap();
    assert_eq!(without.log, found[0].log, "it follows from the journal");
    assert_ne!(without.epoch, found[0].epoch, "nobody can tell whether there was a restore");
}
