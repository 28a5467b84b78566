//! Things that look like secrets, by patterns chosen for few false alarms.
//! It must never repeat a secret: neither its result nor any other part of the review holds the value.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Value, json};

use super::Failure;
use super::findings::{Findings, Severity, plain};
use super::survey::{File, Survey};

/// What issuers give their secrets so that scanners find them.
const ISSUED: [(&str, &str); 8] = [
    ("AWS access key id", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("GitHub token", r"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
    ("GitHub fine-grained token", r"\bgithub_pat_[A-Za-z0-9_]{22,}\b"),
    ("Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("Google API key", r"\bAIza[0-9A-Za-z_-]{35}"),
    ("Stripe live key", r"\b[rs]k_live_[0-9A-Za-z]{20,}\b"),
    ("Anthropic key", r"\bsk-ant-[0-9A-Za-z_-]{20,}"),
    ("npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
];

const PRIVATE_KEY: &str = r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?P<rest>.*)";
const QUOTED: &str = r#"["'`](?P<value>[A-Za-z0-9+/_=.~-]{32,})["'`]"#;
const UNQUOTED: &str = r"(?P<value>[A-Za-z0-9+/_=.~-]{32,})\s*(?:[;,#].*)?$";
const KEY: &str = concat!(
    r"(?i)(?P<key>[a-z0-9_.-]*",
    r"(?:api[_-]?key|access[_-]?key|secret|token|passw(?:or)?d|credential)[a-z0-9_-]*)",
    r#"["']?\s*(?::=|=>|[:=])\s*"#,
);
/// In these files a value needs no quotes; in source an unquoted word is a name.
const UNQUOTED_FILES: [&str; 6] = [".properties", ".ini", ".cfg", ".conf", ".yml", ".yaml"];

/// Random letters and digits of this length lie well above; words, paths and padding lie below.
const ENTROPY_BITS_MIN: f64 = 3.6;
/// Hexadecimal digits can reach four bits each, and 32 of them come to about 3.6 on average.
const ENTROPY_BITS_MIN_HEX: f64 = 3.0;
const PLACEHOLDERS: [&str; 9] =
    ["example", "placeholder", "changeme", "your", "dummy", "xxxx", "0000", "abcdef", "12345678"];

/// The compiled patterns.
pub(super) struct Patterns {
    issued: Vec<(&'static str, Regex)>,
    private_key: Regex,
    quoted: Regex,
    unquoted: Regex,
}

/// One suspicion on one line: what it is, how sure we are, and the range of the value.
struct Suspicion {
    what: String,
    severity: Severity,
    value: std::ops::Range<usize>,
}

impl Patterns {
    pub(super) fn compile() -> Result<Self, Failure> {
        let mut issued = Vec::new();
        for (what, pattern) in ISSUED {
            issued.push((what, Regex::new(pattern)?));
        }
        Ok(Self {
            issued,
            private_key: Regex::new(PRIVATE_KEY)?,
            quoted: Regex::new(&format!("{KEY}{QUOTED}"))?,
            unquoted: Regex::new(&format!("{KEY}{UNQUOTED}"))?,
        })
    }

    /// The line with everything that looks like a secret masked, so that it may be quoted.
    pub(super) fn redact(&self, line: &str) -> String {
        let mut ranges: Vec<_> = self.suspicions(line, true).into_iter().map(|found| found.value).collect();
        ranges.sort_by_key(|range| range.start);
        let (mut shown, mut at) = (String::new(), 0);
        for range in ranges {
            if range.start >= at {
                shown.push_str(&line[at..range.start]);
                shown.push_str("[masked]");
            }
            at = at.max(range.end);
        }
        shown.push_str(&line[at..]);
        shown
    }

    fn suspicions(&self, line: &str, unquoted_too: bool) -> Vec<Suspicion> {
        let mut found = Vec::new();
        for (what, pattern) in &self.issued {
            for value in pattern.find_iter(line) {
                // Issuers' documentation uses such values; they open nothing.
                let is_sample = value.as_str().to_lowercase().contains("example");
                let severity = if is_sample { Severity::Low } else { Severity::High };
                let what = format!("{what} ({} characters, masked)", value.len());
                found.push(Suspicion { what, severity, value: value.range() });
            }
        }
        if let Some(key) = self.private_key.captures(line) {
            let header = key.get_match();
            let rest = key.name("rest").map_or("", |rest| rest.as_str());
            // A header in the midst of code is a pattern like ours, unless key material follows it.
            let material = rest.chars().filter(char::is_ascii_alphanumeric).count();
            if line[..header.start()].trim().is_empty() || material >= 32 {
                let what = "private key (masked)".to_owned();
                found.push(Suspicion { what, severity: Severity::High, value: header.range() });
            }
        }
        let assignments = if unquoted_too {
            [Some(&self.quoted), Some(&self.unquoted)]
        } else {
            [Some(&self.quoted), None]
        };
        for assignment in assignments.into_iter().flatten().flat_map(|pattern| pattern.captures_iter(line)) {
            let (Some(key), Some(value)) = (assignment.name("key"), assignment.name("value")) else {
                continue;
            };
            let is_known =
                found.iter().any(|known| known.value.start < value.end() && value.start() < known.value.end);
            if !is_known && looks_random(value.as_str()) {
                let key = plain(key.as_str(), 40);
                let what = format!("value of `{key}` looks random ({} characters, masked)", value.len());
                found.push(Suspicion { what, severity: Severity::Medium, value: value.range() });
            }
        }
        found
    }
}

/// Searches the files of a folder.
pub(super) fn search(survey: &Survey) -> Result<Value, Failure> {
    let patterns = Patterns::compile()?;
    let mut findings = Findings::default();
    let mut files = BTreeSet::new();
    for file in &survey.files {
        let content = file.read().unwrap_or_default();
        let unquoted_too = allows_unquoted(file);
        for (index, line) in String::from_utf8_lossy(&content).lines().enumerate() {
            for found in patterns.suspicions(line, unquoted_too) {
                let severity = if file.is_sample() { found.severity.lowered() } else { found.severity };
                findings.add(severity, &file.path, index + 1, || found.what);
                files.insert(file.path.as_str());
            }
        }
    }
    let total = findings.total();
    let (findings, truncated) = findings.finish();
    Ok(json!({"total": total, "files": files.len(), "findings": findings, "truncated": truncated}))
}

fn allows_unquoted(file: &File) -> bool {
    let name = file.path.rsplit('/').next().unwrap_or(&file.path).to_lowercase();
    name.starts_with(".env") || name.ends_with(".env") || UNQUOTED_FILES.iter().any(|end| name.ends_with(end))
}

/// Tells a random value from a name, a path, a version or a placeholder.
fn looks_random(value: &str) -> bool {
    let lower = value.to_lowercase();
    if PLACEHOLDERS.iter().any(|word| lower.contains(word)) {
        return false;
    }
    let digits = value.chars().filter(char::is_ascii_digit).count();
    let letters = value.chars().filter(char::is_ascii_alphabetic).count();
    let is_hex = value.chars().all(|c| c.is_ascii_hexdigit());
    let bits_min = if is_hex { ENTROPY_BITS_MIN_HEX } else { ENTROPY_BITS_MIN };
    digits >= 3 && letters >= 3 && entropy_bits(value) >= bits_min
}

/// Shannon's entropy of the characters, in bits each.
fn entropy_bits(value: &str) -> f64 {
    let mut counts = [0u32; 256];
    value.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    let length = value.len() as f64;
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / length);
    shares.map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::{folder_with, survey_of};
    use super::*;

    const RANDOM: &str = "q7Zt2LmX9vB4nR8sK1wY6pD3hJ5gF0cA";

    /// Put together here, so that no scanner takes this file for a leak.
    fn secrets() -> Vec<String> {
        vec![
            format!("AKIA{}", "Q3EGTZ7PLMNB4XYW"),
            format!("ghp_{}", "a1B2c3D4e5F6".repeat(3)),
            format!("github_pat_{}", "11ABCDEFG0a1B2c3D4e5F6_x"),
            format!("xoxb-{}", "123456789012-abcdef"),
            format!("AIza{}", "SyA-1234567890abcdefghijklmnopqrstu"),
            format!("sk_live_{}", "4eC39HqLyjWDarjtT1zdp7dc"),
        ]
    }

    fn search_in(path: &str, text: &str) -> Value {
        search(&survey_of(&folder_with(&[(path, text.as_bytes())]))).unwrap()
    }

    #[test]
    fn issued_secrets_are_found_and_never_shown() {
        for secret in secrets() {
            let result = search_in("src/a.rs", &format!("\nlet a = \"{secret}\";\n"));
            assert_eq!(result["total"], 1, "{secret}");
            assert_eq!(result["findings"][0]["line"], 2);
            assert_eq!(result["findings"][0]["severity"], "high");
            let told = result.to_string();
            assert!(!told.contains(&secret) && !told.contains(&secret[secret.len() - 8..]), "{told}");
        }
    }

    #[test]
    fn assigned_random_values_are_found_and_never_shown() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015";
        let table = [
            ("a.py", format!("API_KEY = '{RANDOM}'"), 1),
            ("a.json", format!("\"client_secret\": \"{hex}\""), 1),
            ("a.go", format!("dbPassword := \"{RANDOM}\""), 1),
            (".env", format!("SERVICE_TOKEN={RANDOM}"), 1),
            ("a.yaml", format!("  api-key: {RANDOM}  # comment"), 1),
            ("a.rs", format!("let token = {RANDOM};"), 0),
            ("a.rs", format!("let checksum = \"{hex}\";"), 0),
            ("a.py", "api_key = 'your-api-key-goes-here-1234567890-abc'".to_owned(), 0),
            ("a.py", "token = 'some.module.with.a.long.dotted.name'".to_owned(), 0),
            ("a.py", "secret = '11111111111111111111111111111111aaa'".to_owned(), 0),
            ("a.py", format!("token = '{}'", &RANDOM[..20]), 0),
        ];
        for (path, text, expected) in table {
            let result = search_in(path, &text);
            assert_eq!(result["total"], expected, "{text}");
            assert!(!result.to_string().contains(&RANDOM[4..]) && !result.to_string().contains(hex));
        }
    }

    #[test]
    fn a_private_key_is_found_and_a_pattern_for_one_is_not() {
        let header = format!("-----BEGIN {} KEY-----", "RSA PRIVATE");
        let table = [
            (format!("{header}\nMIIE\n"), 1),
            (format!("let key = \"{header}\\n{RANDOM}\";"), 1),
            (format!("if line.starts_with(\"{header}\") {{"), 0),
            ("-----BEGIN CERTIFICATE-----".to_owned(), 0),
        ];
        for (text, expected) in table {
            assert_eq!(search_in("a", &text)["total"], expected, "{text}");
        }
    }

    #[test]
    fn samples_are_less_severe() {
        let documented = format!("AKIA{}", "IOSFODNN7EXAMPLE");
        assert_eq!(search_in("src/a.rs", &documented)["findings"][0]["severity"], "low");
        assert_eq!(search_in("tests/a.rs", &secrets()[0])["findings"][0]["severity"], "medium");
        assert_eq!(search_in("src/latest.rs", &secrets()[0])["findings"][0]["severity"], "high");
    }

    #[test]
    fn a_quoted_line_masks_every_secret() {
        let patterns = Patterns::compile().unwrap();
        let secrets = secrets();
        let line = format!("ä {} and token={RANDOM}", secrets[1]);
        assert_eq!(patterns.redact(&line), "ä [masked] and token=[masked]");
        assert_eq!(patterns.redact("nothing here"), "nothing here");
    }
}
