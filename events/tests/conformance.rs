//! The suite on the stored log: as it is by default, and with everything so small that each case crosses
//! from the ring to history and from one generation to the next.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use events::conformance::{Subject, append, events_after, events_of, stream};
use events::{BoxFuture, EventLog, Expected, Faults, Options, Position, SledLog, Version};
use tempfile::TempDir;

mod support;
use support::flip_stored_byte;
use support::tally::must_turn_red;

struct Stored {
    folder: TempDir,
    small: bool,
    faults: Faults,
    log: Option<Arc<SledLog>>,
}

impl Stored {
    fn new(small: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut stored = Self { folder, small, faults: Faults::default(), log: None };
        stored.open().unwrap();
        stored
    }

    fn open(&mut self) -> Result<(), String> {
        let mut options = Options::default();
        if self.small {
            options.generation_bytes_max = 20_000;
            (options.live_events_max, options.live_bytes_max, options.idle_ms) = (7, 2_000, 1);
        }
        self.faults = options.faults.clone();
        let opened = SledLog::open(self.folder.path(), options).map_err(|error| error.to_string());
        self.log = Some(Arc::new(opened?));
        Ok(())
    }

    fn generation(&self, number: u32) -> PathBuf {
        self.folder.path().join(format!("gen-{number:06}"))
    }

    fn newest(&self) -> u32 {
        (1..).find(|number| !self.generation(number + 1).exists()).unwrap()
    }
}

impl Subject for Stored {
    fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone().unwrap()
    }

    fn reopen(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            if let Some(log) = self.log.take() {
                self.faults.abandon();
                // A log that has failed says so; it is closed all the same.
                let _ = log.close().await;
            }
            self.open()
        })
    }

    fn reopen_read_only(&mut self) -> bool {
        let log = SledLog::open_read_only(self.folder.path(), &Options::default()).unwrap();
        assert!(log.damage().is_some());
        self.log = Some(Arc::new(log));
        true
    }

    fn stall(&self, on: bool) -> bool {
        self.faults.set_stalled(on);
        true
    }

    fn fail_next_sync(&self) -> bool {
        self.faults.fail_next_sync();
        true
    }

    fn damage(&self, position: Position) -> bool {
        // The bodies of the suite count from 0 in steps of ten.
        let body = format!("body of event {}", (position.get() - 1) * 10);
        flip_stored_byte(self.folder.path(), body.as_bytes())
    }
}

mod by_default {
    events::conformance_tests!(|| super::Stored::new(false));
}

mod with_everything_small {
    events::conformance_tests!(|| super::Stored::new(true));
}

#[test]
fn a_tail_that_resumes_one_too_late_turns_it_red() {
    let test = "with_everything_small::a_tail_neither_loses_nor_repeats";
    must_turn_red(test, "resume_off_by_one", &["from 1: "]);
}

#[test]
fn a_queue_without_a_bound_turns_it_red() {
    must_turn_red("by_default::a_full_queue_refuses_at_once", "buffer_unbounded", &["the queue has no end"]);
}

#[tokio::test]
async fn old_generations_stay_readable_and_hold_only_their_journal() {
    let mut stored = Stored::new(true);
    for n in 0..1000 {
        let stream = stream(["a", "b", "c"][n as usize % 3]);
        stored.log().append(append(&stream, Expected::Any, n * 10, 1)).await.unwrap();
    }
    for clean in [false, true, true] {
        if clean {
            let log = stored.log.take().unwrap();
            log.close().await.unwrap();
            assert!(stored.generation(stored.newest()).join("clean").exists());
            stored.open().unwrap();
        } else {
            stored.reopen().await.unwrap();
        }
        let log = stored.log();
        assert_eq!(events_of(&*log, &stream("a")).await.len(), 334);
        assert_eq!(events_after(&*log, Position::START, 1000).await.len(), 1000);
        assert_eq!(log.head().await.unwrap(), Position::new(1000));
        // How many there are depends on how often the writer was idle in between.
        let newest = stored.newest();
        assert!(newest > 5, "{newest}");
        let sled_folders: Vec<u32> =
            (1..=newest).filter(|n| stored.generation(*n).join("sled").exists()).collect();
        assert_eq!(sled_folders, [newest]);
    }
    let head = stored.log().append(append(&stream("a"), Expected::Exact(Version::new(334)), 99_999, 1)).await;
    assert_eq!(head.unwrap().position, Position::new(1001));
}
