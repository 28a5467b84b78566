//! Compaction and restoring: what stays keeps its places, what goes was archived first, and whatever happens
//! in between, the log is the one before or the one after.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use events::conformance::{append, events_after, events_of, stream};
use events::{
    Compaction, EventLog, Expected, OpenError, Options, Position, Recorded, Retention, SledLog, StreamId,
};
use tempfile::TempDir;

mod support;
use support::{find, journals};

fn options() -> Options {
    let mut options = Options::default();
    (options.generation_bytes_max, options.live_events_max, options.idle_ms) = (4_000, 1, 3_600_000);
    options
}

fn open(folder: &Path) -> SledLog {
    SledLog::open(folder, options()).unwrap()
}

/// Events of the streams s0 to s9 in turn, in several generations; `last` is only in the newest.
async fn log() -> (TempDir, Vec<Arc<Recorded>>) {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    for n in 0..200 {
        let name = format!("s{}", n * 7 % 10);
        log.append(append(&stream(&name), Expected::Any, n, 1)).await.unwrap();
    }
    log.append(append(&stream("last"), Expected::Any, 900, 1)).await.unwrap();
    let all = events_after(&log, Position::START, 201).await;
    log.close().await.unwrap();
    assert!(journals(folder.path()).len() >= 4);
    (folder, all)
}

/// Lets some streams go.
#[derive(Default)]
struct Letting {
    going: HashSet<StreamId>,
    seen: usize,
    archived: Vec<Recorded>,
    refuses: bool,
    finished: bool,
}

impl Letting {
    fn go(names: &[&str]) -> Self {
        Self { going: names.iter().map(|name| stream(name)).collect(), ..Self::default() }
    }
}

impl Retention for Letting {
    fn look(&mut self, _: &Recorded) {
        self.seen += 1;
    }

    fn choose(&mut self, _: i64) -> HashSet<StreamId> {
        self.going.clone()
    }

    fn archive(&mut self, event: &Recorded) -> io::Result<()> {
        self.archived.push(event.clone());
        if self.refuses { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn archived(&mut self) -> io::Result<()> {
        self.finished = true;
        Ok(())
    }
}

fn without(all: &[Arc<Recorded>], names: &[&str]) -> Vec<Arc<Recorded>> {
    let going: Vec<StreamId> = names.iter().map(|name| stream(name)).collect();
    all.iter().filter(|event| !going.contains(&event.stream)).cloned().collect()
}

/// Everything can be read in every way, and is what it should be.
async fn check(folder: &Path, all: &[Arc<Recorded>]) {
    let log = open(folder);
    let head = log.head().await.unwrap();
    assert_eq!(events_after(&log, Position::START, all.len()).await, all);
    for after in (0..head.get()).step_by(3).map(Position::new) {
        let rest: Vec<_> = all.iter().filter(|event| event.position > after).cloned().collect();
        assert_eq!(events_after(&log, after, rest.len()).await, rest, "after {after}");
        for bytes in [1, 2_000] {
            let page = log.page(after, bytes).await.unwrap();
            assert!(!page.is_empty() && rest.starts_with(&page), "after {after}: {} events", page.len());
        }
    }
    let streams: HashSet<&StreamId> = all.iter().map(|event| &event.stream).collect();
    for stream in streams {
        let expected: Vec<_> = all.iter().filter(|event| event.stream == *stream).cloned().collect();
        assert_eq!(events_of(&log, stream).await, expected);
    }
    log.close().await.unwrap();
    let audit = SledLog::audit(folder, &mut |_| Ok(())).unwrap();
    assert_eq!((audit.events, audit.last), (all.len() as u64, head));
}

#[tokio::test]
async fn what_stays_keeps_its_places_and_what_goes_was_archived() {
    let (folder, all) = log().await;
    let before = SledLog::occupied(folder.path()).unwrap();
    // The streams in the newest generation cannot go.
    let newest = SledLog::compact(folder.path(), 0, &mut Letting::go(&["last"])).unwrap();
    assert_eq!(newest, Compaction::default());
    let going = ["s1", "s2", "s3", "s4"];
    let mut letting = Letting::go(&going);
    let done = SledLog::compact(folder.path(), 0, &mut letting).unwrap();
    assert!(done.streams >= 1 && letting.finished && letting.seen == all.len(), "{done:?}");
    let gone: HashSet<StreamId> = letting.archived.iter().map(|event| event.stream.clone()).collect();
    let names: Vec<&str> = gone.iter().map(StreamId::id).collect();
    assert_eq!((names.len() as u64, letting.archived.len() as u64), (done.streams, done.events));
    let kept = without(&all, &names);
    assert_eq!(kept.len() + letting.archived.len(), all.len(), "streams go as a whole");
    assert!(SledLog::occupied(folder.path()).unwrap() < before);
    check(folder.path(), &kept).await;

    let log = open(folder.path());
    assert_eq!(log.marks().floor.position, done.floor);
    assert!(done.floor > Position::START);
    let next = log.append(append(&stream(names[0]), Expected::Exact(events::Version::NONE), 999, 1)).await;
    assert!(next.unwrap().position > all.last().unwrap().position, "a position is never used again");
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_log_can_be_compacted_again_and_again() {
    let (folder, mut all) = log().await;
    for round in 0..3_u64 {
        let log = open(folder.path());
        for n in 0..60 {
            let name = format!("r{round}-{}", n % 3);
            log.append(append(&stream(&name), Expected::Any, 10_000 + round * 100 + n, 1)).await.unwrap();
        }
        let filler = append(&stream("filler"), Expected::Any, 20_000 + round * 100, 40);
        log.append(filler).await.unwrap();
        log.append(append(&stream("filler"), Expected::Any, 20_050 + round * 100, 40)).await.unwrap();
        all = events_after(&log, Position::START, all.len() + 140).await;
        log.close().await.unwrap();
        let names = [format!("r{round}-0"), format!("s{round}"), format!("r{round}-1")];
        let names = names.each_ref().map(String::as_str);
        let done = SledLog::compact(folder.path(), 0, &mut Letting::go(&names)).unwrap();
        assert_eq!(done.streams, 3);
        all = without(&all, &names);
        check(folder.path(), &all).await;
        // Once more, without a new generation.
        let more = format!("r{round}-2");
        let done = SledLog::compact(folder.path(), 0, &mut Letting::go(&[more.as_str()])).unwrap();
        assert_eq!(done.streams, 1);
        all = without(&all, &[more.as_str()]);
        check(folder.path(), &all).await;
    }
}

#[tokio::test]
async fn an_archive_that_fails_or_too_little_to_gain_leaves_the_log_as_it_was() {
    let (folder, all) = log().await;
    let mut refusing = Letting { refuses: true, ..Letting::go(&["s1", "s2", "s3", "s4", "s5"]) };
    let failed = SledLog::compact(folder.path(), 0, &mut refusing);
    assert!(matches!(failed, Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::StorageFull));
    assert!(!refusing.finished);
    let idle = SledLog::compact(folder.path(), 1 << 30, &mut Letting::go(&["s1", "s2", "s3"])).unwrap();
    assert_eq!(idle, Compaction::default());
    check(folder.path(), &all).await;
    let running = open(folder.path());
    let busy = SledLog::compact(folder.path(), 0, &mut Letting::go(&["s1"]));
    assert!(matches!(busy, Err(OpenError::Locked)));
    drop(running);
}

#[tokio::test]
async fn an_interrupted_compaction_is_undone_or_finished_by_the_next_start() {
    let (folder, all) = log().await;
    // Ended before the rename.
    fs::create_dir(folder.path().join("base-000003.new")).unwrap();
    check(folder.path(), &all).await;
    assert!(!folder.path().join("base-000003.new").exists());
    // Ended after it: the generations that were replaced are still there.
    let aside = tempfile::tempdir().unwrap();
    let first = fs::read(folder.path().join("gen-000001/journal")).unwrap();
    let mut letting = Letting::go(&["s1", "s2", "s3", "s4", "s5"]);
    SledLog::compact(folder.path(), 0, &mut letting).unwrap();
    let gone: Vec<String> = letting.going.iter().map(|stream| stream.id().to_owned()).collect();
    let gone: Vec<&str> = gone
        .iter()
        .map(String::as_str)
        .filter(|name| letting.archived.iter().any(|event| event.stream.id() == *name))
        .collect();
    fs::create_dir(folder.path().join("gen-000001")).unwrap();
    fs::write(folder.path().join("gen-000001/journal"), first).unwrap();
    let read_only = SledLog::open_read_only(folder.path(), &options()).unwrap();
    assert_eq!(read_only.damage(), None);
    assert!(read_only.marks().floor.position > Position::START);
    drop(read_only);
    check(folder.path(), &without(&all, &gone)).await;
    assert!(!folder.path().join("gen-000001").exists());
    drop(aside);
}

#[tokio::test]
async fn damage_of_a_base_is_found() {
    let (folder, all) = log().await;
    let mut letting = Letting::go(&["s1", "s2", "s3", "s4", "s5"]);
    SledLog::compact(folder.path(), 0, &mut letting).unwrap();
    let kept: Vec<_> =
        all.iter().filter(|event| letting.archived.iter().all(|gone| gone.id != event.id)).cloned().collect();
    let base = journals(folder.path()).remove(0);
    assert!(base.to_string_lossy().contains("base-"));
    let whole = fs::read(&base).unwrap();
    let (_, at) = find(folder.path(), &kept[9].body).unwrap();
    let audit = || match SledLog::audit(folder.path(), &mut |_| Ok(())) {
        Err(OpenError::Corrupt(damage)) => damage,
        other => panic!("{other:?}"),
    };
    for byte in (0..whole.len()).step_by(13).chain([at]) {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        fs::write(&base, damaged).unwrap();
        let found = audit();
        if byte == at {
            // After the last good one, at the latest where the bad one is.
            assert!(found.position > kept[8].position && found.position <= kept[9].position, "{found}");
        }
    }
    for len in [whole.len() - 1, whole.len() - 60, whole.len() - 124, whole.len() / 2, 80, 10, 0] {
        fs::write(&base, &whole[..len]).unwrap();
        audit();
        assert!(SledLog::open(folder.path(), options()).is_err(), "{len} of {} bytes", whole.len());
        let shown = SledLog::open_read_only(folder.path(), &options()).unwrap();
        assert!(shown.damage().is_some());
    }
    fs::write(&base, &whole).unwrap();
    check(folder.path(), &kept).await;
}

#[tokio::test]
async fn events_can_be_restored_with_their_places_into_an_empty_folder_only() {
    let (_folder, all) = log().await;
    let kept = without(&all, &["s3", "s7"]);
    let other = tempfile::tempdir().unwrap();
    let target = other.path().join("data");
    let mut events = kept.iter().map(|event| Ok((**event).clone()));
    assert_eq!(SledLog::restore(&target, &mut events).unwrap(), kept.len() as u64);
    check(&target, &kept).await;
    let again = SledLog::restore(&target, &mut std::iter::empty());
    assert!(matches!(again, Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists));

    // Nothing was removed of a log that is restored as a whole.
    let whole = other.path().join("whole");
    SledLog::restore(&whole, &mut all.iter().map(|event| Ok((**event).clone()))).unwrap();
    for (target, removed) in [(&target, true), (&whole, false)] {
        let log = open(target);
        assert_eq!(log.marks().floor != events::Floor::NONE, removed);
        log.close().await.unwrap();
    }

    let headless: Vec<_> = kept.iter().skip(1).cloned().collect();
    let disordered: Vec<_> = kept.iter().rev().cloned().collect();
    let beyond = |change: fn(&mut Recorded)| {
        let mut last = (**kept.last().unwrap()).clone();
        change(&mut last);
        kept.iter().rev().skip(1).rev().cloned().chain([Arc::new(last)]).collect()
    };
    let far: Vec<_> = beyond(|event| event.position = Position::new(u64::MAX));
    let earlier: Vec<_> = beyond(|event| event.time_us = i64::MIN);
    let nameless: Vec<_> = beyond(|event| event.name = Arc::from(""));
    for (broken, sentence) in [
        (headless, "does not follow"),
        (disordered, "is older than"),
        (far, "impossible position"),
        (earlier, "is older than"),
        (nameless, "impossible name"),
    ] {
        let target = other.path().join("broken");
        let mut events = broken.iter().map(|event| Ok((**event).clone()));
        let refused = SledLog::restore(&target, &mut events).unwrap_err();
        assert!(refused.to_string().contains(sentence), "{refused}");
        assert!(!target.join("base-000001.new").exists(), "what is of no use takes no space");
        assert_eq!(SledLog::audit(&target, &mut |_| Ok(())).unwrap().events, 0, "nothing was written");
    }
}

#[tokio::test]
async fn the_history_reaches_the_end_of_a_log_whose_newest_generation_is_empty() {
    let (_folder, all) = log().await;
    let other = tempfile::tempdir().unwrap();
    SledLog::restore(other.path(), &mut all.iter().map(|event| Ok((**event).clone()))).unwrap();
    // A first start makes a generation behind what was restored, and nothing is written to it.
    check(other.path(), &all).await;
    let done = SledLog::compact(other.path(), 0, &mut Letting::go(&["s1", "last"])).unwrap();
    assert_eq!(done.streams, 1, "the stream with the newest event stays");
    check(other.path(), &without(&all, &["s1"])).await;
}

#[tokio::test]
async fn what_a_damaged_base_has_replaced_is_not_deleted() {
    let (folder, _) = log().await;
    let first = fs::read(folder.path().join("gen-000001/journal")).unwrap();
    SledLog::compact(folder.path(), 0, &mut Letting::go(&["s1", "s2", "s3"])).unwrap();
    // The process ended before it had deleted them, and then the disk took a byte of the base.
    fs::create_dir(folder.path().join("gen-000001")).unwrap();
    fs::write(folder.path().join("gen-000001/journal"), first).unwrap();
    let base = journals(folder.path()).into_iter().find(|path| path.to_string_lossy().contains("base-"));
    let base = base.unwrap();
    let mut bytes = fs::read(&base).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&base, bytes).unwrap();
    let refused = SledLog::open(folder.path(), options()).err().unwrap();
    assert!(refused.to_string().contains("in base "), "{refused}");
    assert!(folder.path().join("gen-000001/journal").exists());
}
