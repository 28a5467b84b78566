//! A disk that is really full (a small tmpfs): appends are refused, reads go on, also after a restart
//! while still full, and writing resumes once there is space (P7).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

use events::conformance::{append, events_of, stream};
use events::{AppendError, EventLog, Expected, Options, Refusal, SledLog};

const FOLDER: &str = "EVENTS_FULL_DISK";
const FULL: AppendError = AppendError::Refused { reason: Refusal::StorageFull };

#[test]
fn appends_are_refused_while_the_disk_is_full_and_reads_go_on() {
    let folder = tempfile::tempdir().unwrap();
    // A mount that only this process tree sees, which needs no privileges where user namespaces are allowed.
    let script =
        "mount -t tmpfs -o size=8m tmpfs \"$1\" || exit 99; exec \"$2\" --exact on_a_small_disk --nocapture";
    let ran = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, "sh"])
        .args([folder.path(), &std::env::current_exe().unwrap()])
        .env(FOLDER, folder.path())
        .status();
    match ran.map(|status| status.code()) {
        Ok(Some(0)) => {}
        Ok(Some(1 | 99)) | Err(_) if !can_mount() => eprintln!("skipped: no user namespaces here"),
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
    fs::write(&ballast, vec![1; 4 << 20]).unwrap();
    let mut written = 0;
    for round in 0..4 {
        // Without the low-water mark the log runs into the wall; with it, it stops before.
        for low_water_bytes in [0, 200_000] {
            let log = open(&data, low_water_bytes);
            written += fill(&log, round * 1_000_000 + low_water_bytes).await;
            assert_eq!(events_of(&log, &stream("a")).await.len(), written);
            log.close().await.unwrap();
        }
        let log = open(&data, 0);
        assert_eq!(
            events_of(&log, &stream("a")).await.len(),
            written,
            "reads go on after a restart while full"
        );
        let space = fs::metadata(&ballast).unwrap().len().saturating_sub(1 << 20);
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
