//! A disk that is really full (a small tmpfs): appends are refused, reads go on, also after a restart
//! while still full, and writing resumes once there is space (P7).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

mod support;

use events::conformance::{append, events_of, stream};
use events::{AppendError, EventLog, Expected, Options, Refusal, SledLog};
use support::tally::{Tally, asked};

const FOLDER: &str = "EVENTS_FULL_DISK";
/// Bytes that become free after each fill.
const FREED: u64 = 512 << 10;
const FULL: AppendError = AppendError::Refused { reason: Refusal::StorageFull };

#[test]
fn appends_are_refused_while_the_disk_is_full_and_reads_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let tally = Tally::of("P7", "24 MiB disk filled, restarted while full, freed", asked(20, 500, 5_000));
    // A mount that only this process tree sees, which needs no privileges where user namespaces are allowed.
    let script =
        "mount -t tmpfs -o size=24m tmpfs \"$1\" || exit 99; exec \"$2\" --exact on_a_small_disk --nocapture";
    let ran = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, "sh"])
        .args([folder.path(), &std::env::current_exe().unwrap()])
        .env(FOLDER, folder.path())
        .status();
    match ran.map(|status| status.code()) {
        Ok(Some(0)) => tally.add(tally.asked()),
        Ok(Some(1 | 99)) | Err(_) if !can_mount() => tally.skip("no user namespaces here"),
        other => panic!("{other:?}"),
    }
}

fn can_mount() -> bool {
    Command::new("unshare").args(["-Urm", "true"]).status().is_ok_and(|status| status.success())
}

/// Not a test: the process on the small disk.
#[tokio::test]
async fn on_a_small_disk() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let (ballast, data) = (folder.join("ballast"), folder.join("data"));
    let mut written = 0;
    for round in 0..asked(20, 500, 5_000) {
        if fs::metadata(&ballast).map_or(0, |about| about.len()) < FREED {
            _ = fs::remove_dir_all(&data);
            fs::write(&ballast, vec![1; 20 << 20]).unwrap();
            written = 0;
        }
        // Without the low-water mark the log runs into the wall; with it, it stops before.
        for low_water_bytes in [0, 200_000] {
            let log = open(&data, low_water_bytes);
            written += fill(&log, round * 1_000_000 + low_water_bytes).await;
            assert_eq!(events_of(&log, &stream("a")).await.len(), written);
            log.close().await.unwrap();
        }
        let log = open(&data, 0);
        let read = events_of(&log, &stream("a")).await.len();
        assert_eq!(read, written, "reads go on after a restart while full");
        let space = fs::metadata(&ballast).unwrap().len() - FREED;
        fs::File::options().write(true).open(&ballast).unwrap().set_len(space).unwrap();
        log.append(append(&stream("a"), Expected::Any, round * 1_000_000 + 999_999, 1)).await.unwrap();
        written += 1;
        log.close().await.unwrap();
    }
}

fn open(data: &Path, disk_low_water_bytes: u64) -> SledLog {
    let mut options = Options::default();
    (options.generation_bytes_max, options.disk_low_water_bytes) = (500_000, disk_low_water_bytes);
    SledLog::open(data, options).unwrap()
}

/// Appends until the disk is full; returns how many events were acknowledged.
async fn fill(log: &SledLog, first: u64) -> usize {
    let mut written = 0;
    loop {
        let mut append = append(&stream("a"), Expected::Any, first + written as u64, 1);
        append.events[0].body = vec![7; 5_000].into();
        match log.append(append).await {
            Ok(_) => written += 1,
            Err(error) => {
                assert_eq!(error, FULL);
                return written;
            }
        }
    }
}
