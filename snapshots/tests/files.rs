//! Snapshots in files: what was written comes back, and nothing else ever does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use events::{Position, StreamId};
use proptest::prelude::*;
use snapshots::{FileStore, Flaw, Hash, Stamp, Subject, VIEWS_MAX};
use tempfile::TempDir;

#[path = "../../tests/support/tally.rs"]
mod tally;
use tally::must_turn_red;

fn stamp(subject: Subject, position: u64) -> Stamp {
    let (end, origin) = ([1; 32], 2);
    Stamp {
        form: 1,
        subject,
        version: 0,
        position,
        events: position,
        time_us: 7,
        end,
        origin,
        taken_at_us: 9,
    }
}

fn take(store: &FileStore, stamp: &Stamp, pieces: &[Vec<u8>]) -> (Hash, u64) {
    let mut writer = store.begin(stamp).unwrap();
    pieces.iter().for_each(|piece| writer.piece(piece).unwrap());
    writer.finish().unwrap()
}

/// The newest of the views that is whole.
fn newest(store: &FileStore) -> Option<(Stamp, Vec<Vec<u8>>)> {
    let mut reader = store.views().unwrap().find_map(|found| found.opened.ok())?;
    let (mut pieces, mut piece) = (Vec::new(), Vec::new());
    while reader.piece(&mut piece).unwrap() {
        pieces.push(piece.clone());
    }
    Some((reader.stamp().clone(), pieces))
}

fn only_file(folder: &Path) -> PathBuf {
    fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn a_snapshot_comes_back_as_it_was_written_and_older_ones_go() {
    let folder = TempDir::new().unwrap();
    let store = FileStore::open(folder.path().join("snapshots")).unwrap();
    assert!(newest(&store).is_none());
    for position in 1..=5 {
        let stamp = stamp(Subject::Views, position);
        let pieces = vec![vec![1, 2], vec![u8::try_from(position).unwrap(); 700_000]];
        let (hash, bytes) = take(&store, &stamp, &pieces);
        store.tidy_views(Position::new(position));
        assert_eq!(newest(&store).unwrap(), (stamp, pieces));
        let found = store.views().unwrap().next().unwrap().opened.unwrap();
        assert_eq!((found.state(), found.bytes()), (hash, bytes));
    }
    assert_eq!(store.views().unwrap().count(), VIEWS_MAX);
    // One that reaches further than the newest can only be of another log.
    take(&store, &stamp(Subject::Views, 3), &[vec![3]]);
    store.tidy_views(Position::new(3));
    assert_eq!(newest(&store).unwrap().0.position, 3);
    assert_eq!(store.views().unwrap().count(), 1);
}

#[test]
fn one_that_was_not_finished_is_never_seen() {
    let folder = TempDir::new().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let mut writer = store.begin(&stamp(Subject::Views, 1)).unwrap();
    writer.piece(&[1]).unwrap();
    assert!(newest(&store).is_none());
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    fs::write(folder.path().join("views-00000000000000000009.new"), b"photonsn").unwrap();
    assert!(newest(&FileStore::open(folder.path()).unwrap()).is_none());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(store.begin(&stamp(Subject::Views, 1)).unwrap().piece(&[]).is_err());
}

#[test]
fn the_oldest_of_the_streams_go_first_also_after_the_store_was_opened_again() {
    let folder = TempDir::new().unwrap();
    let stream = |number: usize| StreamId::new("test", &number.to_string()).unwrap();
    let keep = |store: &FileStore, number: usize| {
        let subject = Subject::Stream(stream(number).as_str().to_owned());
        let (_, bytes) = take(store, &stamp(subject, 1), &[vec![7; 30 << 20]]);
        store.tidy_streams(&stream(number), bytes);
    };
    let store = FileStore::open(folder.path()).unwrap();
    keep(&store, 1);
    keep(&store, 2);
    let store = FileStore::open(folder.path()).unwrap();
    assert!(store.may_have(&stream(1)) && store.may_have(&stream(2)) && !store.may_have(&stream(3)));
    keep(&store, 3);
    assert!(!store.may_have(&stream(1)) && store.stream(&stream(1)).is_err());
    assert!(store.stream(&stream(2)).is_ok() && store.stream(&stream(3)).is_ok());
    store.remove_stream(&stream(2));
    assert!(matches!(store.stream(&stream(2)), Err(Flaw::Missing)) && !store.may_have(&stream(2)));
}

#[test]
fn the_snapshot_of_another_stream_is_not_given_out() {
    let folder = TempDir::new().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let [one, other] = ["one", "other"].map(|id| StreamId::new("test", id).unwrap());
    take(&store, &stamp(Subject::Stream(one.as_str().to_owned()), 1), &[vec![1]]);
    let first = only_file(folder.path());
    take(&store, &stamp(Subject::Stream(other.as_str().to_owned()), 1), &[vec![2]]);
    fs::copy(
        &first,
        fs::read_dir(folder.path())
            .unwrap()
            .find_map(|entry| {
                let path = entry.unwrap().path();
                (path != first).then_some(path)
            })
            .unwrap(),
    )
    .unwrap();
    assert!(store.stream(&one).is_ok());
    assert!(matches!(store.stream(&other), Err(Flaw::Damaged(_))));
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let folder = TempDir::new().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    take(&store, &stamp(Subject::Views, 1), &[vec![1, 2, 3], vec![4; 40]]);
    let path = only_file(folder.path());
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, damaged).unwrap();
        assert!(newest(&store).is_none(), "byte {at} is another, and nobody notices");
    }
}

#[test]
fn hashes_that_are_not_checked_turn_it_red() {
    must_turn_red("a_flipped_bit_is_found_wherever_it_is", "snapshot_hash_unchecked", &["nobody notices"]);
}

proptest! {
    #[test]
    fn no_damage_is_ever_taken_for_a_snapshot(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 0..20),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        damage in 0..4_u8,
    ) {
        let folder = TempDir::new().unwrap();
        let store = FileStore::open(folder.path()).unwrap();
        take(&store, &stamp(Subject::Views, 1), &pieces);
        let path = only_file(folder.path());
        let mut bytes = fs::read(&path).unwrap();
        let place = at.index(bytes.len());
        match damage {
            0 => bytes.truncate(place),
            1 => bytes.push(bit),
            2 => { bytes.remove(place); }
            _ => bytes[place] ^= 1 << bit,
        }
        fs::write(&path, &bytes).unwrap();
        prop_assert!(newest(&store).is_none());
    }
}
