//! Owns where log lines go and how they look. It must never decide what is logged.

mod pace;

use std::any::Any;
use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thiserror::Error;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::LogFormat;
use crate::stderr::{self, Lines};
use pace::{HeldBack, Pace, Paced};

const OWN_CRATES: [&str; 6] = ["photon", "actors", "domain", "events", "platforms", "snapshots"];
/// The message of the line that says how many lines are missing.
const MISSING: &str = "log lines could not be written";
/// The message of the line that stands for lines of one kind.
const HELD_BACK: &str = "more lines of one kind were held back";
/// How often it is looked for such lines.
const HELD_BACK_AFTER: Duration = Duration::from_secs(1);

/// Why there is no log output.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The level is not one that can be read.
    #[error("log.level is not a level that can be used: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Something else writes log lines already.
    #[error("log output was started twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The system gives no thread for it.
    #[error("log output cannot be started: {0}")]
    Thread(io::Error),
}

/// Sends log lines to standard error from now on, and panics with them. A line that cannot be written is
/// counted and nothing else: see `src/stderr.rs`.
///
/// # Errors
/// When the level cannot be read, when it was called before, or when no thread can be started.
pub fn start(level: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(directives(level))?;
    let is_json = format == LogFormat::Json;
    let lines = stderr::queue(if is_json { missing_as_json } else { missing_as_text });
    let lines = lines.map_err(TelemetryError::Thread)?;
    // What goes wrong with a line must not be said on the way that just failed.
    let layer = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(|| lines.clone());
    let pace: &'static Pace = Box::leak(Box::default());
    let started = tracing_subscriber::registry().with(Paced(pace)).with(filter);
    match format {
        LogFormat::Text => started.with(layer.with_ansi(false)).try_init()?,
        LogFormat::Json => started.with(layer.json().flatten_event(true)).try_init()?,
    }
    let telling = std::thread::Builder::new().name("log pace".into());
    let telling = telling.spawn(move || tell_held_back(pace, lines, is_json));
    telling.map_err(TelemetryError::Thread)?;
    // The standard hook writes several plain lines, which would break a log that is read line by line.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, message_text = text_of(panic.payload()), "thread panicked");
    }));
    Ok(())
}

/// The level for Photon's own crates; libraries say no more than warnings, and nothing of each request that
/// is not HTTP, so that nobody can fill the log from outside. A library that is named in the level says what
/// is asked of it.
fn directives(level: &str) -> String {
    let (general, named): (Vec<&str>, Vec<&str>) =
        level.split(',').map(str::trim).partition(|part| !part.contains('='));
    let mut directives = Vec::new();
    for general in general {
        let is_less = ["off", "error"].iter().any(|less| general.eq_ignore_ascii_case(less));
        directives.push(if is_less { general.to_owned() } else { "warn".to_owned() });
        directives.extend(OWN_CRATES.map(|own| format!("{own}={general}")));
    }
    if !level.contains("actix_http") {
        directives.push("actix_http::h1::dispatcher=off".to_owned());
    }
    directives.extend(named.into_iter().map(str::to_owned));
    directives.join(",")
}

/// Tells of lines that were held back, as long as the process lives.
fn tell_held_back(pace: &Pace, lines: &Lines, is_json: bool) {
    loop {
        std::thread::sleep(HELD_BACK_AFTER);
        for HeldBack { level, target, message, count } in pace.take(Instant::now()) {
            let fields = [("count", json!(count)), ("of", json!(message))];
            let line = if is_json {
                as_json(level, target, HELD_BACK, &fields)
            } else {
                as_text(level, target, HELD_BACK, &fields)
            };
            lines.push(line.as_bytes());
        }
    }
}

/// A line as the other lines are in this format, without the way that those take.
fn as_text(level: Level, target: &str, message: &str, fields: &[(&str, Value)]) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{} {level:>5} {target}: {message}{fields}\n", now())
}

fn as_json(level: Level, target: &str, message: &str, fields: &[(&str, Value)]) -> String {
    let level = level.as_str();
    let mut line = json!({"timestamp": now(), "level": level, "message": message, "target": target});
    for (name, value) in fields {
        line[*name] = value.clone();
    }
    format!("{line}\n")
}

fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

fn missing_as_text(count: u64) -> String {
    as_text(Level::WARN, module_path!(), MISSING, &[("count", json!(count))])
}

fn missing_as_json(count: u64) -> String {
    as_json(Level::WARN, module_path!(), MISSING, &[("count", json!(count))])
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    let owned = || payload.downcast_ref::<String>().map(String::as_str);
    payload.downcast_ref::<&'static str>().copied().or_else(owned).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_cannot_be_read_is_refused() {
        assert!(matches!(start("a=b=c", LogFormat::Text), Err(TelemetryError::Level(_))));
    }

    #[test]
    fn libraries_say_warnings_only_unless_they_are_named() {
        let own = |level: &str| OWN_CRATES.map(|own| format!("{own}={level}")).join(",");
        let quiet = "actix_http::h1::dispatcher=off";
        assert_eq!(directives("info"), format!("warn,{},{quiet}", own("info")));
        assert_eq!(directives("OFF"), format!("OFF,{},{quiet}", own("OFF")));
        assert_eq!(directives("error, hyper=debug"), format!("error,{},{quiet},hyper=debug", own("error")));
        let named = "warn,actix_http=debug";
        assert_eq!(directives(named), format!("warn,{},actix_http=debug", own("warn")));
        assert!(EnvFilter::builder().parse(directives("debug,photon::http=trace")).is_ok());
    }

    #[test]
    fn lines_about_lines_look_like_the_others() {
        let line: Value = serde_json::from_str(&missing_as_json(3)).unwrap();
        assert_eq!((&line["level"], &line["count"]), (&json!("WARN"), &json!(3)));
        let line = missing_as_text(3);
        assert!(
            line.ends_with("  WARN photon::telemetry: log lines could not be written count=3\n"),
            "{line}"
        );
    }

    #[test]
    fn the_text_of_a_panic_is_found() {
        assert_eq!(text_of(&"plain"), "plain");
        assert_eq!(text_of(&String::from("made")), "made");
        assert_eq!(text_of(&5), "no text");
    }
}
