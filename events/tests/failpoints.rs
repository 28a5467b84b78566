//! Every call by which the log touches the disk fails once in every way, and the process or the machine dies
//! there: nothing acknowledged is lost, nothing refused is there, and no answer lies. The calls are not
//! listed anywhere: a first walk through a whole life of a log finds them, so a new one is among them by
//! itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use events::{AppendError, EventLog, OpenError, Options, Recorded, Refusal, Retention, SledLog, StreamId};

#[path = "lost_write/account.rs"]
mod account;
mod support;
use account::{Account, Loss};
use support::appender::{Ack, Dice, Judge, append, parse};
use support::tally::{Tally, asked, build_shim};

const FOLDER: &str = "EVENTS_WALKER_FOLDER";
const LANES: usize = 2;
/// The stream that goes in the compaction; its appends are not acknowledged to the judge.
const GOING: u64 = 6;

/// Not a test: the process in which a call fails. It ends itself, or is ended by the failing call.
#[test]
fn walker() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    println!();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Err(ended) = runtime.block_on(live(Path::new(&folder))) {
        println!("ended: {ended}");
    }
    // A panic of the test harness itself would be no wonder, with its disk failing.
    std::process::exit(0);
}

fn options() -> Options {
    let mut options = Options::default();
    (options.generation_bytes_max, options.idle_ms) = (3_000, 3_600_000);
    (options.disk_low_water_bytes, options.live_events_max) = (0, 1);
    options
}

/// A life with everything that the log does on a disk: made, appended to, sealed, closed, opened after a
/// clean end and after an unclean one, compacted.
async fn live(folder: &Path) -> Result<(), String> {
    let mut next = 0;
    for (appends, clean) in [(9, true), (4, false), (2, true)] {
        let options = options();
        let faults = options.faults.clone();
        let log = SledLog::open(folder, options).map_err(|error| format!("open: {error}"))?;
        for number in next..next + appends {
            offer(&log, number).await?;
        }
        next += appends;
        if !clean {
            faults.abandon();
        }
        log.close().await.map_err(|error| format!("close: {error}"))?;
    }
    match SledLog::compact(folder, 0, &mut Going) {
        Ok(_) => {}
        Err(OpenError::Corrupt(damage)) => println!("corrupt {damage}"),
        Err(error) => return Err(format!("compact: {error}")),
    }
    let log = SledLog::open(folder, options()).map_err(|error| format!("open: {error}"))?;
    offer(&log, next).await?;
    log.close().await.map_err(|error| format!("close: {error}"))
}

async fn offer(log: &SledLog, number: u64) -> Result<(), String> {
    match log.append(append(number)).await {
        Ok(head) if number % 7 != GOING => print!("{}", Ack::told(number, head)),
        Ok(_) => {}
        Err(AppendError::Refused { reason: Refusal::StorageFull }) => println!("refused {number}"),
        Err(AppendError::OutcomeUnknown) => {
            let more = log.append(append(number + 1_000)).await;
            println!("{} append after a failure", if more.is_ok() { "took" } else { "refused" });
            let _ = log.close().await;
            return Err("the outcome is unknown".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    }
    Ok(())
}

struct Going;

impl Retention for Going {
    fn look(&mut self, _: &Recorded) {}

    fn choose(&mut self, _: i64) -> HashSet<StreamId> {
        HashSet::from([append(GOING).stream])
    }

    fn archive(&mut self, _: &Recorded) -> io::Result<()> {
        Ok(())
    }

    fn archived(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What befalls a call, and then the disk.
const ACTIONS: [(&str, Option<Loss>); 13] = [
    ("die", None),
    ("die", Some(Loss::All)),
    ("die-after", None),
    ("die-after", Some(Loss::All)),
    ("die-after", Some(Loss::Random)),
    ("die-after", Some(Loss::Torn)),
    ("die-after", Some(Loss::Names)),
    ("short", None),
    ("eintr", None),
    ("eio", None),
    ("eio-always", None),
    ("enospc", None),
    ("enospc-always", None),
];

/// Whether a call of that kind can fail so.
fn can(kind: &str, action: &str) -> bool {
    match action {
        "short" => kind == "write",
        "eintr" => matches!(kind, "write" | "read"),
        "enospc" | "enospc-always" => {
            matches!(kind, "write" | "create" | "mkdir" | "rename" | "fdatasync" | "fsync")
        }
        // A power cut at a call that changes nothing is one at the call before.
        "die" | "die-after" => !matches!(kind, "read" | "open"),
        _ => true,
    }
}

/// Both libraries, the failing one first.
struct Instruments {
    _folder: tempfile::TempDir,
    preload: String,
}

impl Instruments {
    fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let library = |name: &str| build_shim(&tests.join(name), folder.path()).display().to_string();
        let preload = [library("failpoints/failpoints.c"), library("lost_write/lost_write.c")].join(":");
        Self { _folder: folder, preload }
    }

    /// Lives in a folder with a call that fails, and returns what was said.
    fn live(&self, folder: &Path, outside: &Path, site: &str, action: &str) -> String {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "walker", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder)
            .env("LD_PRELOAD", &self.preload)
            .envs([("LOST_WRITE_FOLDER", folder), ("FAILPOINT_FOLDER", folder)])
            .env("LOST_WRITE_ACCOUNT", account_in(outside))
            .env("FAILPOINT_TRACE", outside.join("trace"))
            .envs([("FAILPOINT_SITE", site), ("FAILPOINT_ACTION", action)])
            .stderr(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

fn account_in(outside: &Path) -> PathBuf {
    outside.join("account")
}

#[test]
fn a_journal_of_which_a_full_disk_takes_no_copy_is_synced_before_anything_is_written_behind_it() {
    let instruments = Instruments::build();
    let sites = sites(&instruments);
    let copies = sites.iter().find(|(sort, _)| sort.starts_with("create gen-/journal.new"));
    for site in copies.expect("a journal is copied").1 {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let said = instruments.live(inside.path(), outside.path(), site, "enospc");
        assert!(!said.contains("ended: "), "{said}");
        let trace = fs::read_to_string(outside.path().join("trace")).unwrap();
        let journal = format!(" {} ", site.split([' ', '.']).nth(1).unwrap());
        let mut behind = trace.lines().skip_while(|line| line != site).filter(|line| line.contains(&journal));
        let next = behind.find(|line| !line.starts_with("read ") && !line.starts_with("open "));
        assert!(next.is_some_and(|line| line.starts_with("fsync ")), "{site}: {next:?}");
    }
}

/// The calls that a whole life makes, in their order.
fn calls(instruments: &Instruments) -> Vec<String> {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let said = instruments.live(inside.path(), outside.path(), "", "");
    assert!(!said.contains("ended: "), "{said}");
    let trace = fs::read_to_string(outside.path().join("trace")).unwrap();
    trace.lines().map(str::to_owned).collect()
}

/// Those of one kind at one sort of path together: all generations are alike.
fn sites(instruments: &Instruments) -> BTreeMap<String, Vec<String>> {
    let mut sorts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for site in calls(instruments) {
        let sort = site.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        sorts.entry(sort).or_default().push(site);
    }
    sorts
}

/// So many of them, from the first to the last.
fn spread(sites: &[String], count: usize) -> Vec<&String> {
    let count = count.min(sites.len());
    (0..count).map(|at| &sites[at * (sites.len() - 1) / count.saturating_sub(1).max(1)]).collect()
}

/// Plays one failure; the error says what is wrong.
fn play(instruments: &Instruments, site: &str, action: &str, loss: Option<Loss>) -> Result<(), String> {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let said = instruments.live(inside.path(), outside.path(), site, action);
    let mut judge = Judge::default();
    judge.hear(said.lines().filter_map(parse).collect());
    let refused = said.lines().filter_map(|line| line.strip_prefix("refused ")?.parse().ok());
    refused.for_each(|number| judge.refuse(number));
    if said.contains("took append after a failure") {
        return Err(format!("an append was taken after one whose outcome is unknown: {said}"));
    }
    if said.contains("corrupt ") {
        return Err(format!("a failure is taken for damage: {said}"));
    }
    if let Some(loss) = loss {
        Account::read(&account_in(outside.path())).lose(inside.path(), loss, &mut Dice(site.len() as u64));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let compared = runtime.block_on(judge.compare(inside.path(), true));
    compared.map(|_| ()).map_err(|error| format!("{error}\n{said}"))
}

#[test]
fn a_full_disk_at_the_sync_behind_a_generations_name_does_not_part_the_log() {
    let instruments = Instruments::build();
    let calls = calls(&instruments);
    let is_name = |site: &str| site.starts_with("rename gen-") && !site.contains('/');
    let named: Vec<_> = (0..calls.len()).filter(|at| is_name(&calls[*at])).collect();
    assert!(named.len() > 2, "{named:?}");
    for at in named {
        let sync = calls[at..].iter().find(|site| site.starts_with("fsync . ")).unwrap();
        play(&instruments, sync, "enospc", None).unwrap_or_else(|error| panic!("{sync}: {error}"));
    }
}

#[test]
fn whatever_fails_wherever_nothing_acknowledged_is_lost_and_nothing_refused_is_there() {
    let instruments = Instruments::build();
    let sites = sites(&instruments);
    let kind = |site: &str| site.split(' ').next().unwrap().to_owned();
    let cases: Vec<_> = sites
        .values()
        .flat_map(|sites| spread(sites, asked(2, 20, 1_000) as usize))
        .flat_map(|site| ACTIONS.iter().map(move |(action, loss)| (site, *action, *loss)))
        .filter(|(site, action, _)| can(&kind(site), action))
        .collect();
    let what = "every sort of I/O call dies, is short, or fails once or for ever";
    let (next, all) = (AtomicUsize::new(0), cases.len());
    let tally = Tally::of("P3 P7 P8", what, all as u64);
    println!("{} sorts of calls, {all} cases", sites.len());
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(case) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|case| *case < all) {
                    let (site, action, loss) = cases[case];
                    match play(&instruments, site, action, loss) {
                        Ok(()) => tally.add(1),
                        Err(error) => {
                            let lost = if loss.is_some() { ", then a power cut" } else { "" };
                            failed.lock().unwrap().push(format!("{action} at {site}{lost}: {error}"));
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {all} cases: {}", failed.len(), failed.join("\n"));
}
