//! Hand-damaged files: what was durable is named and never skipped, what was never finished is cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use events::conformance::{append, events_after, events_of, stream};
use events::{
    AppendError, Damage, EventLog, Expected, Faults, OpenError, Options, Position, ReadError, Refusal,
    SledLog,
};
use futures_util::StreamExt;
use tempfile::TempDir;

mod support;
use support::{find, flip_stored_byte, journals};

/// Small generations, a ring of hardly anything, and no watermark unless the log is closed.
fn options() -> Options {
    let mut options = Options::default();
    (options.generation_bytes_max, options.live_events_max, options.idle_ms) = (4_000, 1, 3_600_000);
    options
}

/// A log of 60 commits of one event in several generations.
async fn log_of_sixty(clean: bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let options = options();
    let faults = options.faults.clone();
    let log = SledLog::open(folder.path(), options).unwrap();
    for n in 0..60 {
        log.append(append(&stream("a"), Expected::Any, n, 1)).await.unwrap();
    }
    if !clean {
        faults.abandon();
    }
    log.close().await.unwrap();
    assert_eq!(folder.path().join("gen-000003/clean").exists(), clean);
    folder
}

fn open(folder: &Path) -> Result<SledLog, OpenError> {
    SledLog::open(folder, options())
}

fn damage(folder: &Path) -> Damage {
    match open(folder) {
        Err(OpenError::Corrupt(damage)) => damage,
        other => panic!("not found: {other:?}"),
    }
}

async fn count(folder: &Path) -> usize {
    let log = open(folder).unwrap();
    let count = events_of(&log, &stream("a")).await.len();
    log.close().await.unwrap();
    count
}

fn last_journal(folder: &Path) -> PathBuf {
    journals(folder).pop().unwrap()
}

fn cut(journal: &Path, bytes: u64) {
    let file = fs::File::options().write(true).open(journal).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_the_middle_is_named_by_generation_offset_and_position() {
    let folder = log_of_sixty(false).await;
    for n in [0, 20, 58] {
        let body = format!("body of event {n}");
        let (journal, at) = find(folder.path(), body.as_bytes()).unwrap();
        let whole = fs::read(&journal).unwrap();
        assert!(flip_stored_byte(folder.path(), body.as_bytes()));
        let found = damage(folder.path());
        let generation = journal.parent().unwrap().file_name().unwrap().to_str().unwrap();
        assert_eq!(format!("gen-{:06}", found.generation), generation);
        assert_eq!(found.position, Position::new(n + 1));
        let (from, to) = (at as u64 - 110, at as u64);
        assert!((from..to).contains(&found.offset), "{} is not the record before {at}", found.offset);
        fs::write(&journal, whole).unwrap();
    }
    assert_eq!(count(folder.path()).await, 60, "repaired by hand, nothing else was changed");
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_the_log_goes_on() {
    for bytes in [1, 30, 100, 130] {
        let folder = log_of_sixty(false).await;
        cut(&last_journal(folder.path()), bytes);
        assert_eq!(count(folder.path()).await, 59, "{bytes} bytes missing");
        let log = open(folder.path()).unwrap();
        log.append(append(&stream("a"), Expected::Any, 59, 1)).await.unwrap();
        log.close().await.unwrap();
        assert_eq!(count(folder.path()).await, 60);
    }
}

#[tokio::test]
async fn rubbish_after_the_last_frame_is_cut_off() {
    let folder = log_of_sixty(false).await;
    let journal = last_journal(folder.path());
    let whole = fs::read(&journal).unwrap();
    // Zeros, as when only the length of a file reached the disk; and a body that looks like frames seen
    // before.
    for rubbish in [vec![0; 5000], whole[72..500].to_vec()] {
        fs::write(&journal, [&whole[..], &rubbish].concat()).unwrap();
        assert_eq!(count(folder.path()).await, 60);
        fs::remove_file(journal.with_file_name("clean")).unwrap();
        fs::write(&journal, &whole).unwrap();
    }
}

#[tokio::test]
async fn after_a_watermark_or_a_clean_close_the_last_record_is_not_taken_for_a_torn_tail() {
    let folder = log_of_sixty(true).await;
    for clean in [true, false] {
        let journal = last_journal(folder.path());
        let whole = fs::read(&journal).unwrap();
        assert!(flip_stored_byte(folder.path(), b"body of event 59"));
        assert_eq!(damage(folder.path()).position, Position::new(60));
        fs::write(&journal, whole).unwrap();
        if clean {
            fs::remove_file(journal.with_file_name("clean")).unwrap();
        }
    }
}

#[tokio::test]
async fn an_idle_writer_notes_how_far_the_journal_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.idle_ms = 1;
    let faults = options.faults.clone();
    let log = SledLog::open(folder.path(), options).unwrap();
    log.append(append(&stream("a"), Expected::Any, 0, 1)).await.unwrap();
    until("no watermark", || frames(&last_journal(folder.path())) == 2).await;
    faults.abandon();
    log.close().await.unwrap();
    assert!(flip_stored_byte(folder.path(), b"body of event 0"));
    assert_eq!(damage(folder.path()).position, Position::new(1));
}

/// An idle log goes on where another ended uncleanly, on a disk that is full for a while or not.
async fn noted_after_an_unclean_end(full: bool) {
    let folder = log_of_sixty(false).await;
    let len = || fs::metadata(last_journal(folder.path())).unwrap().len();
    let noted = len() + 72;
    let mut options = options();
    options.idle_ms = 1;
    let faults = options.faults.clone();
    faults.set_full(full);
    let log = SledLog::open(folder.path(), options).unwrap();
    if full {
        until("no watermark is tried", || faults.refused() > 0).await;
        faults.set_full(false);
    }
    until("no watermark", || len() == noted).await;
    faults.abandon();
    log.close().await.unwrap();
    assert!(flip_stored_byte(folder.path(), b"body of event 59"));
    assert_eq!(damage(folder.path()).position, Position::new(60));
}

#[tokio::test]
async fn after_an_unclean_end_an_idle_writer_notes_that_what_it_found_is_durable() {
    noted_after_an_unclean_end(false).await;
}

#[tokio::test]
async fn a_watermark_for_which_there_was_no_space_is_written_once_there_is() {
    noted_after_an_unclean_end(true).await;
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

/// How many frames a journal holds.
fn frames(journal: &Path) -> usize {
    let bytes = fs::read(journal).unwrap();
    bytes.windows(8).skip(72).filter(|window| *window == &bytes[32..40]).count()
}

#[tokio::test]
async fn a_cleanly_closed_log_notices_every_flipped_bit() {
    let folder = log_of_sixty(true).await;
    let journals = journals(folder.path());
    assert!(journals.len() >= 3);
    let mut at = 0;
    for journal in journals {
        let whole = fs::read(&journal).unwrap();
        // Every 61st byte, so that the test is quick; the record and frame tests flip every bit.
        while at < whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&journal, flipped).unwrap();
            let found = open(folder.path());
            assert!(
                matches!(found, Err(OpenError::Corrupt(_))),
                "{} byte {at}: {found:?}",
                journal.display()
            );
            at += 61;
        }
        at -= whole.len();
        fs::write(&journal, whole).unwrap();
    }
    assert_eq!(count(folder.path()).await, 60);
}

#[tokio::test]
async fn cut_moved_and_missing_parts_are_found() {
    let folder = log_of_sixty(true).await;
    let journals = journals(folder.path());
    let [first, second] = [fs::read(&journals[0]).unwrap(), fs::read(&journals[1]).unwrap()];
    cut(&journals[0], 1);
    assert_eq!(damage(folder.path()).generation, 1, "a sealed journal was cut short");
    fs::write(&journals[0], &second).unwrap();
    assert_eq!(damage(folder.path()).offset, 0, "a journal took another's place");
    fs::remove_file(&journals[0]).unwrap();
    assert_eq!(damage(folder.path()).position, Position::new(1), "a journal is missing");
    fs::write(&journals[0], &first).unwrap();

    let mark = &first[32..40];
    let frames: Vec<_> =
        (72..first.len() - 8).filter(|at| &first[*at..at + 8] == mark).chain([first.len()]).collect();
    let without = [&first[..frames[3]], &first[frames[4]..]].concat();
    fs::write(&journals[0], without).unwrap();
    assert_eq!(damage(folder.path()).position, Position::new(4), "a frame is missing");
    let one_less = &first[..frames[frames.len() - 2]];
    fs::write(&journals[0], one_less).unwrap();
    assert!(damage(folder.path()).generation <= 2, "the last frame of a sealed journal is missing");
    fs::write(&journals[0], &first).unwrap();

    let newest = journals.last().unwrap();
    let whole = fs::read(newest).unwrap();
    cut(newest, 72);
    assert!(open(folder.path()).is_err(), "the marker knows how long the journal was");
    fs::write(newest, whole).unwrap();
    fs::remove_dir_all(folder.path().join("gen-000002")).unwrap();
    assert_eq!(damage(folder.path()).generation, 2);
}

#[tokio::test]
async fn a_newer_format_is_refused_with_its_number() {
    let folder = log_of_sixty(true).await;
    let journal = last_journal(folder.path());
    let mut bytes = fs::read(&journal).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..72]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    fs::write(&journal, bytes).unwrap();
    assert!(matches!(open(folder.path()), Err(OpenError::NewerFormat(9))));
}

/// Length of stream, name and metadata of the conformance tests' events, with a record's header.
const BEFORE_BODY: usize = 66 + 6 + 13 + 2;

#[tokio::test]
async fn a_record_of_a_newer_version_is_neither_read_nor_cut_off_nor_called_damaged() {
    let folder = log_of_sixty(false).await;
    // The last record of all, where damage would pass for a torn tail.
    let (journal, body) = find(folder.path(), b"body of event 59").unwrap();
    let mut bytes = fs::read(&journal).unwrap();
    let start = body - BEFORE_BODY;
    let length = u32::from_le_bytes(bytes[start..start + 4].try_into().unwrap()) as usize;
    bytes[start + 58] = 1;
    let crc = crc32c::crc32c(&bytes[start + 8..start + length]);
    bytes[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    fs::write(&journal, &bytes).unwrap();
    let position = Position::new(60);
    let refusals = [
        open(folder.path()).map(drop),
        SledLog::open_read_only(folder.path(), &options()).map(drop),
        SledLog::audit(folder.path(), &mut |_| Ok(())).map(drop),
        SledLog::prefix(folder.path(), Position::new(u64::MAX)).map(drop),
    ];
    for refused in refusals {
        let fault = refused.unwrap_err();
        assert!(matches!(fault, OpenError::NewerRecord(found) if found == position), "{fault:?}");
        assert!(fault.to_string().contains("written by a newer version of Photon"), "{fault}");
    }
    assert_eq!(fs::read(&journal).unwrap(), bytes);
}

#[tokio::test]
async fn a_log_that_is_open_cannot_be_opened_a_second_time() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    assert!(matches!(open(folder.path()), Err(OpenError::Locked)));
    log.close().await.unwrap();
    drop(open(folder.path()).unwrap());
}

#[tokio::test]
async fn a_tail_names_damage_that_came_after_opening_and_ends() {
    let folder = log_of_sixty(true).await;
    let log = open(folder.path()).unwrap();
    assert!(flip_stored_byte(folder.path(), b"body of event 40"));
    let seen: Vec<_> = log.tail(Position::START).collect().await;
    let (last, before) = seen.split_last().unwrap();
    assert!(before.iter().all(Result::is_ok) && before.len() <= 40);
    assert!(
        matches!(last, Err(ReadError::Corrupt(damage)) if damage.position == Position::new(41)),
        "{last:?}"
    );
}

#[tokio::test]
async fn a_generation_is_read_once_more_when_it_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    log.append(append(&stream("a"), Expected::Any, 0, 1)).await.unwrap();
    assert!(flip_stored_byte(folder.path(), b"body of event 0"));
    let started = Instant::now();
    let mut n = 1;
    while log.damage().is_none() {
        log.append(append(&stream("a"), Expected::Any, n, 1)).await.unwrap();
        n += 1;
        assert!(started.elapsed() < Duration::from_secs(10), "the damage is not seen");
    }
    assert_eq!(log.damage().map(|damage| (damage.generation, damage.position)), Some((1, Position::new(1))));
    log.close().await.unwrap();
    assert_eq!(damage(folder.path()).position, Position::new(1));
}

#[tokio::test]
async fn blocks_are_disposable_whatever_happens_to_them() {
    let folder = log_of_sixty(true).await;
    let newest = last_journal(folder.path()).with_file_name("sled");
    // Lost, replaced by rubbish, and damaged inside.
    fs::remove_dir_all(&newest).unwrap();
    assert_eq!(count(folder.path()).await, 60);
    fs::write(newest.join("db"), b"rubbish").unwrap();
    assert_eq!(count(folder.path()).await, 60);
    let mut db = fs::read(newest.join("db")).unwrap_or_default();
    for byte in db.iter_mut().skip(100).step_by(50) {
        *byte ^= 0x55;
    }
    fs::write(newest.join("db"), db).unwrap();
    assert_eq!(count(folder.path()).await, 60);
    assert_eq!(count(folder.path()).await, 60);
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_takes_them_again_once_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let options = options();
    let faults: Faults = options.faults.clone();
    let log = SledLog::open(folder.path(), options).unwrap();
    for n in 0..40 {
        log.append(append(&stream("a"), Expected::Any, n * 10, 1)).await.unwrap();
        faults.set_full(true);
        let refused = log.append(append(&stream("a"), Expected::Any, n * 10 + 1, 1)).await;
        assert_eq!(refused, Err(AppendError::Refused { reason: Refusal::StorageFull }));
        let repeated = log.append(append(&stream("a"), Expected::Any, n * 10, 1)).await;
        assert!(repeated.is_ok(), "what is there already needs no space");
        assert_eq!(events_after(&log, Position::START, n as usize + 1).await.len(), n as usize + 1);
        faults.set_full(false);
    }
    log.close().await.unwrap();
    assert_eq!(count(folder.path()).await, 40);
}

#[tokio::test]
async fn below_the_low_water_mark_appends_are_refused_and_reads_go_on() {
    let folder = log_of_sixty(true).await;
    let mut options = options();
    options.disk_low_water_bytes = u64::MAX;
    let log = SledLog::open(folder.path(), options).unwrap();
    let refused = log.append(append(&stream("a"), Expected::Any, 100, 1)).await;
    assert_eq!(refused, Err(AppendError::Refused { reason: Refusal::StorageFull }));
    assert_eq!(events_of(&log, &stream("a")).await.len(), 60);
}

#[tokio::test]
async fn at_its_maximum_the_log_refuses_appends_also_after_a_restart_and_takes_them_when_it_may_grow() {
    let folder = tempfile::tempdir().unwrap();
    let sized = |disk_max_bytes| {
        let mut options = options();
        options.disk_max_bytes = disk_max_bytes;
        options
    };
    let refused = Err(AppendError::Refused { reason: Refusal::StorageFull });
    let log = SledLog::open(folder.path(), sized(2 << 20)).unwrap();
    let mut written = 0;
    let full = loop {
        let mut append = append(&stream("a"), Expected::Any, written, 1);
        append.events[0].body = vec![7; 20_000].into();
        match log.append(append).await {
            Ok(_) => written += 1,
            full => break full,
        }
    };
    assert_eq!(full, refused);
    assert!(written > 10, "{written}");
    log.close().await.unwrap();
    let occupied = SledLog::occupied(folder.path()).unwrap();
    // Beside the journal there are the blocks, of which sled decides.
    assert!((1 << 20..4 << 20).contains(&occupied), "{occupied}");

    let log = SledLog::open(folder.path(), sized(1 << 20)).unwrap();
    assert_eq!(log.append(append(&stream("a"), Expected::Any, 900, 1)).await, refused);
    assert_eq!(events_of(&log, &stream("a")).await.len() as u64, written, "reads go on");
    log.close().await.unwrap();
    // Something that takes space and can go: what lies beside the log counts as well.
    let beside = folder.path().join("beside");
    fs::write(&beside, vec![0; 9 << 20]).unwrap();
    let log = SledLog::open(folder.path(), sized(8 << 20)).unwrap();
    assert_eq!(log.append(append(&stream("a"), Expected::Any, 901, 1)).await, refused);
    fs::remove_file(beside).unwrap();
    let freed = Instant::now();
    while log.append(append(&stream("a"), Expected::Any, 902, 1)).await.is_err() {
        assert!(freed.elapsed() < Duration::from_secs(5), "it does not resume");
        tokio::task::yield_now().await;
    }
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_failed_sync_is_reported_and_readers_see_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = options();
    let faults = options.faults.clone();
    let log = SledLog::open(folder.path(), options).unwrap();
    log.append(append(&stream("a"), Expected::Any, 0, 1)).await.unwrap();
    let failed = log.failed();
    faults.fail_next_sync();
    assert_eq!(log.append(append(&stream("a"), Expected::Any, 1, 1)).await, Err(AppendError::OutcomeUnknown));
    let error = tokio::time::timeout(Duration::from_secs(10), failed).await.unwrap();
    assert!(error.to_string().contains("made to fail"));
    assert_eq!(log.head().await.unwrap(), Position::new(1));
    assert_eq!(events_of(&log, &stream("a")).await.len(), 1);
    assert!(log.close().await.is_err());
}

#[tokio::test]
async fn closing_writes_what_waits_and_lets_tails_end() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    let waiting: Vec<_> = (0..100).map(|n| log.append(append(&stream("a"), Expected::Any, n, 1))).collect();
    let tail = log.tail(Position::START);
    let closing = log.close();
    assert_eq!(log.append(append(&stream("a"), Expected::Any, 500, 1)).await, Err(AppendError::Closed));
    closing.await.unwrap();
    for answer in waiting {
        answer.await.unwrap();
    }
    let seen: Vec<_> = tail.collect().await;
    assert_eq!(seen.len(), 101);
    assert!(matches!(seen.last(), Some(Err(ReadError::Closed))));
    assert!(matches!(log.head().await, Err(ReadError::Closed)));
}

#[tokio::test]
async fn a_writer_that_panics_fails_the_log_and_leaves_no_caller_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let options = options();
    let faults = options.faults.clone();
    let log = SledLog::open(folder.path(), options).unwrap();
    log.append(append(&stream("a"), Expected::Any, 0, 1)).await.unwrap();
    let failed = log.failed();
    faults.panic();
    assert_eq!(log.append(append(&stream("a"), Expected::Any, 1, 1)).await, Err(AppendError::OutcomeUnknown));
    tokio::time::timeout(Duration::from_secs(10), failed).await.unwrap();
    assert_eq!(log.append(append(&stream("a"), Expected::Any, 2, 1)).await, Err(AppendError::Closed));
    assert!(log.close().await.is_err());
    assert_eq!(count(folder.path()).await, 1);
}
