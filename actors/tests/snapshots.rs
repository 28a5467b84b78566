//! A snapshot and the rest of the log are the whole log, and a snapshot that is not whole or not of this log
//! is never used: over random logs, random places and random damage.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::codec::Durable;
use actors::gateway::stream_of;
use actors::keeper::{Keeper, Policy, Verdict, verify};
use actors::kept::{FORM, Kept, keep_all, restore_part};
use actors::past::Past;
use actors::recovery::{Recovered, recover};
use actors::standing::Standing;
use domain::Timestamp;
use domain::agent::Agent;
use domain::lane::Lane;
use domain::operation::Operation;
use events::dice::Dice;
use events::{EventLog, MemoryLog, Options, Position, Recorded, Retention, SledLog, StreamId};
use snapshots::FileStore;
use tempfile::TempDir;

use support::author::Author;

/// Everything, as one list of bytes.
fn parts(standing: &Standing) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    keep_all::<String>(&standing.past.views, &standing.keys, &mut |part| {
        parts.push(part.to_vec());
        Ok(())
    })
    .unwrap();
    parts
}

async fn whole(log: &dyn EventLog) -> Standing {
    let mut standing = Standing::default();
    standing.fold_up_to(log, Position::new(u64::MAX), &|| true).await.unwrap();
    standing
}

async fn events(log: &dyn EventLog) -> Vec<Arc<Recorded>> {
    let mut all: Vec<Arc<Recorded>> = Vec::new();
    loop {
        let after = all.last().map_or(Position::START, |last| last.position);
        let page = log.page(after, 1 << 20).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// What is the same in both must also go on in the same way.
async fn must_be_the_whole(log: &dyn EventLog, mut standing: Standing) {
    standing.fold_up_to(log, Position::new(u64::MAX), &|| true).await.unwrap();
    let whole = whole(log).await;
    // The parts themselves are too long to be shown.
    assert!(parts(&standing) == parts(&whole), "the fold comes to something else");
    assert_eq!(
        (standing.past.position, standing.past.time, standing.past.events),
        (whole.past.position, whole.past.time, whole.past.events)
    );
}

#[actix::test]
async fn views_and_keys_put_together_again_go_on_as_if_nothing_had_happened() {
    for seed in 0..60 {
        let log = MemoryLog::new();
        let mut dice = Dice(seed);
        Author::new(seed).write(&log, 250).await;
        let all = events(&log).await;
        for _ in 0..6 {
            let cut = dice.below(all.len() as u64 + 1) as usize;
            let mut before = Standing::default();
            all[..cut].iter().for_each(|event| before.fold(event).unwrap());
            let mut again = Standing {
                past: Past { views: Default::default(), ..before.past },
                keys: Default::default(),
            };
            for part in parts(&before) {
                restore_part(&part, &mut again.past.views, &mut again.keys).unwrap();
            }
            assert!(parts(&again) == parts(&before), "seed {seed}, after {cut} events");
            all[cut..].iter().for_each(|event| {
                before.fold(event).unwrap();
                again.fold(event).unwrap();
                assert_eq!(again.past.views.operations.len(), before.past.views.operations.len());
            });
            assert!(parts(&again) == parts(&before), "seed {seed}, from {cut} events on");
            assert_eq!(again.past.views.operations.open(), before.past.views.operations.open());
        }
    }
}

/// Each version of the streams of one kind: kept, put together and gone on with.
async fn every_version<A: Durable>(log: &dyn EventLog, all: &[Arc<Recorded>]) -> usize {
    let mut checked = 0;
    let mut heads: Vec<&Arc<Recorded>> = Vec::new();
    for event in all.iter().rev().filter(|event| event.stream.category() == A::CATEGORY) {
        if heads.iter().all(|head| head.stream != event.stream) {
            heads.push(event);
        }
    }
    for head in heads {
        let whole = recover::<A>(log, &head.stream, Recovered::default(), &|_| true).await.unwrap();
        let whole = whole.state.map(|state| state.keep().unwrap());
        for version in 1..=head.version.get() {
            let until = move |event: &Recorded| event.version.get() <= version;
            let part = recover::<A>(log, &head.stream, Recovered::default(), &until).await.unwrap();
            let Some(state) = part.state else { continue };
            let bytes = state.keep().unwrap();
            let again = <A as Kept>::restore(&bytes).unwrap();
            assert!(again.keep().unwrap() == bytes);
            let from = Recovered { state: Some(again), ..part };
            let rest = recover::<A>(log, &head.stream, from, &|_| true).await.unwrap();
            let rest = rest.state.map(|state| state.keep().unwrap());
            assert!(rest == whole, "{} at {version}", head.stream);
            checked += 1;
        }
    }
    checked
}

#[actix::test]
async fn every_version_of_every_aggregate_goes_on_from_its_snapshot() {
    let mut checked = [0; 3];
    for seed in 100..115 {
        let log = MemoryLog::new();
        Author::new(seed).write(&log, 200).await;
        let all = events(&log).await;
        checked[0] += every_version::<Operation>(&log, &all).await;
        checked[1] += every_version::<Agent>(&log, &all).await;
        checked[2] += every_version::<Lane>(&log, &all).await;
    }
    assert!(checked.iter().all(|checked| *checked > 50), "{checked:?}");
}

/// What the log that is stored for ever comes to, in the form of today, is stored beside it. A change of what
/// is kept, of how it is encoded or of what an event means for it gives another hash, and must raise the
/// form. Before the first release, `PHOTON_WRITE_SAMPLES=afresh` stores it again: see docs/TESTING.md.
#[actix::test]
async fn the_form_of_snapshots_is_what_its_number_says() {
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/logs/0001");
    let data = TempDir::new().unwrap();
    fs::create_dir(data.path().join("gen-000001")).unwrap();
    fs::copy(stored.join("journal"), data.path().join("gen-000001/journal")).unwrap();
    let standing = whole(&*open(data.path())).await;
    let mut hasher = blake3::Hasher::new();
    for part in parts(&standing) {
        hasher.update(&part);
    }
    let (today, path) = (format!("{FORM} {}\n", hasher.finalize().to_hex()), stored.join("kept"));
    if std::env::var("PHOTON_WRITE_SAMPLES").is_ok_and(|asked| asked == "afresh") {
        fs::write(&path, &today).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), today);
}

fn keeper(data: &Path) -> Arc<Keeper> {
    let policy = Policy { every_events: 1, stream_events: 1 };
    Keeper::new(FileStore::open(data.join("snapshots")).unwrap(), policy, || true)
}

fn open(data: &Path) -> Arc<dyn EventLog> {
    Arc::new(SledLog::open(data, Options::default()).unwrap())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn snapshots_of(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("snapshots")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// One random damage to the snapshots of a folder; `other` has those of another log.
fn damage(data: &Path, other: &Path, dice: &mut Dice) {
    let files = snapshots_of(data);
    let file = &files[dice.below(files.len() as u64) as usize];
    let mut bytes = fs::read(file).unwrap();
    let at = dice.below(bytes.len() as u64) as usize;
    match dice.below(7) {
        0 => fs::remove_file(file).unwrap(),
        1 => fs::write(file, &bytes[..at]).unwrap(),
        2 => {
            bytes[at] ^= 1 << dice.below(8);
            fs::write(file, bytes).unwrap();
        }
        3 => {
            let (first, last) = (fs::read(&files[0]).unwrap(), fs::read(&files[files.len() - 1]).unwrap());
            fs::write(&files[0], last).unwrap();
            fs::write(&files[files.len() - 1], first).unwrap();
        }
        4 => drop(fs::copy(&snapshots_of(other)[0], file).unwrap()),
        5 => {
            bytes.rotate_left(at);
            fs::write(file, bytes).unwrap();
        }
        _ => drop(fs::rename(file, data.join("snapshots/views-99999999999999999999.snapshot"))),
    }
}

#[actix::test]
async fn whatever_becomes_of_the_snapshots_a_start_comes_to_the_same() {
    let other = TempDir::new().unwrap();
    let log = open(other.path());
    Author::new(1).write(&*log, 120).await;
    keeper(other.path()).take(&log, Vec::new(), Timestamp::default()).await.unwrap();
    let (mut used, mut refused) = (0, 0);
    for seed in 200..212 {
        let (data, mut dice) = (TempDir::new().unwrap(), Dice(seed));
        let log = open(data.path());
        let mut author = Author::new(seed);
        for _ in 0..2 {
            author.write(&*log, 100).await;
            keeper(data.path()).take(&log, Vec::new(), Timestamp::default()).await.unwrap();
        }
        author.write(&*log, 30).await;
        let kept = data.path().join("kept");
        copy(&data.path().join("snapshots"), &kept);
        for _ in 0..12 {
            fs::remove_dir_all(data.path().join("snapshots")).unwrap();
            copy(&kept, &data.path().join("snapshots"));
            for _ in 0..=dice.below(3) {
                if !snapshots_of(data.path()).is_empty() {
                    damage(data.path(), other.path(), &mut dice);
                }
            }
            let standing = keeper(data.path()).newest(&log).await;
            if standing.past.events > 0 {
                used += 1;
            } else {
                refused += 1;
            }
            must_be_the_whole(&*log, standing).await;
        }
    }
    assert!(used > 20 && refused > 5, "{used} were used, {refused} were not");
}

/// Lets the first operation go.
struct First;

impl Retention for First {
    fn look(&mut self, _: &Recorded) {}

    fn choose(&mut self, _: i64) -> HashSet<StreamId> {
        HashSet::from([stream_of::<Operation>(&support::id(1))])
    }

    fn archive(&mut self, _: &Recorded) -> io::Result<()> {
        Ok(())
    }

    fn archived(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[actix::test]
async fn a_snapshot_from_before_something_left_the_log_is_not_used() {
    let data = TempDir::new().unwrap();
    let mut options = Options::default();
    options.generation_events_max = 50;
    let stored = Arc::new(SledLog::open(data.path(), options).unwrap());
    Author::new(400).write(&*stored, 400).await;
    let log: Arc<dyn EventLog> = Arc::clone(&stored) as Arc<dyn EventLog>;
    keeper(data.path()).take(&log, Vec::new(), Timestamp::default()).await.unwrap();
    assert!(keeper(data.path()).newest(&log).await.past.events > 0);
    stored.close().await.unwrap();
    drop((stored, log));
    assert_eq!(SledLog::compact(data.path(), 0, &mut First).unwrap().streams, 1);
    let log = open(data.path());
    let standing = keeper(data.path()).newest(&log).await;
    assert_eq!(standing.past.events, 0);
    must_be_the_whole(&*log, standing).await;
    assert!(whole(&*log).await.past.views.operations.find(&support::id(1)).is_none());
}

#[actix::test]
async fn a_snapshot_that_is_ahead_of_a_log_that_lost_its_end_is_not_used() {
    for seed in 300..306 {
        let (data, early) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let log = SledLog::open(data.path(), Options::default()).unwrap();
        let mut author = Author::new(seed);
        author.write(&log, 60).await;
        log.close().await.unwrap();
        drop(log);
        copy(data.path(), early.path());
        let log = open(data.path());
        author.write(&*log, 60).await;
        let taken = keeper(data.path()).take(&log, Vec::new(), Timestamp::default()).await.unwrap();
        // The log as it was before, with the snapshot from after: it ends behind the log, and later where
        // other events stand.
        copy(&data.path().join("snapshots"), &early.path().join("snapshots"));
        let lost = open(early.path());
        for moves in [0, 240] {
            Author::numbered_from(seed + 1, 1_000).write(&*lost, moves).await;
            let standing = keeper(early.path()).newest(&lost).await;
            assert_eq!(standing.past.events, 0, "seed {seed}");
            must_be_the_whole(&*lost, standing).await;
        }
        assert!(lost.head().await.unwrap() > taken.position);
        let verdicts = verify(&FileStore::look(early.path().join("snapshots")), &lost).await.unwrap();
        assert!(verdicts.iter().all(|one| matches!(one.verdict, Verdict::PassedOver(_))));
        // One more of this log takes its place.
        keeper(early.path()).take(&lost, Vec::new(), Timestamp::default()).await.unwrap();
        let standing = keeper(early.path()).newest(&lost).await;
        assert!(standing.past.events > 0);
        must_be_the_whole(&*lost, standing).await;
    }
}
