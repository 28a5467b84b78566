//! Texts that agents write in their reports: cut and cleaned, so that no report is refused for its wording.
//! It must never refuse one.

use crate::bounds::is_plain;

/// Characters of a note about progress, and of a person's reason.
pub const NOTE_MAX: usize = 1_024;
/// Characters of a failure's message.
pub const MESSAGE_MAX: usize = 4_096;
/// Characters of the reason for which an agent gives a step back.
pub const REASON_MAX: usize = 256;
/// Characters of a failure's code.
pub const CODE_MAX: usize = 64;
/// The code of a failure that states none.
const NO_CODE: &str = "failed";

/// One line of at most `max` characters: letters that steer a terminal or turn the direction of writing
/// become spaces.
#[must_use]
pub fn line(text: &str, max: usize) -> String {
    let plain = |letter: char| if is_plain(letter) { letter } else { ' ' };
    text.chars().take(max).map(plain).collect()
}

/// The message of a failure. It keeps its lines and tabs: it may be a stack trace.
#[must_use]
pub fn message(text: &str) -> String {
    let plain = |letter: char| if is_plain(letter) || matches!(letter, '\n' | '\t') { letter } else { ' ' };
    // A line that ends in the manner of Windows would otherwise end in a space.
    text.replace("\r\n", "\n").chars().take(MESSAGE_MAX).map(plain).collect()
}

/// The code of a failure in the one form in which codes are compared: `HTTP 500` is `http_500`.
#[must_use]
pub fn code(text: &str) -> String {
    let slug = |letter: char| match letter {
        'a'..='z' | '0'..='9' | '.' | '_' | '-' => letter,
        'A'..='Z' => letter.to_ascii_lowercase(),
        _ => '_',
    };
    let code: String = text.trim().chars().take(CODE_MAX).map(slug).collect();
    if code.is_empty() { NO_CODE.into() } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_one_form() {
        for (written, kept) in [
            ("HTTP 500", "http_500"),
            ("rate_limited", "rate_limited"),
            ("E-TIMEOUT.2", "e-timeout.2"),
            (" Rate_Limited\n", "rate_limited"),
            ("a:b/c", "a_b_c"),
            ("zeit überschritten", "zeit__berschritten"),
            ("", "failed"),
            (" \n", "failed"),
        ] {
            assert_eq!(code(written), kept, "{written:?}");
            assert_eq!(code(kept), kept, "a code that is kept stays as it is");
        }
        assert_eq!(code(&"X".repeat(CODE_MAX + 1)), "x".repeat(CODE_MAX));
    }

    #[test]
    fn a_line_has_no_breaks_and_a_message_keeps_its_own() {
        assert_eq!(line("two\nlines\u{1b}[2J\u{202e}x", NOTE_MAX), "two lines [2J x");
        assert_eq!(message("at a\r\n\tat b\u{1b}[2J\u{202e}x\0"), "at a\n\tat b [2J x ");
    }

    #[test]
    fn texts_are_cut_in_characters() {
        assert_eq!(line(&"é".repeat(300), REASON_MAX), "é".repeat(REASON_MAX));
        let long = message(&"é\n".repeat(MESSAGE_MAX));
        assert_eq!(long.chars().count(), MESSAGE_MAX);
        assert_eq!(message(&long), long);
    }
}
