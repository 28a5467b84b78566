//! Splits an expression into words, numbers, texts and signs. It must never look at what they mean.

use serde_json::Number;

/// Bytes of one expression.
pub(super) const BYTES_MAX: usize = 4_096;
/// Tokens of one expression. The parser and the evaluator recurse at most once for each.
const TOKENS_MAX: usize = 256;
/// Signs, the longer ones first.
const SIGNS: [&str; 24] = [
    "==", "!=", "<=", ">=", "//", "**", "(", ")", "[", "]", "{", "}", ".", ",", ":", "<", ">", "+", "-", "*",
    "/", "%", "~", "|",
];

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'s> {
    Word(&'s str),
    Number(Number),
    Text(String),
    Sign(&'static str),
}

/// Splits `source`.
///
/// # Errors
/// A sentence about what has no meaning, or is too long.
pub(super) fn tokens(source: &str) -> Result<Vec<Token<'_>>, String> {
    if source.len() > BYTES_MAX {
        return Err(format!("an expression has at most {BYTES_MAX} bytes, this one {}", source.len()));
    }
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while let Some(first) = rest.chars().next() {
        if tokens.len() == TOKENS_MAX {
            return Err(format!("an expression has at most {TOKENS_MAX} words and signs"));
        }
        let (token, len) = match first {
            '"' | '\'' => text(rest, first)?,
            '0'..='9' => number(rest)?,
            'a'..='z' | 'A'..='Z' | '_' => {
                let len =
                    rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                (Token::Word(&rest[..len]), len)
            }
            other => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
                Some(sign) => (Token::Sign(sign), sign.len()),
                None => return Err(format!("{} has no meaning in an expression", other.escape_debug())),
            },
        };
        tokens.push(token);
        rest = rest[len..].trim_start();
    }
    Ok(tokens)
}

fn number(rest: &str) -> Result<(Token<'_>, usize), String> {
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut len = digits(0);
    let whole = len;
    if bytes.get(len) == Some(&b'.') && digits(len + 1) > 0 {
        len += 1 + digits(len + 1);
    }
    if matches!(bytes.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
        if digits((len + 1 + sign).min(bytes.len())) > 0 {
            len += 1 + sign + digits(len + 1 + sign);
        }
    }
    if bytes.get(len).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
        return Err("a number must be followed by a space or a sign".into());
    }
    let written = &rest[..len];
    let number = match written.parse::<u64>() {
        Ok(number) => Some(Number::from(number)),
        Err(_) if len == whole => None,
        Err(_) => written.parse::<f64>().ok().and_then(Number::from_f64),
    };
    let number = number.ok_or_else(|| format!("the number {written} is too large; write it as a text"))?;
    Ok((Token::Number(number), len))
}

fn text(rest: &str, quote: char) -> Result<(Token<'_>, usize), String> {
    let mut text = String::new();
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            _ if letter == quote => return Ok((Token::Text(text), at + 1)),
            '\\' => {
                let escaped = letters.next().map(|(_, letter)| letter);
                text.push(match escaped {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(plain @ ('\\' | '"' | '\'' | '/')) => plain,
                    Some('u') => unicode(&mut letters)?,
                    _ => return Err(r#"in a text, \ is followed by one of n r t \ / " ' u"#.into()),
                });
            }
            letter => text.push(letter),
        }
    }
    Err("a text is not closed by the quote that opens it".into())
}

fn unicode(letters: &mut impl Iterator<Item = (usize, char)>) -> Result<char, String> {
    let digits: String = letters.take(4).map(|(_, letter)| letter).collect();
    let code =
        u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4 && !digits.starts_with('+'));
    let named = code.and_then(char::from_u32);
    named.ok_or_else(|| r"in a text, \u is followed by four hexadecimal digits of one character".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_texts_and_signs_are_told_apart() {
        let found = tokens(r#"steps[12].a>=-1.5e2//'it\'s \u00e9' ~ "}}""#).unwrap();
        let number = |text: &str| Token::Number(serde_json::from_str(text).unwrap());
        let (sign, text) = (Token::Sign, |text: &str| Token::Text(text.into()));
        let expected = vec![
            Token::Word("steps"),
            sign("["),
            number("12"),
            sign("]"),
            sign("."),
            Token::Word("a"),
            sign(">="),
            sign("-"),
            number("150.0"),
            sign("//"),
            text("it's é"),
            sign("~"),
            text("}}"),
        ];
        assert_eq!(found, expected);
        assert_eq!(tokens("18446744073709551615").unwrap(), [number("18446744073709551615")]);
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        for bad in [
            "§",
            "a`b",
            "'open",
            r"'\x'",
            r"'\u12'",
            r"'\ud800'",
            "1a",
            "1_000",
            "18446744073709551616",
            "1e999",
            "a = b",
            "!a",
            "a & b",
        ] {
            assert!(tokens(bad).is_err(), "{bad}");
        }
        assert!(tokens(&"-".repeat(TOKENS_MAX + 1)).is_err());
        assert!(tokens(&format!("'{}'", "x".repeat(BYTES_MAX))).is_err());
    }
}
