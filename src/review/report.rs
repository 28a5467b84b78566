//! The editor: merges what the specialists found into one written report, with ten things to fix first.
//! It sees their results only, never the folder; a specialist that failed costs its section, not the report.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::findings::{FINDINGS_MAX, Finding, Severity, plain};

const FIRST_MAX: usize = 10;
const LISTED_MAX: usize = 20;
const PATH_CHARS_MAX: usize = 200;

/// One specialist's part: its key in the inputs and in `totals`, and how its section is written.
struct Part {
    key: &'static str,
    title: &'static str,
    /// Shown when nothing was found.
    clean: &'static str,
    /// What the editor adds to a finding to say why it matters; the finding itself says what it is.
    advice: &'static str,
    /// How much a finding of high, medium and low severity matters beside other parts'; 0 is never first.
    weights: [u32; 3],
    /// How many of the first ten may come from this part while others have something to say.
    share: usize,
}

const PARTS: [Part; 5] = [
    Part {
        key: "secrets",
        title: "Things that look like secrets",
        clean: "Nothing looks like a secret.",
        advice: "revoke it, then take it out of the history",
        weights: [100, 80, 30],
        share: 6,
    },
    Part {
        key: "brokenLinks",
        title: "Broken links",
        clean: "Every relative link in the documents leads somewhere.",
        advice: "a reader ends here",
        weights: [75, 60, 20],
        share: 4,
    },
    Part {
        key: "duplicates",
        title: "Byte-equal duplicates",
        clean: "No two files are equal.",
        advice: "a change to one will miss the other",
        weights: [55, 50, 15],
        share: 3,
    },
    Part {
        key: "churn",
        title: "Hot spots: size × change frequency",
        clean: "No file stands out.",
        advice: "often changed, so faults gather here",
        weights: [50, 45, 0],
        share: 3,
    },
    Part {
        key: "todoMarks",
        title: "To-do debt",
        clean: "No TODO, FIXME, XXX or HACK was left behind.",
        advice: "somebody knew of this",
        weights: [40, 35, 10],
        share: 4,
    },
];

/// A hot spot with marks of its authors in it is worth more than one without.
const MARKED_HOT_SPOT: u32 = 25;

/// A finding with its place in the order of all parts.
struct Candidate<'a> {
    part: &'a Part,
    finding: Finding,
    weight: u32,
}

/// Writes the report from `{manifest, todoMarks, duplicates, brokenLinks, secrets, churn}`.
pub(super) fn write(inputs: &Value) -> Value {
    let first = choose_first(inputs);
    let first_json: Vec<Value> = first.iter().map(item).collect();
    json!({"markdown": markdown(inputs, &first), "totals": totals(inputs), "first": first_json})
}

fn item(candidate: &Candidate) -> Value {
    let finding = &candidate.finding;
    json!({
        "file": finding.file, "line": finding.line, "kind": candidate.part.key,
        "severity": finding.severity, "why": format!("{}: {}", finding.message, candidate.part.advice),
    })
}

/// A total that nobody could count is null, never zero.
fn totals(inputs: &Value) -> Value {
    json!({
        "files": inputs["manifest"]["files"],
        "lines": inputs["manifest"]["lines"],
        "todoMarks": inputs["todoMarks"]["total"],
        "duplicates": inputs["duplicates"]["total"],
        "brokenLinks": inputs["brokenLinks"]["total"],
        "secrets": inputs["secrets"]["total"],
    })
}

fn findings(inputs: &Value, key: &str) -> Vec<Finding> {
    let findings = &inputs[key]["findings"];
    let mut findings: Vec<Finding> = serde_json::from_value(findings.clone()).unwrap_or_default();
    findings.truncate(FINDINGS_MAX);
    findings
}

/// The ten most urgent findings, by weight. While others wait, a part has its share and a file two places.
fn choose_first(inputs: &Value) -> Vec<Candidate<'static>> {
    let mut marks: HashMap<String, u32> = HashMap::new();
    for finding in findings(inputs, "todoMarks") {
        *marks.entry(finding.file).or_default() += 1;
    }
    let mut candidates = Vec::new();
    for part in &PARTS {
        for mut finding in findings(inputs, part.key) {
            let mut weight = part.weights[finding.severity as usize];
            if let Some(count) = marks.get(&finding.file).filter(|_| part.key == "churn") {
                weight += MARKED_HOT_SPOT;
                let _ = write!(finding.message, ", with {}", counted(&json!(count), "to-do mark"));
            }
            if weight > 0 {
                candidates.push(Candidate { part, finding, weight });
            }
        }
    }
    // The sort is stable: within a weight the parts' own order of importance stays.
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.weight));
    let mut chosen = Vec::new();
    let mut passed_over = Vec::new();
    let mut places = HashSet::new();
    for candidate in candidates {
        // A line is fixed once, however much is wrong with it.
        if !places.insert((candidate.finding.file.clone(), candidate.finding.line)) {
            continue;
        }
        let of_part = chosen.iter().filter(|c: &&Candidate| c.part.key == candidate.part.key).count();
        let of_file = chosen.iter().filter(|c| c.finding.file == candidate.finding.file).count();
        let has_room = chosen.len() < FIRST_MAX && of_part < candidate.part.share && of_file < 2;
        if has_room { chosen.push(candidate) } else { passed_over.push(candidate) }
    }
    let missing = FIRST_MAX - chosen.len();
    chosen.extend(passed_over.into_iter().take(missing));
    chosen.sort_by_key(|candidate| std::cmp::Reverse(candidate.weight));
    chosen
}

fn markdown(inputs: &Value, first: &[Candidate]) -> String {
    let mut text = String::new();
    write_head(&mut text, inputs);
    if inputs["manifest"]["files"] == 0 {
        text.push_str("There is nothing to review: the folder holds no text file.\n\n");
    } else {
        write_first(&mut text, first);
        for part in &PARTS {
            write_part(&mut text, part, inputs);
        }
    }
    write_skipped(&mut text, &inputs["manifest"]);
    text
}

// Writing to a String cannot fail, so the results of `write!` below are dropped.

fn write_head(text: &mut String, inputs: &Value) {
    let manifest = &inputs["manifest"];
    let folder = manifest["folder"].as_str().unwrap_or("an unknown folder");
    let _ = write!(text, "# Review of {}\n\n", code(folder));
    text.push_str("| what | total |\n|---|---:|\n");
    let totals = totals(inputs);
    let rows = [
        ("files", "files"),
        ("lines", "lines"),
        ("to-do marks", "todoMarks"),
        ("duplicates (copies beyond the first)", "duplicates"),
        ("broken links", "brokenLinks"),
        ("things that look like secrets", "secrets"),
    ];
    for (name, key) in rows {
        let total = totals[key].as_u64().map_or("unknown".to_owned(), |total| total.to_string());
        let _ = writeln!(text, "| {name} | {total} |");
    }
    let languages = manifest["languages"].as_array().map_or(&[][..], Vec::as_slice);
    let shares = languages.iter().map(|language| {
        format!("{} ({} lines)", escaped(language["name"].as_str().unwrap_or("?")), language["lines"])
    });
    let shares: Vec<_> = shares.collect();
    if !shares.is_empty() {
        let _ = write!(text, "\nLanguages: {}.\n", shares.join(", "));
    }
    text.push('\n');
}

fn write_first(text: &mut String, first: &[Candidate]) {
    match first.len() {
        0 => text.push_str("## Nothing to fix first\n\nThe specialists found nothing to complain about.\n\n"),
        1 => text.push_str("## Fix this first\n\n"),
        FIRST_MAX => text.push_str("## Fix these ten first\n\n"),
        count => {
            let _ = write!(text, "## Fix these {count} first\n\n");
        }
    }
    for (index, candidate) in first.iter().enumerate() {
        let (place, message) = (place(&candidate.finding), escaped(&candidate.finding.message));
        let _ = writeln!(text, "{}. {place}: {message} — {}", index + 1, candidate.part.advice);
    }
    if !first.is_empty() {
        text.push('\n');
    }
}

fn write_part(text: &mut String, part: &Part, inputs: &Value) {
    let result = &inputs[part.key];
    let _ = write!(text, "## {}\n\n", part.title);
    let Some(total) = result["total"].as_u64() else {
        let error = &result["error"];
        let reason = error["message"].as_str().or(error.as_str()).unwrap_or("it gave no result");
        let _ =
            write!(text, "This step failed, so nothing is known here: {}.\n\n", escaped(&plain(reason, 240)));
        return;
    };
    if result["available"] == false {
        let reason = result["reason"].as_str().unwrap_or("no reason was given");
        let _ = write!(text, "Not available: {}.\n\n", escaped(&plain(reason, 240)));
        return;
    }
    if total == 0 {
        let _ = write!(text, "{}\n\n", part.clean);
        return;
    }
    let _ = write!(text, "{}\n\n", summary(part.key, total, result));
    let findings = findings(inputs, part.key);
    for finding in findings.iter().take(LISTED_MAX) {
        let severity = severity_name(finding.severity);
        let _ = writeln!(text, "- {} ({severity}): {}", place(finding), escaped(&finding.message));
    }
    // A group of duplicates is one finding however many copies it counts.
    let found = result["groups"].as_u64().unwrap_or(total);
    let more = (found as usize).saturating_sub(findings.len().min(LISTED_MAX));
    if more > 0 {
        let _ = writeln!(text, "- … and {more} more");
    }
    text.push('\n');
}

/// The sentence above a part's list.
fn summary(key: &str, total: u64, result: &Value) -> String {
    match key {
        "todoMarks" => {
            let marks =
                ["TODO", "FIXME", "XXX", "HACK"].map(|mark| format!("{} {mark}", result["marks"][mark]));
            format!("{total} in {}: {}.", counted(&result["files"], "file"), marks.join(", "))
        }
        "duplicates" => {
            let (groups, wasted) =
                (counted(&result["groups"], "group"), counted(&result["wastedBytes"], "byte"));
            format!("Copies beyond the first: {total}, in {groups}; together {wasted}.")
        }
        "brokenLinks" => {
            let (checked, documents) = (&result["checked"], counted(&result["documents"], "document"));
            format!("Of {checked} relative links in {documents}, {total} lead nowhere.")
        }
        "secrets" => format!("{total} in {}; the values are masked here.", counted(&result["files"], "file")),
        _ => format!("Files changed more than once: {total}, in {}.", counted(&result["commits"], "commit")),
    }
}

fn write_skipped(text: &mut String, manifest: &Value) {
    let skipped = &manifest["skipped"];
    text.push_str("## What was skipped\n\n");
    let count = |key: &str| skipped[key].as_u64().unwrap_or(0);
    let _ = writeln!(
        text,
        "Excluded by `.gitignore`: {} (a folder counts once). Binary: {}. Links: {}. \
         Over 1 MiB: {}. Unreadable: {}. The folder `.git` is never looked into; other dotfiles are.",
        count("ignored"),
        count("binary"),
        count("links"),
        count("tooLarge"),
        count("unreadable"),
    );
    if manifest["truncated"] == true {
        text.push_str("\nThe folder has more entries than one review looks at; the rest was not seen.\n");
    }
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::High => "high",
        Severity::Medium => "medium",
        Severity::Low => "low",
    }
}

fn place(finding: &Finding) -> String {
    code(&format!("{}:{}", finding.file, finding.line))
}

/// A code span; of a very long path the end is shown, which says most.
fn code(path: &str) -> String {
    let chars = path.chars().count();
    let end: String = path.chars().skip(chars.saturating_sub(PATH_CHARS_MAX)).collect();
    let cut = if chars > PATH_CHARS_MAX { "…" } else { "" };
    format!("`{cut}{}`", plain(&end, PATH_CHARS_MAX).replace('`', "'"))
}

/// Foreign text in Markdown: it must not become a link, an image, a table cell or HTML.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|') {
            shown.push('\\');
        }
        shown.push(character);
    }
    shown
}

/// `1 file`, `2 files`; an unknown number is shown as such.
fn counted(number: &Value, noun: &str) -> String {
    let plural = if *number == 1 { "" } else { "s" };
    let number = number.as_u64().map_or("unknown".to_owned(), |number| number.to_string());
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(severities: &[(&str, usize, &str)]) -> Value {
        let findings: Vec<_> = severities
            .iter()
            .map(|(file, line, severity)| {
                json!({"file": file, "line": line, "message": "m [x](y)", "severity": severity})
            })
            .collect();
        json!({"total": findings.len(), "findings": findings, "truncated": false, "files": 1})
    }

    fn inputs() -> Value {
        let links: Vec<_> = (1..=9).map(|line| ("README.md", line, "high")).collect();
        json!({
            "manifest": {
                "folder": "repo", "files": 12, "lines": 345,
                "skipped": {"binary": 2, "links": 1, "tooLarge": 3},
                "languages": [{"name": "Rust", "files": 2, "lines": 300}],
            },
            "todoMarks": part(&[("src/a.rs", 7, "medium"), ("src/b.rs", 8, "low")]),
            "duplicates": part(&[("copy", 1, "medium")]),
            "brokenLinks": part(&links),
            "secrets": part(&[(".env", 1, "high")]),
            "churn": part(&[("src/b.rs", 1, "medium"), ("src/c.rs", 1, "medium")]),
        })
    }

    #[test]
    fn ten_come_first_by_weight_and_no_part_crowds_out_the_others() {
        let report = write(&inputs());
        let first = report["first"].as_array().unwrap();
        let kinds: Vec<_> = first.iter().map(|item| item["kind"].as_str().unwrap()).collect();
        let expected = [
            "secrets",
            "brokenLinks",
            "brokenLinks",
            "brokenLinks",
            "churn",
            "duplicates",
            "churn",
            "todoMarks",
            "todoMarks",
        ];
        assert_eq!(kinds.len(), FIRST_MAX);
        assert_eq!(kinds.iter().filter(|kind| expected.contains(kind)).count(), FIRST_MAX);
        assert_eq!(kinds[0], "secrets");
        assert_eq!(kinds.iter().filter(|kind| **kind == "brokenLinks").count(), 4);
        let hot =
            first.iter().position(|item| item["file"] == "src/b.rs" && item["kind"] == "churn").unwrap();
        let plain_hot = first.iter().position(|item| item["file"] == "src/c.rs").unwrap();
        assert!(hot < plain_hot, "{kinds:?}");
        assert!(first[hot]["why"].as_str().unwrap().contains("with 1 to-do mark"));
    }

    #[test]
    fn the_report_names_totals_places_and_what_was_skipped() {
        let report = write(&inputs());
        let totals = json!({
            "files": 12, "lines": 345, "todoMarks": 2, "duplicates": 1, "brokenLinks": 9, "secrets": 1
        });
        assert_eq!(report["totals"], totals);
        let markdown = report["markdown"].as_str().unwrap();
        let expected = [
            "# Review of `repo`",
            "| files | 12 |",
            "| lines | 345 |",
            "| to-do marks | 2 |",
            "## Fix these ten first",
            "1. `.env:1`: m \\[x\\](y) — revoke it",
            "## To-do debt",
            "- `src/a.rs:7` (medium)",
            "Over 1 MiB: 3.",
            "Binary: 2. Links: 1.",
        ];
        for expected in expected {
            assert!(markdown.contains(expected), "{expected} in:\n{markdown}");
        }
    }

    #[test]
    fn a_failed_step_costs_its_section_only() {
        let mut inputs = inputs();
        inputs["secrets"] = json!({"error": {"code": "crashed", "message": "the worker | died"}});
        inputs["duplicates"] = Value::Null;
        inputs["churn"] = json!({"available": false, "reason": "no git", "total": 0, "findings": []});
        let report = write(&inputs);
        assert_eq!(report["totals"]["secrets"], Value::Null);
        let markdown = report["markdown"].as_str().unwrap();
        for expected in ["the worker \\| died", "it gave no result", "Not available: no git.", "| unknown |"]
        {
            assert!(markdown.contains(expected), "{expected} in:\n{markdown}");
        }
        assert!(!report["first"].as_array().unwrap().is_empty());
    }

    #[test]
    fn the_largest_results_make_a_report_that_fits_into_a_step() {
        let long = "\u{1f980}".repeat(1000);
        let many: Vec<_> = (0..FINDINGS_MAX).map(|line| (long.as_str(), line, "high")).collect();
        let mut inputs = inputs();
        PARTS.iter().for_each(|spec| inputs[spec.key] = part(&many));
        let report = write(&inputs);
        assert!(report.to_string().len() < 256 * 1024, "{}", report.to_string().len());
    }
}
