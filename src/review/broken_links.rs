//! Broken links in Markdown documents: relative targets that do not exist on this disk.
//! It reads Markdown just well enough to find links; it must never open a socket or look outside the folder.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::findings::{Findings, Severity};
use super::survey::Survey;

const DOCUMENTS: [&str; 4] = [".md", ".markdown", ".mdown", ".mkd"];
const SHOWN_CHARS_MAX: usize = 120;

/// Checks the documents of a folder.
pub(super) fn check(survey: &Survey) -> Value {
    let mut findings = Findings::default();
    let (mut documents, mut checked) = (0, 0);
    let is_document = |path: &str| DOCUMENTS.iter().any(|end| path.to_lowercase().ends_with(end));
    for file in survey.files.iter().filter(|file| is_document(&file.path)) {
        documents += 1;
        let content = file.read().unwrap_or_default();
        for (line, target) in targets(&String::from_utf8_lossy(&content)) {
            let Some(place) = resolve(&file.path, &target) else { continue };
            checked += 1;
            if !survey.folder.join(place).exists() {
                let is_front_page = file.path.to_lowercase().starts_with("readme");
                let severity = if is_front_page { Severity::High } else { Severity::Medium };
                let severity = if file.is_sample() { severity.lowered() } else { severity };
                let shown: String = target.chars().take(SHOWN_CHARS_MAX).collect();
                findings.add(severity, &file.path, line, || format!("link to {shown}, which does not exist"));
            }
        }
    }
    let total = findings.total();
    let (findings, truncated) = findings.finish();
    json!({
        "total": total, "documents": documents, "checked": checked,
        "findings": findings, "truncated": truncated,
    })
}

/// Where a relative link points, from the folder; nothing for what is not ours to judge.
fn resolve(document: &str, target: &str) -> Option<PathBuf> {
    let target = target.split(['#', '?']).next().unwrap_or(target);
    let is_template = ["{{", "{%", "${", "<%"].iter().any(|mark| target.contains(mark));
    // An absolute path is the route of a site, which only its generator knows; `::` is rustdoc's.
    if target.is_empty()
        || target.starts_with('/')
        || target.contains("::")
        || has_scheme(target)
        || is_template
    {
        return None;
    }
    let decoded = percent_decoded(target);
    let mut place = Path::new(document).parent().map(Path::to_path_buf).unwrap_or_default();
    for part in Path::new(&decoded).components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::ParentDir if place.pop() => {}
            // Outside the folder, such as the `../../issues` that forges understand.
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
            Component::CurDir => {}
        }
    }
    Some(place)
}

fn has_scheme(target: &str) -> bool {
    let Some((scheme, _)) = target.split_once(':') else { return false };
    let mut letters = scheme.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-'))
}

fn percent_decoded(target: &str) -> String {
    let bytes = target.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = target.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Every link target of a document with its line, outside code and comments.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fence: Option<String> = None;
    let mut in_comment = false;
    for (index, line) in text.lines().enumerate() {
        let begins = line.trim_start().trim_start_matches("> ");
        if let Some(open) = &fence {
            let closes =
                begins.starts_with(open.as_str()) && begins.trim_end().chars().all(|c| open.starts_with(c));
            if closes {
                fence = None;
            }
            continue;
        }
        fence = if in_comment { None } else { fence_of(begins) };
        if fence.is_none() {
            let prose = without_code_and_comments(line, &mut in_comment);
            let inline = inline_targets(&prose);
            found.extend(inline.into_iter().chain(definition(&prose)).map(|target| (index + 1, target)));
        }
    }
    found
}

/// The run of backticks or tildes that opens a fence.
fn fence_of(line: &str) -> Option<String> {
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let run: String = line.chars().take_while(|c| *c == mark).collect();
    let info = &line[run.len()..];
    // Backticks again behind the run make it a code span.
    (run.len() >= 3 && !(mark == '`' && info.contains('`'))).then_some(run)
}

/// The line with code spans and HTML comments blanked; a comment may go on over several lines.
fn without_code_and_comments(line: &str, in_comment: &mut bool) -> String {
    let mut prose = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        if *in_comment {
            let Some(end) = rest.find("-->") else { return prose };
            *in_comment = false;
            rest = &rest[end + 3..];
        } else if let Some(after) = rest.strip_prefix("<!--") {
            *in_comment = true;
            rest = after;
        } else if let Some(escaped) = rest.strip_prefix('\\').and_then(|after| after.chars().next()) {
            prose.push('\\');
            prose.push(escaped);
            rest = &rest[1 + escaped.len_utf8()..];
        } else if rest.starts_with('`') {
            let run = rest.len() - rest.trim_start_matches('`').len();
            match end_of_span(&rest[run..], run) {
                Some(end) => {
                    prose.push_str("``");
                    rest = &rest[run + end..];
                }
                None => {
                    prose.push_str(&rest[..run]);
                    rest = &rest[run..];
                }
            }
        } else {
            let next = rest.char_indices().nth(1).map_or(rest.len(), |(at, _)| at);
            prose.push_str(&rest[..next]);
            rest = &rest[next..];
        }
    }
    prose
}

/// The end of a code span that was opened by `run` backticks.
fn end_of_span(text: &str, run: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(offset) = text[at..].find('`') {
        let start = at + offset;
        let length = text[start..].len() - text[start..].trim_start_matches('`').len();
        at = start + length;
        if length == run {
            return Some(at);
        }
    }
    None
}

/// Targets of `[text](target "title")` and `![text](target)`, also when they are nested.
fn inline_targets(prose: &str) -> Vec<String> {
    let opens = prose.match_indices("](");
    let is_open = |before: &str| before.replace("\\[", "").contains('[') && !before.ends_with('\\');
    let opens = opens.filter(|(at, _)| is_open(&prose[..*at]));
    opens.filter_map(|(at, _)| destination(&prose[at + 2..])).map(|(target, _)| target).collect()
}

/// The target of a reference definition, `[label]: target "title"`; a footnote is none.
fn definition(prose: &str) -> Option<String> {
    let (label, rest) = prose.trim_start().strip_prefix('[')?.split_once("]:")?;
    let as_link = format!("{})", rest.trim());
    let (target, rest) = destination(&as_link)?;
    let is_whole = rest.trim_start().is_empty() || rest.trim_start().starts_with(['"', '\'', '(']);
    let is_definition = !label.starts_with('^') && !label.contains(['[', ']']) && is_whole;
    is_definition.then_some(target)
}

/// The target at the start of what follows an opening parenthesis, and what stands behind it.
fn destination(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    if let Some(rest) = text.strip_prefix('<') {
        let (target, rest) = rest.split_once('>')?;
        return Some((unescaped(target), rest.strip_suffix(')').unwrap_or(rest)));
    }
    let (mut depth, mut escaped) = (0usize, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            ')' => return Some((unescaped(&text[..at]), "")),
            c if c.is_whitespace() => {
                // Only a title may follow, and the link must end on this line.
                let rest = text[at..].trim_start();
                let is_title = rest.starts_with(['"', '\'', '(', ')']) && rest.contains(')');
                return is_title.then(|| (unescaped(&text[..at]), rest));
            }
            _ => {}
        }
    }
    None
}

fn unescaped(target: &str) -> String {
    let mut shown = String::new();
    let mut characters = target.chars().peekable();
    while let Some(character) = characters.next() {
        let escapes = character == '\\' && characters.peek().is_some_and(char::is_ascii_punctuation);
        shown.push(if escapes { characters.next().unwrap_or(character) } else { character });
    }
    shown.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::{folder_with, survey_of};
    use super::*;

    fn targets_of(text: &str) -> Vec<String> {
        targets(text).into_iter().map(|(_, target)| target).collect()
    }

    #[test]
    fn links_are_found_where_markdown_has_them() {
        let table: [(&str, &[&str]); 20] = [
            ("[a](b.md)", &["b.md"]),
            ("![a](b.png \"title\") [c]( d.md )", &["b.png", "d.md"]),
            ("[![a](b.png)](c.md)", &["b.png", "c.md"]),
            ("[a](<b c.md>) [d](e(1).md)", &["b c.md", "e(1).md"]),
            ("[a](b\\_c.md?x&amp;y)", &["b_c.md?x&y"]),
            ("[a]: b.md", &["b.md"]),
            ("  [a]: <b c.md> 'title'", &["b c.md"]),
            ("[a]: b.md \"title\"", &["b.md"]),
            ("[^a]: footnote.md", &[]),
            ("[note]: this is only a sentence", &[]),
            ("`[a](b.md)` ``[`c`](d.md)``", &[]),
            ("a ` [b](c.md)", &["c.md"]),
            ("```\n[a](b.md)\n```\n[c](d.md)", &["d.md"]),
            ("~~~~ text\n~~~\n[a](b.md)\n~~~~~\n[c](d.md)", &["d.md"]),
            ("- item\n  ```sh\n  [a](b.md)\n  ```\n", &[]),
            ("<!-- [a](b.md)\n[c](d.md) --> [e](f.md)", &["f.md"]),
            ("\\[a\\](b.md) a](b.md)", &[]),
            ("[a](two words)", &[]),
            ("[a](unfinished", &[]),
            ("ünï [ä](ö.md)", &["ö.md"]),
        ];
        for (text, expected) in table {
            assert_eq!(targets_of(text), expected, "{text}");
        }
    }

    #[test]
    fn only_relative_targets_within_the_folder_are_judged() {
        let table = [
            ("docs/a.md", "b.md", Some("docs/b.md")),
            ("docs/a.md", "./b.md#part", Some("docs/b.md")),
            ("docs/a.md", "../b.md", Some("b.md")),
            ("docs/a.md", "../../issues", None),
            ("a.md", "b%20c.md?raw=true", Some("b c.md")),
            ("a.md", "100%.md", Some("100%.md")),
            ("a.md", "#part", None),
            ("a.md", "https://example.org/b.md", None),
            ("a.md", "mailto:b@example.org", None),
            ("a.md", "//example.org/b", None),
            ("a.md", "/docs/b.md", None),
            ("a.md", "macro@crate::b", None),
            ("a.md", "{{ site.url }}/b", None),
            ("a.md", "src/b.rs:12", Some("src/b.rs:12")),
        ];
        for (document, target, expected) in table {
            assert_eq!(resolve(document, target), expected.map(PathBuf::from), "{target}");
        }
    }

    #[test]
    fn missing_targets_are_reported_with_their_line() {
        let folder = folder_with(&[
            ("README.md", b"[a](docs/a.md)\n\n[b](docs/b.md#top) ![c](<c d.png>)\n[folder](docs/)\n"),
            ("docs/a.md", b"[up](../README.md) [ignored](../target/x)\n"),
            ("docs/tests.md", b"[gone](gone.md)"),
            (".gitignore", b"target\n"),
            ("target/x", b""),
            ("code.rs", b"[a](missing.md)"),
        ]);
        let result = check(&survey_of(&folder));
        assert_eq!(result["total"], 3);
        assert_eq!(result["documents"], 3);
        assert_eq!(result["checked"], 7);
        let first = &result["findings"][0];
        assert_eq!(
            (&first["file"], &first["line"], &first["severity"]),
            (&json!("README.md"), &json!(3), &json!("high"))
        );
        assert_eq!(first["message"], "link to docs/b.md#top, which does not exist");
        assert_eq!(result["findings"][2]["severity"], "low");
    }
}
