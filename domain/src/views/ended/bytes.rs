//! Numbers and texts of a block as bytes, and back. Reading never trusts the bytes: what is cut off or too
//! long reads as nothing.

use std::collections::HashMap;

/// Appends a number, seven bits to a byte, the low ones first.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads on from a place.
#[derive(Clone, Copy)]
pub(super) struct Reader<'b>(pub(super) &'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn size(&mut self) -> Option<usize> {
        self.number()?.try_into().ok()
    }

    /// A fixed number of four bytes.
    pub(super) fn word(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }
}

/// Texts of a block in the making: each is stored once and known by where it stands.
#[derive(Default)]
pub(super) struct Texts<'t> {
    pub(super) bytes: Vec<u8>,
    places: HashMap<&'t str, u64>,
}

impl<'t> Texts<'t> {
    /// Where the text stands, added if it is a new one.
    pub(super) fn place(&mut self, text: &'t str) -> u64 {
        *self.places.entry(text).or_insert_with(|| {
            let place = self.bytes.len() as u64;
            put_number(&mut self.bytes, text.len() as u64);
            self.bytes.extend_from_slice(text.as_bytes());
            place
        })
    }
}

/// The text at a place.
pub(super) fn text_at(texts: &[u8], place: u64) -> Option<&str> {
    let mut reader = Reader(texts.get(usize::try_from(place).ok()?..)?);
    let length = reader.size()?;
    std::str::from_utf8(reader.take(length)?).ok()
}

/// The place of a text among these.
pub(super) fn place_of(texts: &[u8], wanted: &str) -> Option<u64> {
    let mut reader = Reader(texts);
    while !reader.0.is_empty() {
        let place = texts.len() - reader.0.len();
        let length = reader.size()?;
        if reader.take(length)? == wanted.as_bytes() {
            return Some(place as u64);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_and_what_is_cut_off_is_none() {
        for number in [0, 1, 127, 128, 300, 1 << 35, u64::MAX] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            assert_eq!(Reader(&bytes).number(), Some(number));
            assert_eq!(Reader(&bytes[..bytes.len() - 1]).number(), None);
        }
        assert_eq!(Reader(&[0xff; 11]).number(), None);
    }

    #[test]
    fn a_text_stands_once_and_is_found() {
        let mut texts = Texts::default();
        let places = ["ada", "", "größe", "ada"].map(|text| texts.place(text));
        assert_eq!(places[0], places[3]);
        assert_eq!(text_at(&texts.bytes, places[2]), Some("größe"));
        assert_eq!(place_of(&texts.bytes, ""), Some(places[1]));
        assert_eq!(place_of(&texts.bytes, "bob"), None);
        assert_eq!(text_at(&texts.bytes, 99), None);
    }
}
