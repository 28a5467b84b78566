//! Owns where log lines go and how they look. It must never decide what is logged.

use std::any::Any;
use std::io;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::LogFormat;

/// Why there is no log output.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The level is not one that can be read.
    #[error("log.level is not a level that can be used: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Something else writes log lines already.
    #[error("log output was started twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends log lines to standard error from now on, and panics with them.
///
/// # Errors
/// When the level cannot be read, or when it was called before.
pub fn start(level: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(with_quiet_parser(level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    // The standard hook writes several plain lines, which would break a log that is read line by line.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, message_text = text_of(panic.payload()), "thread panicked");
    }));
    Ok(())
}

/// Actix logs an error for each request that is not HTTP, so that anyone could fill the log. Who wants those
/// lines names `actix_http` in the level.
fn with_quiet_parser(level: &str) -> String {
    if level.contains("actix_http") {
        return level.to_owned();
    }
    format!("{level},actix_http::h1::dispatcher=off")
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
    fn the_parser_of_requests_is_quiet_unless_it_is_named() {
        assert_eq!(with_quiet_parser("info"), "info,actix_http::h1::dispatcher=off");
        assert_eq!(with_quiet_parser("warn,actix_http=debug"), "warn,actix_http=debug");
        assert!(EnvFilter::builder().parse(with_quiet_parser("info")).is_ok());
    }

    #[test]
    fn the_text_of_a_panic_is_found() {
        assert_eq!(text_of(&"plain"), "plain");
        assert_eq!(text_of(&String::from("made")), "made");
        assert_eq!(text_of(&5), "no text");
    }
}
