//! Checks of one Rust file at a time: sizes, names, docs, words that must not ship, log lines.
//! Each check is a pure function from path and text to violations; none reads a file.

use super::Check;
use super::source::{
    code_only, find, functions, is_identifier, is_test_file, line_of, matching, shipped_code,
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 110;
const BANNED_NAMES: [&str; 8] = ["common", "utils", "util", "misc", "models", "types", "manager", "helpers"];

/// Where `do_send` is right, with the reason. It ignores a full mailbox, so the list stays short.
const DO_SEND_ALLOWED: [(&str, &str); 0] = [];

pub(crate) fn file_length(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let message =
        format!("{path}:{lines}: file has {lines} lines, at most {FILE_LINES_MAX}: split it by concept");
    if lines > FILE_LINES_MAX { vec![message] } else { Vec::new() }
}

pub(crate) fn function_length(path: &str, text: &str) -> Vec<String> {
    let long = functions(text).into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
    long.map(|function| {
        let (line, name, lines) = (function.line, function.name, function.lines);
        format!(
            "{path}:{line}: `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}: move its leaves out"
        )
    })
    .collect()
}

pub(crate) fn line_length(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.chars().count()));
    let long = lines.filter(|(_, chars)| *chars > LINE_CHARS_MAX);
    long.map(|(line, chars)| {
        format!("{path}:{line}: {chars} characters, at most {LINE_CHARS_MAX}: break the line")
    })
    .collect()
}

pub(crate) fn module_docs(path: &str, text: &str) -> Vec<String> {
    let message = format!("{path}:1: begin the file with `//!`: what it owns and what it must never do");
    if text.starts_with("//!") { Vec::new() } else { vec![message] }
}

pub(crate) fn names(path: &str, _text: &str) -> Vec<String> {
    let mut violations = Vec::new();
    // Cargo would build `tests/support.rs` as a test of its own.
    let is_support = path == "tests/support/mod.rs" || path.ends_with("/tests/support/mod.rs");
    if path.ends_with("/mod.rs") && !is_support {
        violations
            .push(format!("{path}:1: name the module `name.rs` beside a folder `name/`, never `mod.rs`"));
    }
    for part in path.split('/') {
        let stem = part.strip_suffix(".rs").unwrap_or(part);
        if BANNED_NAMES.contains(&stem) {
            violations.push(format!("{path}:1: `{stem}` says nothing: name it by the concept it owns"));
        }
    }
    violations
}

pub(crate) fn unfinished_work(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut violations = Vec::new();
    for name in ["todo", "unimplemented", "dbg"] {
        for line in lines_with_word(&code, name, |rest| rest.starts_with('!')) {
            violations
                .push(format!("{path}:{line}: `{name}!` must not be committed: finish it or take it out"));
        }
    }
    for marker in ["FIXME", "XXX"] {
        for line in lines_with_word(text, marker, |_| true) {
            violations.push(format!("{path}:{line}: {marker} marker: mend it now or write an issue"));
        }
    }
    violations
}

pub(crate) fn no_panics(path: &str, text: &str) -> Vec<String> {
    if is_test_file(path) {
        return Vec::new();
    }
    let code = shipped_code(text);
    let mut violations = Vec::new();
    for (index, line) in code.lines().enumerate() {
        for call in [".unwrap()", ".expect("] {
            if line.contains(call) {
                let line = index + 1;
                violations
                    .push(format!("{path}:{line}: `{call}` outside tests: return an error by its name"));
            }
        }
    }
    for line in lines_with_word(&code, "panic", |rest| rest.starts_with('!')) {
        violations.push(format!("{path}:{line}: `panic!` outside tests: return an error by its name"));
    }
    violations
}

pub(crate) fn bounded_sends(path: &str, text: &str) -> Vec<String> {
    if DO_SEND_ALLOWED.iter().any(|(allowed, _reason)| *allowed == path) {
        return Vec::new();
    }
    let lines = lines_with_word(&code_only(text), "do_send", |_| true);
    let advice = "`do_send` ignores a full mailbox: use `try_send` or await `send`";
    lines.into_iter().map(|line| format!("{path}:{line}: {advice}")).collect()
}

pub(crate) fn log_messages(path: &str, text: &str) -> Vec<String> {
    let original: Vec<char> = text.chars().collect();
    let code: Vec<char> = code_only(text).chars().collect();
    let mut violations = Vec::new();
    for name in ["trace!", "debug!", "info!", "warn!", "error!"] {
        let mut at = 0;
        while let Some(start) = find(&code, name, at) {
            let open = start + name.len();
            at = open;
            let is_word = start == 0 || !is_identifier(code[start - 1]);
            if !is_word || code.get(open) != Some(&'(') {
                continue;
            }
            let message = message_literal(&original, &code, open);
            let line = line_of(&code, start);
            if message.chars().next().is_some_and(char::is_uppercase) {
                violations.push(format!("{path}:{line}: begin the log message in lower case: \"{message}\""));
            }
            if message.ends_with('.') {
                violations
                    .push(format!("{path}:{line}: end the log message without a full stop: \"{message}\""));
            }
        }
    }
    violations
}

/// The first argument that is nothing but a string literal; fields (`name = "value"`) are not messages.
fn message_literal(original: &[char], code: &[char], open: usize) -> String {
    let close = matching(code, open) - 1;
    let mut start = open + 1;
    while start < close {
        let mut end = start;
        while end < close && code[end] != ',' {
            end = if matches!(code[end], '(' | '[' | '{') { matching(code, end) } else { end + 1 };
        }
        let end = end.min(close);
        let is_blank = code[start..end].iter().all(|c| c.is_whitespace());
        let argument: String = original[start..end].iter().collect();
        let literal = argument.trim().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        if let (true, Some(literal)) = (is_blank, literal) {
            return literal.to_owned();
        }
        start = end + 1;
    }
    String::new()
}

/// Lines on which `word` stands alone and is followed by what `accepts` wants; a line counts once.
pub(crate) fn lines_with_word(text: &str, word: &str, accepts: impl Fn(&str) -> bool) -> Vec<usize> {
    let has_word = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + word.len()..]);
            !before.ends_with(is_identifier) && !after.starts_with(is_identifier) && accepts(after)
        })
    };
    text.lines().enumerate().filter(|(_, line)| has_word(line)).map(|(index, _)| index + 1).collect()
}

/// Counts what a check says about a snippet, so that the tables below stay one line a case.
fn count(check: Check, path: &str, text: &str) -> usize {
    check(path, text).len()
}

#[test]
fn sizes_are_checked_at_their_limits() {
    assert_eq!(count(file_length, "src/a.rs", &"x\n".repeat(500)), 0);
    assert_eq!(count(file_length, "src/a.rs", &"x\n".repeat(501)), 1);
    assert_eq!(count(line_length, "src/a.rs", &"ä".repeat(110)), 0);
    assert_eq!(
        line_length("src/a.rs", &format!("a\n{}", "x".repeat(111)))[0].split(": ").next(),
        Some("src/a.rs:2")
    );
    assert_eq!(count(function_length, "src/a.rs", &format!("fn a() {{{}}}", "\n".repeat(69))), 0);
    assert_eq!(count(function_length, "src/a.rs", &format!("fn a() {{{}}}", "\n".repeat(70))), 1);
}

#[test]
fn docs_and_names_are_checked() {
    assert_eq!(count(module_docs, "src/a.rs", "//! Owns a."), 0);
    assert_eq!(count(module_docs, "src/a.rs", "use a;\n//! Late."), 1);
    let table = [
        ("src/http.rs", 0),
        ("src/http/mod.rs", 1),
        ("tests/support/mod.rs", 0),
        ("events/tests/support/mod.rs", 0),
        ("src/utils.rs", 1),
        ("src/common/a.rs", 1),
        ("src/models/types.rs", 2),
    ];
    for (path, violations) in table {
        assert_eq!(count(names, path, ""), violations, "{path}");
    }
}

#[test]
fn unfinished_work_is_found_in_code_and_markers_in_comments_too() {
    let table = [
        ("fn a() { todo!() }", 1),
        ("unimplemented!(); dbg!(x);", 2),
        ("my_dbg!(x); // todo!()", 0),
        ("let a = \"todo!\";", 0),
        ("// FIXME: later", 1),
        ("// XXX\n// XXXL", 1),
    ];
    for (text, violations) in table {
        assert_eq!(count(unfinished_work, "src/a.rs", text), violations, "{text}");
    }
}

#[test]
fn panics_are_found_outside_tests_only() {
    let table = [
        ("src/a.rs", "a.unwrap();\nb\n    .expect(\"c\");", 2),
        ("src/a.rs", "panic!(\"a\"); don_t_panic!();", 1),
        ("src/a.rs", "a.unwrap_or(b); #[expect(dead_code)] // .unwrap()", 0),
        ("src/a.rs", "#[cfg(test)]\nmod tests { fn a() { b.unwrap() } }", 0),
        ("src/a.rs", "#[cfg(test)]\nmod tests {}\nfn a() { b.unwrap() }", 1),
        ("tests/a.rs", "a.unwrap()", 0),
        ("events/tests/a.rs", "a.unwrap()", 0),
        ("events/src/conformance.rs", "a.unwrap()", 0),
    ];
    for (path, text, violations) in table {
        assert_eq!(count(no_panics, path, text), violations, "{text}");
    }
}

#[test]
fn unbounded_sends_are_found() {
    assert_eq!(count(bounded_sends, "actors/src/a.rs", "addr.do_send(b); // not do_send"), 1);
    assert_eq!(count(bounded_sends, "actors/src/a.rs", "addr.try_send(b)"), 0);
}

#[test]
fn log_messages_are_lower_case_without_a_full_stop() {
    let table = [
        ("info!(\"server ready\");", 0),
        ("info!(\"Server ready\");", 1),
        ("tracing::warn!(port, name = \"Upper.\", \"slow disk.\");", 1),
        ("error!(error = %f(a, \"B\"), \"Gone.\");", 2),
        ("debug!(name = \"Upper.\");", 0),
        ("warn!(\n    \"Two lines\",\n);", 1),
        ("my_info!(\"Not a log line.\");", 0),
    ];
    for (text, violations) in table {
        assert_eq!(count(log_messages, "src/a.rs", text), violations, "{text}");
    }
}
