//! Audits of hand-damaged logs: every kind of damage is found, with the right position; and what is whole
//! before it can be read, without a byte on the disk being changed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use events::conformance::{append, events_after, events_of, stream};
use events::dice::Dice;
use events::{
    AppendError, Audit, Damage, EventLog, Expected, OpenError, Options, Position, ReadError, Refusal, SledLog,
};
use futures_util::StreamExt;
use tempfile::TempDir;

mod support;
use support::tally::{Tally, asked, must_turn_red};
use support::{find, journals};

const EVENTS: u64 = 240;
const COMMIT: u64 = 4;
/// What stands before the body of an event of the suite: header, `test/a`, `test.happened`, `{}`.
const BEFORE_BODY: usize = 66 + 6 + 13 + 2;

/// A closed log of 60 commits of four events in several generations.
async fn log() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    (options.generation_bytes_max, options.idle_ms) = (8_000, 3_600_000);
    let log = SledLog::open(folder.path(), options).unwrap();
    for n in 0..EVENTS / COMMIT {
        log.append(append(&stream("a"), Expected::Any, n * COMMIT, COMMIT)).await.unwrap();
    }
    log.close().await.unwrap();
    assert!(journals(folder.path()).len() >= 4);
    folder
}

fn audit(folder: &Path) -> Result<Audit, OpenError> {
    SledLog::audit(folder, &mut |_| Ok(()))
}

/// Where things are in a journal.
struct Map {
    journal: PathBuf,
    bytes: Vec<u8>,
    /// The records, with the last position before the first of them.
    records: Vec<Range<usize>>,
    after: u64,
}

impl Map {
    fn all(folder: &Path) -> Vec<Self> {
        let mut maps: Vec<Self> = Vec::new();
        for journal in journals(folder) {
            let after = maps.last().map_or(0, Self::last);
            maps.push(Self { bytes: fs::read(&journal).unwrap(), journal, records: Vec::new(), after });
            let map = maps.last_mut().unwrap();
            while let Some((_, at)) = find_in(&map.bytes, map.after + map.records.len() as u64) {
                map.records.push(at);
            }
        }
        assert_eq!(maps.last().unwrap().last(), EVENTS);
        maps
    }

    fn last(&self) -> u64 {
        self.after + self.records.len() as u64
    }

    /// The position whose record a byte belongs to; that of the next record for a byte of a header.
    fn position(&self, byte: usize) -> u64 {
        self.after + self.records.partition_point(|record| record.end <= byte) as u64 + 1
    }

    /// The first position of the commit that holds a position.
    fn commit(&self, position: u64) -> u64 {
        (position - 1) / COMMIT * COMMIT + 1
    }

    fn write(&self, bytes: &[u8]) {
        fs::write(&self.journal, bytes).unwrap();
    }
}

/// Where the record of the event with that number is.
fn find_in(bytes: &[u8], number: u64) -> Option<(u64, Range<usize>)> {
    let body = format!("body of event {number}");
    let at = bytes.windows(body.len()).enumerate().find(|(at, window)| {
        *window == body.as_bytes() && !bytes.get(at + body.len()).is_some_and(u8::is_ascii_digit)
    })?;
    Some((number, at.0 - BEFORE_BODY..at.0 + body.len()))
}

/// Damages a journal; says the first position that cannot be trusted, or none if there is no such place.
type Mutation = fn(&Map, &mut Dice) -> (Vec<u8>, u64);

const MUTATIONS: [(&str, Mutation); 7] = [
    ("a flipped bit", |map, dice| {
        let (at, mut bytes) = (dice.index(map.bytes.len()), map.bytes.clone());
        bytes[at] ^= 1 << dice.below(8);
        (bytes, map.position(at))
    }),
    ("a changed byte", |map, dice| {
        let (at, mut bytes) = (dice.index(map.bytes.len()), map.bytes.clone());
        bytes[at] = bytes[at].wrapping_add(1 + dice.below(255) as u8);
        (bytes, map.position(at))
    }),
    ("a zeroed sector", |map, dice| {
        let (at, mut bytes) = (dice.index(map.bytes.len() / 512) * 512, map.bytes.clone());
        bytes[at..at + 512].fill(0);
        (bytes, map.position(at))
    }),
    ("two swapped records", |map, dice| {
        let first = dice.index(map.records.len() / COMMIT as usize) * COMMIT as usize + dice.index(3);
        let [one, other] = [map.records[first].clone(), map.records[first + 1].clone()];
        let bytes = &map.bytes;
        let swapped = [&bytes[..one.start], &bytes[other.clone()], &bytes[one.clone()], &bytes[other.end..]];
        (swapped.concat(), map.after + first as u64 + 1)
    }),
    ("a missing record", |map, dice| {
        let missing = dice.index(map.records.len());
        let Range { start, end } = map.records[missing];
        let bytes = [&map.bytes[..start], &map.bytes[end..]].concat();
        (bytes, map.after + missing as u64 + 1)
    }),
    ("a missing commit", |map, dice| {
        let first = dice.index(map.records.len() / COMMIT as usize) * COMMIT as usize;
        let (start, end) = (map.records[first].start - 72, map.records[first + COMMIT as usize - 1].end);
        let bytes = [&map.bytes[..start], &map.bytes[end..]].concat();
        (bytes, map.after + first as u64 + 1)
    }),
    ("a truncated journal", |map, dice| {
        let len = dice.index(map.bytes.len());
        (map.bytes[..len].to_vec(), map.position(len))
    }),
];

#[tokio::test]
async fn every_kind_of_damage_is_found_with_the_right_position_and_what_is_before_it_can_be_read() {
    let folder = log().await;
    let maps = Map::all(folder.path());
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let what = "bits, bytes, sectors, records and commits damaged, moved or missing";
    let tally = Tally::of("P8", what, asked(1_000, 50_000, 500_000));
    for round in 0.. {
        if tally.is_done() {
            break;
        }
        for (kind, mutate) in MUTATIONS {
            let map = &maps[dice.index(maps.len())];
            let (bytes, position) = mutate(map, &mut dice);
            if bytes == map.bytes {
                continue;
            }
            map.write(&bytes);
            let found = match audit(folder.path()) {
                Err(OpenError::Corrupt(damage)) => damage,
                other => panic!("{kind} in round {round} was not found: {other:?}"),
            };
            assert_eq!(found.position, Position::new(position), "{kind} in round {round}: {found}");
            check_what_is_whole(folder.path(), found, map.commit(position) - 1).await;
            assert!(fs::read(&map.journal).unwrap() == bytes, "the journal was changed");
            map.write(&map.bytes);
            tally.add(1);
        }
    }
    assert_eq!(audit(folder.path()).unwrap().events, EVENTS);
}

#[test]
fn a_log_that_takes_damage_for_a_torn_tail_turns_it_red() {
    let test = "every_kind_of_damage_is_found_with_the_right_position_and_what_is_before_it_can_be_read";
    // Or the position is another: what a clean close has noted as durable is missed all the same.
    must_turn_red(test, "torn_tail_rule_reversed", &["was not found", "durable frames are missing"]);
}

async fn check_what_is_whole(folder: &Path, damage: Damage, events: u64) {
    let log = SledLog::open_read_only(folder, &Options::default()).unwrap();
    assert_eq!(log.damage(), Some(damage));
    assert_eq!(log.head().await.unwrap(), Position::new(events));
    assert_eq!(events_of(&log, &stream("a")).await.len() as u64, events);
    let refused = log.append(append(&stream("b"), Expected::Any, 9_000, 1)).await;
    assert_eq!(refused, Err(AppendError::Refused { reason: Refusal::ReadOnly }));
    let tail = events_after(&log, Position::START, events as usize).await;
    assert!(tail.iter().map(|event| event.position.get()).eq(1..=events));
    assert_eq!(log.page(Position::new(events), 1_000).await.unwrap(), []);
    log.close().await.unwrap();
    let end: Vec<_> = log.tail(Position::new(events)).collect().await;
    assert!(matches!(end.as_slice(), [Err(ReadError::Closed)]), "{end:?}");
}

#[tokio::test]
async fn a_missing_or_moved_generation_is_named() {
    let folder = log().await;
    let maps = Map::all(folder.path());
    let generation = |number: usize| folder.path().join(format!("gen-{number:06}"));
    for number in 1..maps.len() {
        let aside = folder.path().join("aside");
        fs::rename(generation(number), &aside).unwrap();
        let after = maps[number - 1].after;
        let found = damage(folder.path());
        assert_eq!((found.generation, found.position), (number as u64, Position::new(after + 1)));
        check_what_is_whole(folder.path(), found, after).await;
        fs::rename(&aside, generation(number)).unwrap();
    }
    maps[0].write(&maps[1].bytes);
    maps[1].write(&maps[0].bytes);
    assert_eq!(damage(folder.path()).position, Position::new(1), "two generations changed places");
}

fn damage(folder: &Path) -> Damage {
    match audit(folder) {
        Err(OpenError::Corrupt(damage)) => damage,
        other => panic!("not found: {other:?}"),
    }
}

#[tokio::test]
async fn an_audit_counts_everything_and_names_the_head_of_the_chain() {
    let folder = log().await;
    let mut seen = Vec::new();
    let found = SledLog::audit(folder.path(), &mut |event| {
        seen.push(event.position.get());
        Ok(())
    });
    let found = found.unwrap();
    assert!(seen.into_iter().eq(1..=EVENTS));
    let Audit { generations, events, streams, first, last, torn_bytes, .. } = found;
    assert_eq!((events, streams, torn_bytes), (EVENTS, 1, 0));
    assert_eq!(
        (generations, first, last),
        (journals(folder.path()).len() as u64, Position::new(1), Position::new(EVENTS))
    );
    assert_eq!(audit(folder.path()).unwrap().head, found.head, "looking changes nothing");
    let log = SledLog::open(folder.path(), Options::default()).unwrap();
    assert!(matches!(audit(folder.path()), Err(OpenError::Locked)));
    log.append(append(&stream("a"), Expected::Any, 9_000, 1)).await.unwrap();
    log.close().await.unwrap();
    assert_ne!(audit(folder.path()).unwrap().head, found.head);
}

#[tokio::test]
async fn an_audit_takes_the_callers_word_for_a_bad_event() {
    let folder = log().await;
    let refuse = |event: &events::Recorded| {
        if event.position == Position::new(99) { Err("nobody understands it") } else { Ok(()) }
    };
    let found = match SledLog::audit(folder.path(), &mut { refuse }) {
        Err(OpenError::Corrupt(damage)) => damage,
        other => panic!("{other:?}"),
    };
    assert_eq!((found.position, found.what), (Position::new(99), "nobody understands it"));
    let (journal, body) = find(folder.path(), b"body of event 98").unwrap();
    assert!(journal.to_string_lossy().contains(&format!("gen-{:06}", found.generation)));
    assert_eq!(found.offset as usize, body - BEFORE_BODY);
}

#[tokio::test]
async fn a_torn_tail_is_no_damage_to_an_audit_and_stays_where_it_is() {
    let folder = log().await;
    let newest = journals(folder.path()).pop().unwrap();
    fs::remove_file(newest.with_file_name("clean")).unwrap();
    let torn = [fs::read(&newest).unwrap(), b"half a frame".to_vec()].concat();
    fs::write(&newest, &torn).unwrap();
    let found = audit(folder.path()).unwrap();
    assert_eq!((found.events, found.torn_bytes), (EVENTS, 12));
    let log = SledLog::open_read_only(folder.path(), &Options::default()).unwrap();
    assert_eq!((log.damage(), log.head().await.unwrap()), (None, Position::new(EVENTS)));
    drop(log);
    assert!(fs::read(&newest).unwrap() == torn);
    assert_eq!(audit(folder.path()).unwrap(), found);
}

#[test]
fn an_audit_of_nothing_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(audit(folder.path()).unwrap().events, 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(matches!(audit(&folder.path().join("missing")), Err(OpenError::Io(_))));
}
