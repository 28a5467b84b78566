//! Owns the server processes that are measured, apart from this one, so that their memory and their share of
//! the processor can be told from the client's. It must never leave one behind.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::fault::Fault;
use super::figures::rounded;
use super::wire::Wire;

/// The hidden flag that makes `photon bench` the bare server of the ceiling.
pub(super) const BARE: &str = "--bare-server";
/// Longest wait until a server is ready, or has ended.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at whether it is ready; the error of the restart's figure.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Linux counts processor time in hundredths for user space, whatever the kernel's own clock is.
const TICKS_PER_SECOND: f64 = 100.0;
/// What a server says on its standard error.
const TALK: &str = "server.log";

/// Processor time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cpu(u64);

impl Cpu {
    /// Of this process so far.
    pub(super) fn of_this() -> Self {
        Self::read("self")
    }

    /// Of everything that ran on this machine, and what a host took from it.
    pub(super) fn of_machine() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let all = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
        // user, nice, system, idle, iowait, irq, softirq, steal: all but the two that are rest.
        let busy = all.enumerate().filter(|(index, _)| !matches!(index, 3 | 4));
        Self(busy.filter_map(|(_, field)| field.parse::<u64>().ok()).sum())
    }

    /// In seconds of one core.
    pub(super) fn seconds(self) -> f64 {
        self.0 as f64 / TICKS_PER_SECOND
    }

    /// What was spent since.
    pub(super) fn since(self, before: Self) -> Self {
        Self(self.0.saturating_sub(before.0))
    }

    fn read(process: &str) -> Self {
        Self::in_stat(&fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default())
    }

    fn in_stat(stat: &str) -> Self {
        // The name may hold spaces; after its bracket come state (3), …, utime (14) and stime (15).
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        Self(fields.filter_map(|field| field.parse::<u64>().ok()).sum())
    }
}

/// Resident memory.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    /// Now, in MiB.
    pub(super) rss_mib: f64,
    /// At most so far, in MiB.
    pub(super) peak_mib: f64,
}

/// A server process of our own.
pub(super) struct Process {
    child: Child,
    pid: u32,
    address: SocketAddr,
}

impl Process {
    /// Starts `photon serve` on a folder; also says how long it took until it was ready.
    pub(super) async fn serve(folder: &Path) -> Result<(Self, Duration), Fault> {
        let address = free_address()?;
        let talk = File::create(folder.join(TALK))?;
        let begun = Instant::now();
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .env("PHOTON_HOST", address.ip().to_string())
            .env("PHOTON_PORT", address.port().to_string())
            .env("PHOTON_DATA_DIR", folder.join("data"))
            .env("PHOTON_LOG_LEVEL", "warn")
            .env_remove("PHOTON_CONFIG")
            // Away from any config.toml: the defaults are measured.
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(talk)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().unwrap_or_default();
        let mut process = Self { child, pid, address };
        while !is_ready(address).await {
            if let Some(status) = process.child.try_wait()? {
                let talk = fs::read_to_string(folder.join(TALK)).unwrap_or_default();
                return Err(Fault::Process(format!("the server ended with {status}: {}", talk.trim())));
            }
            if begun.elapsed() > PATIENCE {
                return Err(Fault::Stuck("the server did not become ready"));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok((process, begun.elapsed()))
    }

    /// Starts the bare server of a measurement, which ends when its standard input does.
    pub(super) async fn bare(measurement: &[&str]) -> Result<Self, Fault> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("bench")
            .args(measurement)
            .arg(BARE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().unwrap_or_default();
        let silent = || Fault::Process("the bare server said no address".into());
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(silent)?).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.map_err(|_| silent())??;
        let address = line.and_then(|line| line.trim().parse().ok()).ok_or_else(silent)?;
        Ok(Self { child, pid, address })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its processor time so far.
    pub(super) fn cpu(&self) -> Cpu {
        Cpu::read(&self.pid.to_string())
    }

    /// The processor time of its threads so far, by name; those whose names differ in numbers only count as
    /// one.
    pub(super) fn threads(&self) -> BTreeMap<String, Cpu> {
        let mut threads: BTreeMap<String, Cpu> = BTreeMap::new();
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid));
        for task in tasks.into_iter().flatten().flatten() {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).map(|(name, _)| name);
            let plain: String =
                name.unwrap_or_default().chars().filter(|letter| !letter.is_ascii_digit()).collect();
            threads.entry(plain).or_default().0 += Cpu::in_stat(&stat).0;
        }
        threads
    }

    /// Its memory now.
    pub(super) fn memory(&self) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(rounded(kib / 1024.0, 1))
        };
        Some(Memory { rss_mib: mib("VmRSS:")?, peak_mib: mib("VmHWM:")? })
    }

    /// Asks it to stop, and waits for its end.
    pub(super) async fn stop(mut self) -> Result<(), Fault> {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .map_err(std::io::Error::from)?;
        }
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(ended) => Ok(ended.map(drop)?),
            Err(_) => Err(Fault::Stuck("the server did not stop")),
        }
    }

    /// Ends it without a chance to clean up.
    pub(super) async fn kill(mut self) -> Result<(), Fault> {
        Ok(self.child.kill().await?)
    }
}

/// A port that nobody listens on now.
fn free_address() -> Result<SocketAddr, Fault> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

async fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut wire) = Wire::open(address).await else { return false };
    let request = wire.plain("GET", "/health/ready");
    wire.exchange(&request, 200).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_of_this_process_can_be_read_and_grows() {
        let before = Cpu::of_this();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        assert!(Cpu::of_this().since(before).seconds() > 0.0);
    }
}
