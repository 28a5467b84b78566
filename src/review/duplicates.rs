//! Byte-equal duplicates: files with the same size and the same BLAKE3 digest. Empty files are none.
//! It never proposes which copy to keep; the first by path only stands for its group.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::findings::{Findings, Severity};
use super::survey::{File, Survey};

/// Below this a copy is mostly a licence or a stub and costs nobody much.
const NOTABLE_BYTES: u64 = 4 * 1024;
const NAMED_MAX: usize = 3;

/// Groups the byte-equal files of a folder; `total` counts the copies beyond the first of each group.
pub(super) fn group(survey: &Survey) -> Value {
    let mut by_size: BTreeMap<u64, Vec<&File>> = BTreeMap::new();
    for file in survey.files.iter().filter(|file| file.bytes > 0) {
        by_size.entry(file.bytes).or_default().push(file);
    }
    let mut groups: Vec<Vec<&File>> = by_size.into_values().flat_map(equal_among).collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(wasted(group)), group[0].path.clone()));
    let copies: usize = groups.iter().map(|group| group.len() - 1).sum();
    let wasted_bytes: u64 = groups.iter().map(|group| wasted(group)).sum();
    let mut findings = Findings::default();
    for group in &groups {
        let is_meant = group.iter().all(|file| file.is_sample() || is_licence(&file.path));
        let is_notable = wasted(group) >= NOTABLE_BYTES && !is_meant;
        let severity = if is_notable { Severity::Medium } else { Severity::Low };
        findings.add(severity, &group[1].path, 1, || describe(group));
    }
    let (findings, truncated) = findings.finish();
    json!({
        "total": copies, "groups": groups.len(), "wastedBytes": wasted_bytes,
        "findings": findings, "truncated": truncated,
    })
}

/// Each package of a repository carries its licence, and should.
fn is_licence(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    ["license", "licence", "copying", "notice"].iter().any(|start| name.starts_with(start))
}

/// Splits files of one size into groups of equal content; a file on its own is no group.
fn equal_among(files: Vec<&File>) -> Vec<Vec<&File>> {
    if files.len() < 2 {
        return Vec::new();
    }
    let mut by_digest: BTreeMap<[u8; 32], Vec<&File>> = BTreeMap::new();
    for file in files {
        if let Some(content) = file.read() {
            by_digest.entry(*blake3::hash(&content).as_bytes()).or_default().push(file);
        }
    }
    by_digest.into_values().filter(|group| group.len() > 1).collect()
}

fn wasted(group: &[&File]) -> u64 {
    group.iter().skip(1).map(|file| file.bytes).sum()
}

fn describe(group: &[&File]) -> String {
    let more = match group.len() - 2 {
        0 => String::new(),
        others => {
            let named: Vec<_> = group[2..].iter().take(NAMED_MAX).map(|file| file.path.as_str()).collect();
            let rest = if others > NAMED_MAX { ", …" } else { "" };
            format!("; {others} more: {}{rest}", named.join(", "))
        }
    };
    format!("byte-equal copy of {} ({} bytes){more}", group[0].path, group[0].bytes)
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::{folder_with, survey_of};
    use super::*;

    #[test]
    fn copies_that_are_meant_weigh_little() {
        let large = vec![b'x'; 5000];
        for (one, two) in [("a/LICENSE-MIT", "b/LICENSE-MIT"), ("tests/fixtures/a", "tests/fixtures/b")] {
            let result = group(&survey_of(&folder_with(&[(one, &large), (two, &large)])));
            assert_eq!(result["findings"][0]["severity"], "low", "{one}");
        }
    }

    #[test]
    fn groups_equal_an_independent_recount() {
        let large = vec![b'x'; 5000];
        let files: [(&str, &[u8]); 9] = [
            ("a", b"same"),
            ("b", b"same"),
            ("c/d", b"same"),
            ("e", b"emas"),
            ("f", &large),
            ("g", &large),
            ("empty", b""),
            ("empty-too", b""),
            ("h", b"alone"),
        ];
        let result = group(&survey_of(&folder_with(&files)));
        let non_empty = || files.iter().map(|(_, content)| content).filter(|content| !content.is_empty());
        let distinct: std::collections::HashSet<_> = non_empty().collect();
        assert_eq!(result["total"], non_empty().count() - distinct.len());
        assert_eq!(result["groups"], 2);
        assert_eq!(result["wastedBytes"], 5000 + 2 * 4);
        assert_eq!(result["findings"][0]["file"], "g");
        assert_eq!(result["findings"][0]["severity"], "medium");
        assert_eq!(result["findings"][1]["message"], "byte-equal copy of a (4 bytes); 1 more: c/d");
    }
}
