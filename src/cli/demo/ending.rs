//! Owns the last page of the demo: the totals, what to fix first, where everything lies, what to do next. It
//! tells what the report says and counts nothing itself.

use std::path::Path;

use serde_json::Value;

use super::place::Place;
use super::plan::{MANIFEST, REPORT};
use crate::cli::exit::{Complaint, Exit};
use crate::cli::output;
use crate::cli::terminal::{Style, between, plain, span};
use crate::client::{Client, DEFAULT_SERVER};
use crate::http::operation_view::OperationView;

const WHY_CHARS_MAX: usize = 120;

/// Writes the report and prints the last page.
pub(super) fn tell(
    client: &Client,
    place: &Place,
    operation: &OperationView,
    keep: bool,
) -> Result<Exit, Complaint> {
    let results = operation.results.as_ref();
    let result =
        |step: u32| results.and_then(|all| all.get(&step)).map(domain::Json::value).unwrap_or_default();
    let (manifest, report) = (result(MANIFEST), result(REPORT));
    let file = place.report();
    std::fs::write(&file, report["markdown"].as_str().unwrap_or_default()).map_err(|cause| {
        Complaint::new(Exit::FAILED, format!("The report {} cannot be written: {cause}.", file.display()))
    })?;
    let style = Style::of_stdout();
    let lasted = span(between(operation.created_at, operation.completed_at.unwrap_or(operation.created_at)));
    let mut lines = vec![format!("\nThe review of {} is done after {lasted}.\n", place.folder.display())];
    lines.extend(totals(&report["totals"]));
    lines.push(skipped(&manifest["skipped"]));
    lines.extend(first(&report["first"], style));
    lines.push(format!("\nReport  {}", file.display()));
    lines.push(format!("Log     {}\n", place.data.display()));
    lines.extend(next(client, place, &operation.id, keep, style));
    output::print(&lines.join("\n"))
}

fn totals(totals: &Value) -> Vec<String> {
    let names = [
        ("files", "files"),
        ("lines", "lines"),
        ("todoMarks", "to-do marks"),
        ("duplicates", "duplicates"),
        ("brokenLinks", "broken links"),
        ("secrets", "things that look like secrets"),
    ];
    let total =
        |key: &str| totals[key].as_u64().map_or_else(|| "unknown".to_owned(), |total| total.to_string());
    names.iter().map(|(key, name)| format!("{:>9}  {name}", total(key))).collect()
}

fn skipped(skipped: &Value) -> String {
    let names = [
        ("ignored", "ignored"),
        ("binary", "binary"),
        ("links", "links"),
        ("tooLarge", "too large"),
        ("unreadable", "unreadable"),
    ];
    let counted = names.iter().filter_map(|(key, name)| {
        skipped[key].as_u64().filter(|count| *count > 0).map(|count| format!("{count} {name}"))
    });
    let counted: Vec<String> = counted.collect();
    let counted = if counted.is_empty() { "nothing".to_owned() } else { counted.join(", ") };
    format!("           skipped: {counted}")
}

fn first(first: &Value, style: Style) -> Vec<String> {
    let first = first.as_array().map_or(&[][..], Vec::as_slice);
    let title = match first.len() {
        0 => return vec!["\nThere is nothing to fix.".to_owned()],
        1 => "Fix this first".to_owned(),
        10 => "Fix these ten first".to_owned(),
        count => format!("Fix these {count} first"),
    };
    let item = |(at, finding): (usize, &Value)| {
        let text = |key: &str| plain(finding[key].as_str().unwrap_or_default());
        let why: String = text("why").chars().take(WHY_CHARS_MAX).collect();
        format!("{:>3}. {}:{}  {why}", at + 1, text("file"), finding["line"])
    };
    [format!("\n{}", style.bold(&title))].into_iter().chain(first.iter().enumerate().map(item)).collect()
}

/// Commands to copy, which find this run again.
fn next(client: &Client, place: &Place, id: &str, keep: bool, style: Style) -> Vec<String> {
    let photon = invocation();
    let default_port = client.server() == DEFAULT_SERVER;
    let server = if default_port { String::new() } else { format!(" --server {}", client.server()) };
    let port = client.server().rsplit(':').next().unwrap_or_default();
    let port = if default_port { String::new() } else { format!("PHOTON_PORT={port} ") };
    let mut lines = Vec::new();
    if keep {
        lines.push(style.bold("See what happened (in another terminal)"));
    } else {
        let data = quoted(&place.data.to_string_lossy());
        lines.push(style.bold("See what happened: open the log again"));
        lines.push(format!("  PHOTON_DATA_DIR={data} {port}{photon} serve"));
        lines.push(style.bold("and ask, in another terminal, how it went and why each agent was chosen"));
    }
    lines.push(format!("  {photon} op get {id}{server}"));
    lines.push(format!("  {photon} event list --operation {id}{server}"));
    lines
}

/// How this program was called, so that the next call is made alike.
fn invocation() -> String {
    let called = std::env::args_os().next().map(|called| called.to_string_lossy().into_owned());
    let called = called.unwrap_or_else(|| "photon".to_owned());
    // Cargo says so to what it runs.
    if std::env::var_os("CARGO_MANIFEST_DIR").is_some() && std::env::var_os("CARGO").is_some() {
        let is_release = Path::new(&called).parent().is_some_and(|folder| folder.ends_with("release"));
        return format!("cargo run{} --", if is_release { " --release" } else { "" });
    }
    quoted(&called)
}

/// A word that a shell reads as it is.
fn quoted(word: &str) -> String {
    let harmless = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_word_is_quoted_only_when_a_shell_would_split_it() {
        for (word, written) in [("/a/b-c.d", "/a/b-c.d"), ("a b", "'a b'"), ("a'b", r"'a'\''b'"), ("", "''")]
        {
            assert_eq!(quoted(word), written);
        }
    }

    #[test]
    fn a_total_that_nobody_counted_is_unknown() {
        let lines = totals(&json!({"files": 3, "lines": null}));
        assert_eq!(lines[..2], ["        3  files", "  unknown  lines"]);
        assert_eq!(skipped(&json!({"binary": 2, "links": 0})), "           skipped: 2 binary");
    }

    #[test]
    fn what_to_fix_first_is_numbered_with_its_place() {
        let lines = first(&json!([{"file": "a.rs", "line": 7, "why": "x\u{1b}y"}]), Style::PLAIN);
        assert_eq!(lines, ["\nFix this first", "  1. a.rs:7  x y"]);
    }
}
