//! What an expression may look like, checked before it is compiled: short, flat, and made of known
//! names only. So neither the compiler's recursion nor the values in between can grow without bound.

use std::collections::BTreeSet;

/// Bytes of one expression.
pub(super) const BYTES_MAX: usize = 4_096;
/// Tokens of one expression; the compiler recurses once for each in the worst case.
const TOKENS_MAX: usize = 256;
/// Brackets within brackets.
const NESTING_MAX: usize = 16;
/// Filters and operators that build a new value from others: `|`, `~`, `+`.
const JOINS_MAX: usize = 16;

/// Filters that an expression may name.
pub(super) const FILTERS: [&str; 21] = [
    "abs", "bool", "count", "d", "default", "first", "float", "int", "join", "last", "length", "lower",
    "max", "min", "replace", "round", "split", "string", "tojson", "trim", "upper",
];
/// Filters that stand for an operator which could repeat texts and lists without bound.
pub(super) const TIMES: &str = "times";
/// Tests that an expression may name after `is`.
pub(super) const TESTS: [&str; 12] = [
    "boolean",
    "defined",
    "endingwith",
    "even",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "undefined",
];
const WORDS: [&str; 13] =
    ["and", "else", "false", "False", "if", "in", "is", "none", "None", "not", "or", "true", "True"];

/// What an expression reads and how much it combines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    /// Each `steps[N]`, as often as it stands there.
    pub(super) steps: Vec<u32>,
    /// How often `operation` stands there.
    pub(super) operation: usize,
    /// How many values are built from others.
    pub(super) joins: usize,
}

impl Checked {
    /// The numbers of the steps it reads, each once.
    pub(super) fn step_set(&self) -> BTreeSet<u32> {
        self.steps.iter().copied().collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'s> {
    Word(&'s str),
    Number(&'s str),
    Text,
    Sign(u8),
}

/// Checks the form of an expression.
///
/// # Errors
/// A sentence about what is not allowed in it.
pub(super) fn check(source: &str) -> Result<Checked, String> {
    if source.len() > BYTES_MAX {
        return Err(format!("an expression has at most {BYTES_MAX} bytes, this one {}", source.len()));
    }
    let tokens = tokens(source)?;
    if tokens.len() > TOKENS_MAX {
        return Err(format!(
            "an expression has at most {TOKENS_MAX} words and signs, this one {}",
            tokens.len()
        ));
    }
    nesting(&tokens)?;
    let mut checked = Checked::default();
    for at in 0..tokens.len() {
        match tokens[at] {
            Token::Word(word) => check_word(&tokens, at, word, &mut checked)?,
            Token::Sign(b'*') => {
                return Err("* is not offered in expressions: for numbers write x|times(y)".into());
            }
            Token::Sign(b'|' | b'~' | b'+') => checked.joins += 1,
            Token::Sign(_) | Token::Number(_) | Token::Text => {}
        }
    }
    if checked.joins > JOINS_MAX {
        let joins = checked.joins;
        return Err(format!(
            "an expression has at most {JOINS_MAX} filters, ~ and + in all, this one {joins}"
        ));
    }
    Ok(checked)
}

fn nesting(tokens: &[Token<'_>]) -> Result<(), String> {
    let mut depth = 0_usize;
    for token in tokens {
        match token {
            Token::Sign(b'(' | b'[' | b'{') => depth += 1,
            Token::Sign(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            return Err(format!("an expression has at most {NESTING_MAX} brackets within brackets"));
        }
    }
    Ok(())
}

fn check_word(tokens: &[Token<'_>], at: usize, word: &str, checked: &mut Checked) -> Result<(), String> {
    let before = at.checked_sub(1).map(|before| tokens[before]);
    let after = |count: usize| tokens.get(at + count).copied();
    let tested = match before {
        Some(Token::Word("is")) => word != "not",
        Some(Token::Word("not")) => at > 1 && tokens[at - 2] == Token::Word("is"),
        _ => false,
    };
    if before == Some(Token::Sign(b'.')) {
        return Ok(());
    }
    if before == Some(Token::Sign(b'|')) {
        let known = FILTERS.contains(&word) || word == TIMES;
        return known.then_some(()).ok_or_else(|| offered("filter", word, &FILTERS));
    }
    if tested {
        return TESTS.contains(&word).then_some(()).ok_or_else(|| offered("test", word, &TESTS));
    }
    match word {
        "steps" => match (after(1), after(2), after(3)) {
            (Some(Token::Sign(b'[')), Some(Token::Number(number)), Some(Token::Sign(b']'))) => {
                let number = number.parse().map_err(|_| format!("there can be no step {number}"))?;
                checked.steps.push(number);
            }
            _ => return Err("write steps[N] with a literal number N".into()),
        },
        "operation" => checked.operation += 1,
        word if WORDS.contains(&word) => {}
        word => return Err(format!("{word} is not known here: an expression sees steps[N] and operation")),
    }
    Ok(())
}

fn offered(what: &str, word: &str, known: &[&str]) -> String {
    format!("there is no {what} {word} in expressions; there are: {}", known.join(", "))
}

fn tokens(source: &str) -> Result<Vec<Token<'_>>, String> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (token, end) = match bytes[at] {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'"' | b'\'' => (Token::Text, after_text(bytes, at)),
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                let end = after(bytes, at, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
                (Token::Word(&source[at..end]), end)
            }
            byte if byte.is_ascii_digit() => {
                let end = after(bytes, at, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
                (Token::Number(&source[at..end]), end)
            }
            byte if b"()[]{}.,:=!<>+-*/%~|".contains(&byte) => (Token::Sign(byte), at + 1),
            _ => {
                let sign = source[at..].chars().next().unwrap_or_default();
                return Err(format!("{} has no meaning in an expression", sign.escape_debug()));
            }
        };
        tokens.push(token);
        at = end;
    }
    Ok(tokens)
}

fn after(bytes: &[u8], start: usize, belongs: impl Fn(u8) -> bool) -> usize {
    start + bytes[start..].iter().take_while(|byte| belongs(**byte)).count()
}

/// Where a text literal ends; one that is not closed takes the rest and is refused by the compiler.
fn after_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != bytes[start] {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reading_of_a_step_is_counted() {
        let checked =
            check("steps[1].a ~ steps[ 12 ]['steps[7]'] ~ steps[1].steps + operation.name").unwrap();
        assert_eq!(checked, Checked { steps: vec![1, 12, 1], operation: 1, joins: 3 });
    }

    #[test]
    fn only_known_names_filters_and_tests_are_taken() {
        for good in ["1 if steps[1].ok is not defined else 2", "not steps[1].x|lower is string", "-1 // 2"] {
            assert!(check(good).is_ok(), "{good}: {:?}", check(good));
        }
        for bad in [
            "range(9)",
            "self",
            "loop",
            "[steps][0]",
            "steps",
            "steps.first",
            "steps['1']",
            "steps[-1]",
            "steps[operation]",
            "steps[4294967296]",
            "steps[1:2]",
            "steps[1 + 1]",
            "1 is divisibleby(2)",
            "operation|pprint",
            "operation|map('upper')",
            "'x' * 9",
            "2 ** 9",
            "caller()",
            "§",
            "a`b",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn length_tokens_nesting_and_joins_are_bounded() {
        let long = format!("'{}'", "x".repeat(BYTES_MAX));
        for bad in [long, "(".repeat(99), "-".repeat(999), ["1"; 20].join("~"), ["1"; 200].join("-")] {
            assert!(check(&bad).is_err(), "{}", &bad[..20]);
        }
    }
}
