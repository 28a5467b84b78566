//! States as snapshots hold them, and back. Owns the number of their form: whatever changes what is kept, how
//! it is encoded, or what a stored event means for it, raises [`FORM`], and older snapshots are of no use.

use std::borrow::Cow;

use bincode::Options;
use domain::agent::Agent;
use domain::lane::Lane;
use domain::operation::Operation;
use domain::operation::kept::Kept as KeptOperation;
use domain::views::Views;
use domain::views::pieces::Piece;
use domain::{LeaseId, Timestamp};
use events::StreamId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::keys::{Keys, Used};

/// The form of every state in a snapshot. Other forms are not read: the log is folded instead.
pub const FORM: u32 = 3;

/// No piece is larger.
const PIECE_MAX_BYTES: u64 = 64 << 20;

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(PIECE_MAX_BYTES).reject_trailing_bytes()
}

fn to_bytes(state: &impl Serialize) -> Result<Vec<u8>, String> {
    options().serialize(state).map_err(|fault| fault.to_string())
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    options().deserialize(bytes).ok()
}

/// A state of which a snapshot can be taken.
pub trait Kept: Sized {
    /// The state as bytes: the same for equal states.
    ///
    /// # Errors
    /// Why there can be none: it is too large.
    fn keep(&self) -> Result<Vec<u8>, String>;

    /// The state again. None when the bytes are not of its form.
    fn restore(bytes: &[u8]) -> Option<Self>;
}

impl Kept for Operation {
    fn keep(&self) -> Result<Vec<u8>, String> {
        to_bytes(&KeptOperation::from(self))
    }

    fn restore(bytes: &[u8]) -> Option<Self> {
        from_bytes::<KeptOperation>(bytes).map(Self::from)
    }
}

impl Kept for Agent {
    fn keep(&self) -> Result<Vec<u8>, String> {
        to_bytes(self)
    }

    fn restore(bytes: &[u8]) -> Option<Self> {
        from_bytes(bytes)
    }
}

impl Kept for Lane {
    fn keep(&self) -> Result<Vec<u8>, String> {
        to_bytes(self)
    }

    fn restore(bytes: &[u8]) -> Option<Self> {
        from_bytes(bytes)
    }
}

/// A part of what is folded from the whole log.
#[derive(Serialize, Deserialize)]
enum Part<'p> {
    View(Box<Piece<'p>>),
    Key {
        at: Timestamp,
        key: [u8; 16],
        body: [u8; 16],
        stream: Cow<'p, str>,
        version: u64,
        leases: Cow<'p, [LeaseId]>,
    },
}

/// Takes views and keys apart, always in the same order for the same history.
///
/// # Errors
/// What `each` failed with, or why a part cannot be kept.
pub fn keep_all<E: From<String>>(
    views: &Views,
    keys: &Keys,
    each: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    for piece in views.pieces() {
        each(&to_bytes(&Part::View(Box::new(piece)))?)?;
    }
    for (key, used) in keys.oldest_first() {
        let stream = Cow::Borrowed(used.stream.as_str());
        let (at, body, version) = (used.at, used.body, used.version);
        let leases = Cow::Borrowed(&*used.leases);
        each(&to_bytes(&Part::Key { at, key, body, stream, version, leases })?)?;
    }
    Ok(())
}

/// Puts one part back. None when the bytes are not of its form.
#[must_use]
pub fn restore_part(bytes: &[u8], views: &mut Views, keys: &mut Keys) -> Option<()> {
    match from_bytes::<Part<'static>>(bytes)? {
        Part::View(piece) => views.put(*piece),
        Part::Key { at, key, body, stream, version, leases } => {
            let stream = StreamId::parse(&stream).ok()?;
            keys.put(key, Used { at, body, stream, version, leases: leases.into_owned() });
        }
    }
    Some(())
}
