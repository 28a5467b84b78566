//! Reads Rust source just well enough for the checks: what is code, what is test code, where functions end.
//! It must never become a parser; a construct it cannot follow is written differently in the source.

/// Files that are compiled only under the feature `testing`, and so may assert like a test.
const TESTING_FILES: [&str; 3] =
    ["events/src/conformance.rs", "events/src/faulty_log.rs", "domain/src/scenario.rs"];

/// Says whether a whole file is test code.
pub(crate) fn is_test_file(path: &str) -> bool {
    let in_test_folder = path.split('/').any(|part| matches!(part, "tests" | "benches"));
    in_test_folder || path.ends_with("/tests.rs") || TESTING_FILES.contains(&path)
}

pub(crate) fn is_identifier(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Gives the text with comments and literals turned into spaces; lines and columns stay where they were.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        match end_of_skipped(&chars, at) {
            Some(end) => {
                code.extend(chars[at..end].iter().map(blank));
                at = end;
            }
            None => {
                code.push(chars[at]);
                at += 1;
            }
        }
    }
    code
}

/// Gives the code that ships: `code_only` without the items under `#[cfg(test)]` or the feature `testing`.
pub(crate) fn shipped_code(text: &str) -> String {
    let original: Vec<char> = text.chars().collect();
    let mut code: Vec<char> = code_only(text).chars().collect();
    let mut at = 0;
    while let Some(start) = find(&code, "#", at) {
        at = start + 1;
        let Some(open) = code[start..].iter().position(|c| *c == '[').map(|offset| start + offset) else {
            break;
        };
        let inner = open == start + 2 && code[start + 1] == '!';
        let end = matching(&code, open);
        let attribute: String = original[open..end].iter().collect();
        let is_test =
            attribute.starts_with("[cfg(") && attribute.contains("test") && !attribute.contains("not(");
        if (open == start + 1 || inner) && is_test {
            let item_end = if inner { code.len() } else { end_of_item(&code, end) };
            code[start..item_end].iter_mut().for_each(|c| *c = blank(c));
        }
    }
    code.into_iter().collect()
}

/// A function: the line of its `fn`, its name, and its length up to the closing brace.
pub(crate) struct Function {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) lines: usize,
}

/// Lists the functions that have a body.
pub(crate) fn functions(text: &str) -> Vec<Function> {
    let code: Vec<char> = code_only(text).chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = find(&code, "fn ", at) {
        at = start + 3;
        let name: String = code[at..].iter().take_while(|c| is_identifier(**c)).collect();
        let is_word = start == 0 || !is_identifier(code[start - 1]);
        if is_word && !name.is_empty() {
            let end = end_of_item(&code, at);
            let lines = 1 + code[start..end].iter().filter(|c| **c == '\n').count();
            found.push(Function { line: line_of(&code, start), name, lines });
        }
    }
    found
}

/// The 1-based line of a character.
pub(crate) fn line_of(chars: &[char], at: usize) -> usize {
    1 + chars[..at].iter().filter(|c| **c == '\n').count()
}

/// Finds an ASCII needle at or after `from`.
pub(crate) fn find(chars: &[char], needle: &str, from: usize) -> Option<usize> {
    let needle: Vec<char> = needle.chars().collect();
    let tail = chars.get(from..)?;
    tail.windows(needle.len()).position(|window| window == needle).map(|offset| from + offset)
}

/// The index just after the bracket that closes the one at `open`.
pub(crate) fn matching(code: &[char], open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, character) in code[open..].iter().enumerate() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

/// The index just after the item that begins at `from`: its `;` or the brace that closes its body.
fn end_of_item(code: &[char], from: usize) -> usize {
    let mut at = from;
    while at < code.len() {
        match code[at] {
            ';' => return at + 1,
            '{' => return matching(code, at),
            '}' => return at,
            '(' | '[' => at = matching(code, at),
            _ => at += 1,
        }
    }
    code.len()
}

fn blank(character: &char) -> char {
    if *character == '\n' { '\n' } else { ' ' }
}

/// The end of the comment or literal that begins at `at`, if one does.
fn end_of_skipped(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => Some(find(chars, "\n", at).unwrap_or(chars.len())),
        '/' if next == Some('*') => Some(end_of_block_comment(chars, at)),
        '"' => Some(end_of_string(chars, at)),
        '\'' if next == Some('\\') => find(chars, "'", at + 3).map(|quote| quote + 1),
        // Anything else behind a quote is a lifetime.
        '\'' if chars.get(at + 2) == Some(&'\'') => Some(at + 3),
        'r' | 'b' | 'c' if at == 0 || !is_identifier(chars[at - 1]) => end_of_raw_string(chars, at),
        _ => None,
    }
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0usize, start);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn end_of_raw_string(chars: &[char], start: usize) -> Option<usize> {
    let r = if chars[start] == 'r' { start } else { start + 1 };
    if chars.get(r) != Some(&'r') {
        return None;
    }
    let hashes = chars[r + 1..].iter().take_while(|c| **c == '#').count();
    let quote = r + 1 + hashes;
    if chars.get(quote) != Some(&'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    Some(find(chars, &close, quote + 1).map_or(chars.len(), |end| end + close.len()))
}

#[test]
fn comments_and_literals_are_not_code() {
    let table = [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("f(\"x\\\"y\")", "f(      )"),
        ("f(r#\"x\"y\"#, br\"z\")", "f(        ,      )"),
        ("let r#type: &'a str = 'x'; '\\''", "let r#type: &'a str =    ;     "),
    ];
    for (text, code) in table {
        assert_eq!(code_only(text), code, "{text}");
    }
}

#[test]
fn test_items_do_not_ship() {
    let table = [
        ("a #[cfg(test)] mod tests { fn b() {} } c", "a c"),
        ("a #[cfg(any(test, feature = \"testing\"))] pub mod b; c", "a c"),
        ("a #[cfg(not(test))] b; c", "a #[cfg(not(test))] b; c"),
        ("a #[cfg(test)] #[allow(x)] fn b(c: [u8; 4]) { d } e", "a e"),
        ("//! Doc.\n#![cfg(test)]\nfn a() {}", ""),
        ("#[derive(Debug)] a", "#[derive(Debug)] a"),
    ];
    for (text, expected) in table {
        let code = shipped_code(text);
        assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{text}");
    }
}

#[test]
fn functions_are_measured_to_their_closing_brace() {
    let text = "fn a(b: [u8; 2]) -> u8 {\n  if b { \"}\" }\n}\ntrait T { fn c(); }\nlet x: fn (u8);";
    let found: Vec<_> = functions(text).into_iter().map(|f| (f.line, f.name, f.lines)).collect();
    assert_eq!(found, [(1, "a".to_owned(), 3), (4, "c".to_owned(), 1)]);
}
