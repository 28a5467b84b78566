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
        if !last {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.bytes).freeze();
        if !self.text {
            return Ok(Some(Heard::Binary(whole)));
        }
        match std::str::from_utf8(&whole) {
            Ok(_) => Ok(Some(Heard::Text(whole))),
            Err(_) => Err(CloseCode::NotText),
        }
    }

    fn begin(&mut self, text: bool, bytes: Bytes) -> Bytes {
        (self.text, self.fragments) = (text, 0);
        bytes
    }
}
