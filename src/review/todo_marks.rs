//! To-do debt: the whole words TODO, FIXME, XXX and HACK, wherever they stand in a text file.
//! It counts every occurrence, also several on a line; it does not judge what the words announce.

use std::collections::BTreeMap;

use regex::bytes::Regex;
use serde_json::{Value, json};

use super::Failure;
use super::findings::{Findings, Severity, plain};
use super::secrets::Patterns;
use super::survey::Survey;

const MARKS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];
const EXCERPT_CHARS_MAX: usize = 120;
/// Longer than any excerpt, so that a secret is masked whole before the text is cut.
const EXCERPT_BYTES: usize = 1024;

/// Counts the marks of a folder.
pub(super) fn count(survey: &Survey) -> Result<Value, Failure> {
    let pattern = Regex::new(&format!(r"\b(?:{})\b", MARKS.join("|")))?;
    let patterns = Patterns::compile()?;
    let mut counts: BTreeMap<&str, usize> = MARKS.iter().map(|mark| (*mark, 0)).collect();
    let mut findings = Findings::default();
    let mut files = 0;
    for file in &survey.files {
        let content = file.read().unwrap_or_default();
        let (mut line, mut counted_to) = (1, 0);
        for found in pattern.find_iter(&content) {
            line += content[counted_to..found.start()].iter().filter(|byte| **byte == b'\n').count();
            files += usize::from(counted_to == 0);
            counted_to = found.end();
            let mark = MARKS.iter().find(|mark| mark.as_bytes() == found.as_bytes());
            let Some(mark) = mark else { continue };
            *counts.entry(mark).or_default() += 1;
            let severity = if matches!(*mark, "FIXME" | "XXX") { Severity::Medium } else { Severity::Low };
            findings.add(severity, &file.path, line, || excerpt(&content[found.start()..], &patterns));
        }
    }
    let total = findings.total();
    let (findings, truncated) = findings.finish();
    Ok(json!({
        "total": total, "marks": counts, "files": files, "findings": findings, "truncated": truncated
    }))
}

/// What the line says from its mark on.
fn excerpt(from_mark: &[u8], patterns: &Patterns) -> String {
    let window = &from_mark[..from_mark.len().min(EXCERPT_BYTES)];
    let line = window.split(|byte| *byte == b'\n').next().unwrap_or(window);
    plain(&patterns.redact(&String::from_utf8_lossy(line)), EXCERPT_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::{folder_with, survey_of};
    use super::*;

    #[test]
    fn only_whole_words_count_and_each_occurrence_does() {
        let folder = folder_with(&[
            ("a.rs", b"// TODO: one, TODO two\n// TODOS, todo, MY_TODO, TODO_LIST\n// HACK"),
            ("b.txt", b"(FIXME)\nXXX\nXXXL\xff TODO\n"),
            ("binary", b"TODO\0"),
        ]);
        let result = count(&survey_of(&folder)).unwrap();
        assert_eq!(result["marks"], json!({"TODO": 3, "FIXME": 1, "XXX": 1, "HACK": 1}));
        assert_eq!(result["total"], 6);
        assert_eq!(result["files"], 2);
        let places: Vec<_> =
            result["findings"].as_array().unwrap().iter().map(|f| (&f["file"], &f["line"])).collect();
        let expected = [("b.txt", 1), ("b.txt", 2), ("a.rs", 1), ("a.rs", 1), ("a.rs", 3), ("b.txt", 3)];
        let expected: Vec<_> = expected.iter().map(|(file, line)| (json!(file), json!(line))).collect();
        assert_eq!(places, expected.iter().map(|(file, line)| (file, line)).collect::<Vec<_>>());
    }

    #[test]
    fn the_total_equals_a_naive_recount() {
        let text = "TODO TODO: XXX-1\nHACKED HACK.\r\n\"FIXME\" _FIXME TODO2 aTODO /TODO/\n".repeat(40);
        let result = count(&survey_of(&folder_with(&[("a", text.as_bytes())]))).unwrap();
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert_eq!(result["total"], words.filter(|word| MARKS.contains(word)).count());
        assert_eq!(result["truncated"], true);
        assert_eq!(result["findings"].as_array().unwrap().len(), 50);
    }

    #[test]
    fn an_excerpt_shows_no_secret() {
        let token = format!("ghp_{}", "a1B2c3D4e5F6".repeat(3));
        let folder = folder_with(&[("a", format!("TODO revoke {token} soon").as_bytes())]);
        let result = count(&survey_of(&folder)).unwrap();
        assert_eq!(result["findings"][0]["message"], "TODO revoke [masked] soon");
    }
}
