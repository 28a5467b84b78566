//! Bounds of what callers write: names, texts, labels, free objects. Says in a sentence what breaks one.

use std::collections::BTreeMap;

use crate::lane::ACCOUNT_LABEL;
use crate::{Json, LaneId, Timestamp};

/// Characters of a name for people.
pub const NAME_MAX: usize = 256;
/// Characters of a description.
pub const DESCRIPTION_MAX: usize = 4_096;
/// Characters of a model's name.
pub const MODEL_MAX: usize = 128;
/// Entries of a list of agents or platforms.
pub const LIST_MAX: usize = 64;
/// Capabilities of one agent, or required by one step.
pub const CAPABILITIES_MAX: usize = 64;
/// Labels of one agent, or required by one step.
pub const LABELS_MAX: usize = 32;
/// Bytes of a free object: metadata and model parameters.
pub const OBJECT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a capability, an error code or a label's value; a label's key has half of it.
const SLUG_MAX: usize = 128;

/// One bound that is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    /// Where, as a JSON pointer below the field that was looked at.
    pub(crate) pointer: String,
    /// A stable slug.
    pub(crate) code: &'static str,
    /// A sentence.
    pub(crate) detail: String,
}

impl Breach {
    pub(crate) fn new(code: &'static str, detail: String) -> Self {
        Self { pointer: String::new(), code, detail }
    }

    /// The same, below `pointer`.
    pub(crate) fn at(mut self, pointer: &str) -> Self {
        self.pointer.insert_str(0, pointer);
        self
    }

    /// Pointer and sentence, as the shell wants them.
    pub(crate) fn shown(self) -> (String, String) {
        (self.pointer, self.detail)
    }
}

/// A name for people: not empty, short, one line, and reads the way it is stored.
pub(crate) fn name(what: &str, text: &str, max: usize) -> Option<Breach> {
    if text.trim().is_empty() {
        return Some(Breach::new("empty", format!("{what} must not be empty")));
    }
    line(what, text, max)
}

/// The same, but it may be empty.
pub(crate) fn line(what: &str, text: &str, max: usize) -> Option<Breach> {
    if !text.chars().all(is_plain) {
        return Some(Breach::new("control_character", format!("{what} must not hold control characters")));
    }
    long(what, text, max)
}

/// Prose: lines and tabs are welcome, other control characters are not.
pub(crate) fn prose(what: &str, text: &str, max: usize) -> Option<Breach> {
    let odd = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t');
    if text.chars().any(|letter| odd(letter) || is_bidi(letter)) {
        return Some(Breach::new("control_character", format!("{what} must not hold control characters")));
    }
    long(what, text, max)
}

fn long(what: &str, text: &str, max: usize) -> Option<Breach> {
    let letters = text.chars().count();
    let detail = || format!("{what} must have at most {max} characters, it has {letters}");
    (letters > max).then(|| Breach::new("too_long", detail()))
}

/// Whether a letter neither steers a terminal nor turns the direction of writing.
pub(crate) fn is_plain(letter: char) -> bool {
    !letter.is_control() && !is_bidi(letter)
}

/// Marks that turn the direction of writing: a name that holds one may show as another.
fn is_bidi(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A list of at most `max` entries.
pub(crate) fn list(what: &str, len: usize, max: usize) -> Option<Breach> {
    (len > max)
        .then(|| Breach::new("too_many", format!("{what} must have at most {max} entries, it has {len}")))
}

/// Free data that could not be stored, or not be read again.
pub(crate) fn data(what: &str, json: &Json) -> Option<Breach> {
    json.unstorable().map(|why| Breach::new(why.code(), format!("{what} {why}")))
}

/// A free object of at most [`OBJECT_BYTES_MAX`] bytes.
pub(crate) fn object(what: &str, json: &Json) -> Option<Breach> {
    if let Some(breach) = data(what, json) {
        return Some(breach);
    }
    if !is_object(json) {
        return Some(Breach::new("not_an_object", format!("{what} must be a JSON object")));
    }
    let bytes = json.len();
    let detail = || format!("{what} must have at most {OBJECT_BYTES_MAX} bytes, it has {bytes}");
    (bytes > OBJECT_BYTES_MAX).then(|| Breach::new("too_large", detail()))
}

/// Whether it is a JSON object. The text is canonical, so its first letter tells.
pub(crate) fn is_object(json: &Json) -> bool {
    json.as_str().starts_with('{')
}

/// Words that programs compare: capabilities, and codes of errors.
pub(crate) fn slugs(what: &str, words: &[String], max: usize) -> Vec<Breach> {
    let bad = words.iter().enumerate().filter(|(_, word)| !is_slug(word, SLUG_MAX)).map(|(index, _)| {
        let detail = format!("each of {what} must match [A-Za-z0-9._:-]{{1,{SLUG_MAX}}}");
        Breach::new("malformed", detail).at(&format!("/{index}"))
    });
    list(what, words.len(), max).into_iter().chain(bad).collect()
}

fn is_slug(text: &str, max: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=max).contains(&text.len()) && text.bytes().all(plain)
}

/// Labels: few, with short keys and short values.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> Vec<Breach> {
    let mut breaches: Vec<Breach> = list("labels", labels.len(), LABELS_MAX).into_iter().collect();
    for (key, value) in labels {
        let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
        // A prefix such as `example.com/` is common in labels.
        if !is_slug(&key.replace('/', "."), SLUG_MAX / 2) {
            let detail = format!("a label's key must match [A-Za-z0-9._:/-]{{1,{}}}", SLUG_MAX / 2);
            breaches.push(Breach::new("malformed", detail).at(&pointer));
        }
        if key == ACCOUNT_LABEL && LaneId::of_account(value).is_none() {
            let detail = "an account must match [A-Za-z0-9._-]{1,128}: it names a lane".into();
            breaches.push(Breach::new("malformed", detail).at(&pointer));
        }
        breaches.extend(line("a label's value", value, SLUG_MAX).map(|breach| breach.at(&pointer)));
    }
    breaches
}

/// What is wrong with a deadline that is set now.
#[must_use]
pub fn deadline(deadline: Timestamp, now: Timestamp) -> Option<String> {
    let passed = || format!("deadline must lie in the future, not at {deadline}: it is {now} at the server");
    (deadline <= now).then(passed)
}

/// Cuts a text that somebody else wrote, so that what is stored of it is bounded.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_counted_in_characters_and_holds_no_control_or_bidi_marks() {
        assert_eq!(name("name", &"é".repeat(NAME_MAX), NAME_MAX), None);
        assert_eq!(name("name", &"é".repeat(NAME_MAX + 1), NAME_MAX).unwrap().code, "too_long");
        for text in ["a\0b", "a\nb", "a\u{202e}b", "\u{7f}"] {
            assert_eq!(name("name", text, NAME_MAX).unwrap().code, "control_character", "{text:?}");
        }
        assert_eq!(name("name", "  ", NAME_MAX).unwrap().code, "empty");
        assert_eq!(prose("description", "two\n\tlines", DESCRIPTION_MAX), None);
    }

    #[test]
    fn a_label_is_named_by_an_escaped_pointer() {
        let map =
            BTreeMap::from([("a/b~c".to_owned(), "x".to_owned()), ("ok/key".to_owned(), String::new())]);
        let breaches = labels(&map);
        assert_eq!(breaches.len(), 1);
        assert_eq!(breaches[0].pointer, "/a~1b~0c");
    }

    #[test]
    fn a_deadline_lies_in_the_future() {
        let now = Timestamp::from_micros(1_000_000);
        assert_eq!(deadline(now.plus_ms(1), now), None);
        for passed in [now, Timestamp::from_micros(0)] {
            assert!(deadline(passed, now).unwrap().starts_with("deadline must lie in the future"));
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
    }
}
