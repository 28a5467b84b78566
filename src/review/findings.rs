//! What a specialist reports: findings by severity, bounded in number and size whatever the folder holds.
//! It knows no kind of finding; what deserves attention is decided by each specialist.

use serde::{Deserialize, Serialize};

/// A result lists at most this many findings; `total` still counts all.
pub(super) const FINDINGS_MAX: usize = 50;
const MESSAGE_CHARS_MAX: usize = 240;
/// Paths may be 4 KiB long each, so the number alone does not bound a result.
const TEXT_BYTES_MAX: usize = 128 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    High,
    Medium,
    Low,
}

impl Severity {
    /// One step less severe, for what stands in tests and examples.
    pub(super) fn lowered(self) -> Self {
        match self {
            Self::High => Self::Medium,
            Self::Medium | Self::Low => Self::Low,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) message: String,
    pub(super) severity: Severity,
}

/// Collects findings. Within a severity those that come first win, so callers add in order of importance.
#[derive(Default)]
pub(super) struct Findings {
    total: usize,
    kept: [Vec<Finding>; 3],
}

impl Findings {
    /// Counts a finding; its message is only built when there is room for it.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        file: &str,
        line: usize,
        message: impl FnOnce() -> String,
    ) {
        self.total += 1;
        let kept = &mut self.kept[severity as usize];
        if kept.len() < FINDINGS_MAX {
            let message = plain(&message(), MESSAGE_CHARS_MAX);
            kept.push(Finding { file: file.to_owned(), line, message, severity });
        }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// The most severe findings, and whether some were left out.
    pub(super) fn finish(self) -> (Vec<Finding>, bool) {
        let mut room = TEXT_BYTES_MAX;
        let mut listed = Vec::new();
        for finding in self.kept.into_iter().flatten().take(FINDINGS_MAX) {
            let Some(left) = room.checked_sub(finding.file.len() + finding.message.len()) else { break };
            room = left;
            listed.push(finding);
        }
        let truncated = listed.len() < self.total;
        (listed, truncated)
    }
}

/// Foreign text on one line: no control characters (a report is shown on terminals), at most `chars_max`.
pub(super) fn plain(text: &str, chars_max: usize) -> String {
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = shown.take(chars_max).collect();
    if text.chars().nth(chars_max).is_some() {
        short.pop();
        short.push('…');
    }
    short.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_severe_findings_are_kept_and_all_are_counted() {
        let mut findings = Findings::default();
        (0..60).for_each(|line| findings.add(Severity::Low, "a", line, String::new));
        findings.add(Severity::High, "b", 1, || "bad".to_owned());
        assert_eq!(findings.total(), 61);
        let (listed, truncated) = findings.finish();
        assert!(truncated);
        assert_eq!(listed.len(), FINDINGS_MAX);
        assert_eq!(listed[0].message, "bad");
        assert_eq!(listed[49].line, 48);
    }

    #[test]
    fn very_long_paths_do_not_burst_the_result() {
        let mut findings = Findings::default();
        (0..50).for_each(|line| findings.add(Severity::Low, &"x".repeat(4096), line, String::new));
        let (listed, truncated) = findings.finish();
        assert!(truncated);
        assert_eq!(listed.len(), 32);
    }

    #[test]
    fn plain_text_has_no_control_characters_and_an_end() {
        assert_eq!(plain("a\u{1b}[31mb\nc", 240), "a [31mb c");
        assert_eq!(plain("äöü", 3), "äöü");
        assert_eq!(plain("äöüß", 3), "äö…");
    }
}
