//! Owns the joining of fragments into messages. It must never hold more than one message.

use actix_http::ws::Item;
use bytes::{Bytes, BytesMut};

use super::{CloseCode, Heard, MESSAGE_MAX};

/// Fragments of one message.
const FRAGMENTS_MAX: usize = 1_000;

/// A message whose last fragment is still to come.
#[derive(Default)]
pub(super) struct Assembly {
    text: bool,
    fragments: usize,
    bytes: BytesMut,
    /// Bytes that are known to be whole characters.
    checked: usize,
}

impl Assembly {
    /// Adds a fragment; gives out the message with its last one.
    pub(super) fn add(&mut self, fragment: Item) -> Result<Option<Heard>, CloseCode> {
        let (bytes, last) = match fragment {
            Item::FirstText(bytes) => (self.begin(true, bytes), false),
            Item::FirstBinary(bytes) => (self.begin(false, bytes), false),
            Item::Continue(bytes) => (bytes, false),
            Item::Last(bytes) => (bytes, true),
        };
        self.fragments += 1;
        if self.fragments > FRAGMENTS_MAX || self.bytes.len() + bytes.len() > MESSAGE_MAX {
            return Err(CloseCode::TooLarge);
        }
        self.bytes.extend_from_slice(&bytes);
        if self.text {
            self.check(last)?;
        }
        if !last {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.bytes).freeze();
        Ok(Some(if self.text { Heard::Text(whole) } else { Heard::Binary(whole) }))
    }

    /// Looks at each byte once, though characters may be cut by fragments.
    fn check(&mut self, last: bool) -> Result<(), CloseCode> {
        match std::str::from_utf8(&self.bytes[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            Err(fault) if last || fault.error_len().is_some() => return Err(CloseCode::NotText),
            Err(fault) => self.checked += fault.valid_up_to(),
        }
        Ok(())
    }

    fn begin(&mut self, text: bool, bytes: Bytes) -> Bytes {
        (self.text, self.fragments, self.checked) = (text, 0, 0);
        bytes
    }
}
