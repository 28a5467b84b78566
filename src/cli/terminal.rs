//! Owns what is known about the terminal: whether there is one, and which of its arts may be used.

use std::io::{IsTerminal, stderr, stdout};
use std::time::Duration;

use domain::Timestamp;

/// Whether text may be bold and coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    coloured: bool,
    /// Whether lines may be drawn over.
    pub(super) live: bool,
    /// Whether block characters can be shown.
    pub(super) blocks: bool,
}

impl Style {
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self { coloured: false, live: false, blocks: false };

    pub(super) fn of_stdout() -> Self {
        Self::of(stdout().is_terminal(), |name| std::env::var(name).ok())
    }

    pub(super) fn of_stderr() -> Self {
        Self::of(stderr().is_terminal(), |name| std::env::var(name).ok())
    }

    fn of(is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let live = is_terminal && given("TERM").is_some_and(|term| term != "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| given(name));
        let blocks = locale.is_some_and(|locale| locale.to_lowercase().replace('-', "").contains("utf8"));
        Self { coloured: live && given("NO_COLOR").is_none(), live, blocks }
    }

    fn painted(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.painted("1", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.painted("2", text)
    }

    /// In the colour of a status.
    pub(super) fn status(self, status: &str, text: &str) -> String {
        match status {
            "completed" | "active" => self.painted("32", text),
            "failed" | "error" | "cancelled" => self.painted("31", text),
            "running" | "reserved" | "in_progress" | "busy" => self.painted("36", text),
            "backing_off" => self.painted("33", text),
            _ => self.faint(text),
        }
    }
}

/// Text without characters that steer a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// "1 event", "2 events".
pub(super) fn counted(count: impl Into<u64>, noun: &str) -> String {
    let count = count.into();
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// "0.4 s", "2 min 5 s", "3 h 10 min".
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{}.{} s", seconds, span.subsec_millis() / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// From one moment to a later one.
pub(super) fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::from_millis(later.ms_since(earlier))
}

/// This moment by the clock of this machine.
pub(super) fn now() -> Timestamp {
    Timestamp::from_micros(chrono::Utc::now().timestamp_micros())
}

/// "3 min 2 s ago".
pub(super) fn ago(moment: Timestamp) -> String {
    format!("{} ago", span(between(moment, now())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(is_terminal: bool, variables: &[(&str, &str)]) -> Style {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Style::of(is_terminal, |name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn colours_need_a_terminal_and_nobody_who_minds() {
        assert!(style(true, &[("TERM", "xterm")]).coloured);
        for variables in [&[("TERM", "dumb")][..], &[("TERM", "xterm"), ("NO_COLOR", "1")], &[]] {
            assert!(!style(true, variables).coloured, "{variables:?}");
        }
        assert_eq!(style(false, &[("TERM", "xterm")]), Style::PLAIN);
        assert!(style(true, &[("TERM", "xterm"), ("NO_COLOR", "")]).coloured);
    }

    #[test]
    fn the_first_locale_that_is_set_decides_on_blocks() {
        assert!(style(false, &[("LANG", "en_US.UTF-8")]).blocks);
        assert!(!style(false, &[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]).blocks);
    }

    #[test]
    fn one_of_a_kind_has_no_s() {
        assert_eq!([0u64, 1, 2].map(|count| counted(count, "event")), ["0 events", "1 event", "2 events"]);
    }

    #[test]
    fn spans_are_for_people() {
        let table = [(0, "0.0 s"), (1_450, "1.4 s"), (65_000, "1 min 5 s"), (3_725_000, "1 h 2 min")];
        for (ms, text) in table {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
        assert_eq!(span(Duration::from_secs(90_000)), "1 d 1 h");
    }
}
