//! The manifest: how much there is to review, in which languages, and what was passed over.
//! It judges nothing.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::survey::{Survey, lines};

const LANGUAGES_MAX: usize = 8;

#[derive(Default, Serialize)]
struct Share {
    files: usize,
    lines: usize,
}

/// Takes the manifest of a folder.
pub(super) fn take(survey: &Survey) -> Value {
    let (mut total_lines, mut total_bytes) = (0, 0);
    let mut languages: BTreeMap<&str, Share> = BTreeMap::new();
    for file in &survey.files {
        let lines = file.read().map_or(0, |content| lines(&content));
        total_lines += lines;
        total_bytes += file.bytes;
        let share = languages.entry(language(&file.path)).or_default();
        share.files += 1;
        share.lines += lines;
    }
    let mut languages: Vec<_> = languages.into_iter().collect();
    languages.sort_by_key(|(_, share)| std::cmp::Reverse(share.lines));
    languages.truncate(LANGUAGES_MAX);
    let languages: Vec<Value> = languages
        .into_iter()
        .map(|(name, share)| json!({"name": name, "files": share.files, "lines": share.lines}))
        .collect();
    json!({
        "folder": survey.folder.to_string_lossy(),
        "files": survey.files.len(),
        "lines": total_lines,
        "bytes": total_bytes,
        "skipped": survey.skipped,
        "isGitCheckout": survey.is_git_checkout,
        "languages": languages,
        "truncated": survey.truncated,
    })
}

/// The language by the file's name; what is not in the table is `Other`.
fn language(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    match name.as_str() {
        "makefile" | "gnumakefile" => return "Make",
        "dockerfile" | "containerfile" => return "Docker",
        _ => {}
    }
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "rs" => "Rust",
        "py" | "pyi" => "Python",
        "js" | "mjs" | "cjs" | "jsx" => "JavaScript",
        "ts" | "mts" | "cts" | "tsx" => "TypeScript",
        "go" => "Go",
        "java" => "Java",
        "kt" | "kts" => "Kotlin",
        "c" | "h" => "C",
        "cc" | "cpp" | "cxx" | "hh" | "hpp" => "C++",
        "cs" => "C#",
        "rb" => "Ruby",
        "php" => "PHP",
        "swift" => "Swift",
        "ex" | "exs" => "Elixir",
        "sh" | "bash" | "zsh" => "Shell",
        "sql" => "SQL",
        "html" | "htm" => "HTML",
        "css" | "scss" | "less" => "CSS",
        "vue" | "svelte" => "Web components",
        "md" | "markdown" | "rst" | "adoc" => "Documents",
        "toml" | "yaml" | "yml" | "ini" | "cfg" => "Configuration",
        "json" | "jsonl" | "xml" | "csv" | "lock" => "Data",
        "txt" => "Text",
        _ => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::{folder_with, survey_of};
    use super::*;

    #[test]
    fn totals_equal_an_independent_recount() {
        let files: [(&str, &[u8]); 5] = [
            ("src/a.rs", b"fn a() {}\n\n// no line feed"),
            ("b.py", b"b = 1\n"),
            ("empty", b""),
            ("latin", b"caf\xe9\n"),
            ("binary", b"\0"),
        ];
        let manifest = take(&survey_of(&folder_with(&files)));
        let texts: Vec<_> = files.iter().map(|(_, content)| content).filter(|c| !c.contains(&0)).collect();
        let recount = |content: &[u8]| String::from_utf8_lossy(content).lines().count();
        assert_eq!(manifest["files"], texts.len());
        assert_eq!(manifest["lines"], texts.iter().map(|content| recount(content)).sum::<usize>());
        assert_eq!(manifest["bytes"], texts.iter().map(|content| content.len()).sum::<usize>());
        assert_eq!(manifest["skipped"]["binary"], 1);
        assert_eq!(manifest["languages"][0], json!({"name": "Rust", "files": 1, "lines": 3}));
    }
}
