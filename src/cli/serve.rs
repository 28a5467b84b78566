//! `photon serve`: the server in the foreground, until a signal or a failure.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt;

use super::exit::{Complaint, Exit};
use super::output;
use super::settings_flags::SettingsFlags;
use super::signals::Signals;
use crate::app::{Server, StartError};
use crate::settings::{LogFormat, Settings};
use crate::{processes, stderr, telemetry};

/// How often it is looked for orphans that have ended.
const ORPHANS_EVERY: Duration = Duration::from_millis(500);

/// What the help says about the disk: where people look before it is full.
const DISK_HELP: &str = "Disk: the data folder may grow to limits.max_disk_bytes (1073741824 by default), \
with archive/ and snapshots/; then changes are answered with 507, and reading goes on. Set it in \
config.toml; retention.keep_ended_ms removes what ended long ago.";

/// How to serve.
#[derive(Debug, Args)]
#[command(after_help = DISK_HELP)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    flags: SettingsFlags,
    /// Shows what is whole of a damaged log, read-only: every change is answered with 503
    #[arg(long)]
    quarantine: bool,
}

pub(super) async fn run(arguments: &ServeArgs) -> Result<Exit, Complaint> {
    let settings = arguments.flags.load()?;
    detach()?;
    start_log(&settings)?;
    prefer_small_pages();
    allow_descriptors();
    for warning in settings.warnings() {
        tracing::warn!(warning, "configuration is odd");
    }
    let mut signals = watched()?;
    let server = tokio::select! {
        started = start(&settings, arguments.quarantine) => started.map_err(|fault| refused_start(&fault))?,
        exit = signals.next() => return Ok(exit),
    };
    if settings.pools.is_empty() {
        actix_web::rt::spawn(bury_orphans());
    }
    // Where nobody looks on, the log says it already.
    if std::io::stderr().is_terminal() && settings.log.format == LogFormat::Text {
        let address = server.address();
        output::say(&format!(
            "Photon listens on http://{address}; its API is shown at http://{address}/docs."
        ));
    }
    let exit = tokio::select! {
        exit = signals.next() => exit,
        exit = server.failed() => exit,
    };
    // Whoever asks twice does not want to wait for requests to finish.
    tokio::select! {
        stopped = server.stop() => Ok(stopped.err().unwrap_or(exit)),
        _ = signals.next() => Ok(if exit == Exit::DONE { Exit::INTERRUPTED } else { exit }),
    }
}

/// Clears away the orphans of a container whose first process this is. Where there are pools, those do it.
async fn bury_orphans() {
    while processes::is_first() {
        processes::bury(&HashSet::new());
        tokio::time::sleep(ORPHANS_EVERY).await;
    }
}

async fn start(settings: &Settings, quarantine: bool) -> Result<Server, StartError> {
    let starting = async {
        if quarantine { Server::start_read_only(settings).await } else { Server::start(settings).await }
    };
    // Without a thread or memory for it, what is started panics, and its hook has said why.
    let started = AssertUnwindSafe(starting).catch_unwind().await;
    started.unwrap_or_else(|_| Err(StartError::Bug("a part of the server did not start".into())))
}

/// What the server holds are millions of small pieces that come and go: of large pages, which the system
/// clears and keeps as a whole, up to a third stayed empty: see docs/MEASUREMENTS.md.
fn prefer_small_pages() {
    // Without it everything works as well; only Linux knows it.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Every socket is a descriptor, of which most systems allow a process 1024 until it asks for more.
pub(super) fn allow_descriptors() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let most = getrlimit(Resource::Nofile).maximum;
        // Where it is refused, as many as before are allowed.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    }
}

/// The signals, or why they cannot be watched.
pub(super) fn watched() -> Result<Signals, Complaint> {
    let refused = |cause| Complaint::new(Exit::FAILED, format!("Signals cannot be received: {cause}."));
    Signals::watch().map_err(refused)
}

/// Lets nothing that this process says wait for who reads it.
pub(super) fn detach() -> Result<(), Complaint> {
    let refused = |cause| Complaint::new(Exit::FAILED, format!("No thread can be started: {cause}."));
    stderr::detach().map_err(refused)
}

/// Begins to write log lines.
pub(super) fn start_log(settings: &Settings) -> Result<(), Complaint> {
    let started = telemetry::start(&settings.log.level, settings.log.format);
    started.map_err(|fault| Complaint::new(Exit::CONFIGURATION, sentence(&fault.to_string())))
}

/// Why there is no server.
pub(super) fn refused_start(fault: &StartError) -> Complaint {
    Complaint::new(fault.exit(), sentence(&fault.to_string()))
}

/// An error's text as a sentence.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}
