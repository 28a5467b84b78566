//! Owns the words for a body that cannot be read: where it is wrong, and what would be right.
//! It must never show a Rust type's name or repeat a value that the client sent.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use crate::http::error::{ApiError, Code, FieldError};
use crate::http::query::{did_you_mean, shown};

/// Reads JSON into `T`, or says what is wrong.
///
/// # Errors
/// 400 `malformed_json` and `unknown_field`, 422 `invalid_field`.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // The parser looks at the encoding of those texts only that it keeps; this holds for all.
    let text = std::str::from_utf8(bytes).map_err(|error| not_utf8(bytes, error.valid_up_to()))?;
    // Serde would take an array for an object and its items for the fields by their order.
    if text.trim_start().starts_with('[') {
        return Err(ApiError::invalid_field("", "the body must be an object, not an array"));
    }
    // The usual body is right; only a wrong one is worth the search for the place.
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let pointer = pointer_to(error.path());
        // The parser calls it a fault of syntax when one of a few words is something else than text.
        let sound = || serde_json::from_str::<IgnoredAny>(text).is_ok();
        if error.inner().to_string().starts_with("expected value") && sound() {
            let detail = format!("{} must be text.", named(&pointer));
            return invalid(pointer, detail, "wrong_type");
        }
        refusal(&pointer, error.inner())
    })?;
    parser.end().map_err(|error| refusal("", &error))?;
    Ok(value)
}

/// Reads what stands within a field, and names the place within it that is wrong.
///
/// # Errors
/// The parser's words, or a sentence with the place.
pub(super) fn within<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (pointer, message) = (pointer_to(error.path()), error.inner().to_string());
        match message.starts_with("invalid") && !pointer.is_empty() {
            true => described(&pointer, &message).0.trim_end_matches('.').to_owned(),
            false => message,
        }
    })
}

fn not_utf8(bytes: &[u8], at: usize) -> ApiError {
    let before = bytes.get(..at).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    malformed("it is not valid UTF-8", line, column)
}

fn malformed(what: &str, line: usize, column: usize) -> ApiError {
    let place = format!("line {line}, column {column}");
    let message = format!("The body is not valid JSON: {what}, at {place}. Correct it and send it again.");
    ApiError::new(Code::MalformedJson, message)
        .with(FieldError::at("", format!("{what}, at {place}")).code(Code::MalformedJson.slug()))
}

fn refusal(pointer: &str, error: &serde_json::Error) -> ApiError {
    let whole = error.to_string();
    // The parser appends the place; it is told apart here, since only a fault of syntax needs it.
    let message = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(message, _)| message);
    let quoted = quoted_names(message);
    let first = quoted.first().copied().unwrap_or_default();
    match error.classify() {
        Category::Data if message.starts_with("duplicate field ") => {
            malformed(&format!("the field '{}' is given twice", shown(first)), error.line(), error.column())
        }
        Category::Data if message.starts_with("unknown field ") => {
            unknown_field(pointer, first, quoted.get(1..).unwrap_or_default())
        }
        Category::Data if message.starts_with("missing field ") => {
            let pointer = format!("{pointer}/{}", escaped(first));
            let detail = format!("The field '{}' is missing; it is required.", shown(&pointer));
            invalid(pointer, detail, "missing")
        }
        Category::Data if message.starts_with("unknown variant ") => {
            let known = quoted.get(1..).unwrap_or_default();
            let meant = did_you_mean(first, known);
            let detail = format!("{} must be one of {}.{meant}", named(pointer), known.join(", "));
            invalid(pointer.to_owned(), detail, "unknown_value")
        }
        Category::Data => {
            let (detail, code) = described(pointer, message);
            invalid(pointer.to_owned(), detail, code)
        }
        Category::Syntax | Category::Eof | Category::Io => {
            // The parser's own word for `true`, `false` and `null` is one for programmers.
            let message = if message == "expected ident" { "expected true, false or null" } else { message };
            malformed(message, error.line(), error.column())
        }
    }
}

fn invalid(pointer: String, detail: String, code: &str) -> ApiError {
    ApiError::new(Code::InvalidField, detail.clone()).with(FieldError::at(pointer, detail).code(code))
}

fn unknown_field(pointer: &str, name: &str, known: &[&str]) -> ApiError {
    let parent = pointer.strip_suffix(&format!("/{}", escaped(name))).unwrap_or(pointer);
    let within = if parent.is_empty() { String::new() } else { format!(" in '{}'", shown(parent)) };
    let listed = match known {
        [] => "No field is known here.".to_owned(),
        known => format!("Known here: {}.", known.join(", ")),
    };
    let meant = did_you_mean(name, known);
    let detail = format!("The field '{}'{within} is not known.{meant} {listed}", shown(name));
    let place = format!("{parent}/{}", escaped(name));
    ApiError::new(Code::UnknownField, detail.clone()).with(FieldError::at(place, detail))
}

/// "invalid type: string "x", expected u64" in words for people.
fn described(pointer: &str, message: &str) -> (String, &'static str) {
    let parts = message.split_once(", expected ").and_then(|(found, expected)| {
        let (kind, found) = found.split_once(": ").or_else(|| found.split_once(' '))?;
        Some((kind, found, expected))
    });
    let named = named(pointer);
    match parts {
        Some(("invalid type", found, expected)) => {
            (format!("{named} must be {}, not {}.", wanted(expected), given(found)), "wrong_type")
        }
        Some((kind, _, expected)) if kind.starts_with("invalid") => {
            (format!("{named} must be {}.", wanted(expected)), "bad_value")
        }
        // A rule of a type of our own: it is a sentence already.
        _ => (format!("{named} cannot be used: {}.", message.trim_end_matches('.')), "bad_value"),
    }
}

fn named(pointer: &str) -> String {
    if pointer.is_empty() { "The body".to_owned() } else { format!("The field '{}'", shown(pointer)) }
}

fn wanted(expected: &str) -> &str {
    let first = expected.split([' ', '<']).next().unwrap_or_default();
    match first {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number of at least 0",
        "i8" | "i16" | "i32" | "i64" | "isize" | "integer" => "a whole number",
        "f32" | "f64" => "a number",
        "string" | "str" | "borrowed" | "option" => "text",
        "boolean" | "bool" => "true or false",
        "struct" | "map" | "internally" | "adjacently" | "enum" | "unit" => "an object",
        "sequence" | "tuple" | "array" => "a list",
        "a" | "an" => wanted_after_article(expected),
        _ if expected.contains("::") => "another kind of value",
        _ => expected,
    }
}

fn wanted_after_article(expected: &str) -> &str {
    match expected {
        "a string" | "a borrowed string" | "a character" => "text",
        "a boolean" => "true or false",
        "a map" => "an object",
        "a sequence" => "a list",
        _ if expected.contains("::") => "another kind of value",
        _ => expected,
    }
}

fn given(found: &str) -> &'static str {
    match found.split(' ').next().unwrap_or_default() {
        "string" | "character" => "text",
        "integer" => "a whole number",
        "floating" => "a decimal number",
        "boolean" => "true or false",
        "null" | "Option" | "unit" => "null",
        "map" | "struct" | "newtype" => "an object",
        "sequence" | "tuple" => "a list",
        _ => "something else",
    }
}

/// The names between backquotes. A name of the client's may hold a backquote; then the rest is unusable,
/// which costs a suggestion and nothing else.
fn quoted_names(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

fn pointer_to(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escaped(key))),
            Segment::Enum { variant } => pointer.push_str(&format!("/{}", escaped(variant))),
            Segment::Unknown => {}
        }
    }
    pointer
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by the parser")]
    struct Wish {
        name: String,
        #[serde(default)]
        timeout_ms: u32,
        #[serde(default)]
        steps: Vec<Step>,
        #[serde(default)]
        free: BTreeMap<String, serde_json::Value>,
        #[serde(default)]
        mode: Option<Mode>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by the parser")]
    struct Step {
        id: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        Strict,
        Relaxed,
    }

    fn refused(body: impl AsRef<[u8]>) -> ApiError {
        parse::<Wish>(body.as_ref()).unwrap_err()
    }

    fn pointer(error: &ApiError) -> &str {
        error.errors[0].pointer.as_deref().unwrap()
    }

    #[test]
    fn broken_syntax_is_malformed_with_line_and_column() {
        let deep =
            format!("{{\"name\":\"x\",\"free\":{{\"a\":{}{}}}}}", "[".repeat(10_000), "]".repeat(10_000));
        let cases: [(&[u8], &str); 11] = [
            (b"", "line 1"),
            (b"{\"name\": \"x\"", "line 1, column 12"),
            (b"{\n  \"name\": nope}", "line 2, column 12"),
            (b"{\"name\":\"x\"} x", "line 1, column 14"),
            (b"{\"name\":\"x\",\"timeoutMs\":NaN}", "line 1"),
            (b"{\"name\":\"x\",\"free\":{\"a\":1e999}}", "line 1"),
            (b"{\"name\":\"\\ud800\"}", "line 1"),
            (b"{\"name\":\n\"\xff\"}", "line 2, column 2"),
            (b"{\"name\":\"x\",\"name\":\"y\"}", "'name' is given twice"),
            (b"{\"name\":\"a\x00b\"}", "line 1"),
            (deep.as_bytes(), "line 1"),
        ];
        for (body, place) in cases {
            let error = refused(body);
            assert_eq!(error.code, Code::MalformedJson, "{error}");
            assert!(error.message.contains(place), "{error}");
        }
    }

    #[test]
    fn an_unknown_field_is_named_with_the_nearest() {
        let error = refused(r#"{"name":"x","timeoutMS":5}"#);
        assert_eq!((error.code, pointer(&error)), (Code::UnknownField, "/timeoutMS"));
        assert!(error.message.contains("Did you mean 'timeoutMs'?"), "{error}");
        let error = refused(r#"{"name":"x","steps":[{"id":"a"},{"idd":"b"}]}"#);
        assert_eq!((error.code, pointer(&error)), (Code::UnknownField, "/steps/1/idd"));
        assert!(error.message.contains("in '/steps/1'"), "{error}");
    }

    #[test]
    fn a_missing_or_wrong_field_is_422_with_its_pointer() {
        let cases = [
            (r#"{}"#, "/name", "is missing"),
            (r#"{"name":"x","steps":[{"id":"a"},{}]}"#, "/steps/1/id", "is missing"),
            (r#"{"name":5}"#, "/name", "must be text, not a whole number."),
            (r#"{"name":null}"#, "/name", "must be text, not null."),
            (r#"{"name":"x","timeoutMs":-5}"#, "/timeoutMs", "must be a whole number from 0 to 4294967295."),
            (r#"{"name":"x","timeoutMs":"5"}"#, "/timeoutMs", "not text."),
            (r#"{"name":"x","timeoutMs":1.5}"#, "/timeoutMs", "not a decimal number."),
            (r#"{"name":"x","steps":{}}"#, "/steps", "must be a list, not an object."),
            (r#"{"name":"x","steps":[5]}"#, "/steps/0", "must be an object, not a whole number."),
            (r#"{"name":"x","mode":"strikt"}"#, "/mode", "Did you mean 'strict'?"),
            (r#"[]"#, "", ""),
            (r#""x""#, "", "The body must be an object, not text."),
        ];
        for (body, place, words) in cases {
            let error = refused(body);
            assert_eq!((error.code, pointer(&error)), (Code::InvalidField, place), "{error}");
            assert!(error.message.contains(words), "{error}");
        }
    }

    #[test]
    fn no_type_name_and_no_value_of_the_client_is_shown() {
        for body in [r#"{"name":{"secret":1}}"#, r#"{"name":"x","steps":["secret"]}"#, r#"5"#] {
            let message = refused(body).message;
            let leaked =
                ["Wish", "Step", "secret", "struct", "`"].iter().find(|word| message.contains(**word));
            assert!(leaked.is_none(), "{message}");
        }
    }

    #[test]
    fn pointers_are_escaped() {
        #[derive(Debug, Deserialize)]
        struct Numbers(#[expect(dead_code, reason = "only read by the parser")] BTreeMap<String, u8>);
        let error = parse::<Numbers>(br#"{"a/b~c":"x"}"#).unwrap_err();
        assert_eq!(pointer(&error), "/a~1b~0c");
    }
}
