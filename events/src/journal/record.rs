//! Owns the bytes of one record, in the journal and in the blocks alike.
//! Must never change them: what is written is read for ever (formats 3 and 4).
//!
//! All numbers are little-endian.
//!
//! | byte | field |
//! |---|---|
//! | 0 | u32 length of the whole record |
//! | 4 | u32 CRC32C of everything from byte 8 on |
//! | 8 | u64 position |
//! | 16 | u64 version |
//! | 24 | u64 position of the stream's previous record, 0 if none |
//! | 32 | i64 microseconds since 1970 UTC |
//! | 40 | id, 16 bytes |
//! | 56 | u16 schema |
//! | 58 | u16 flags: 0; set by a newer version whose records must not be read without knowing them |
//! | 60 | u8 length of the stream's name |
//! | 61 | u8 length of the event's name |
//! | 62 | u32 length of the metadata |
//! | 66 | stream, name, metadata, body |

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::journal::bytes::{i64_at, u16_at, u32_at, u64_at};
use crate::log::RECORD_HEADER_LEN;
use crate::record::{Beside, EventId, Recorded};
use crate::stream::{Position, StreamId, Version};

/// How many names an interner keeps; the rest are not shared.
const NAMES_MAX: usize = 1024;

/// The flags of every record that this version writes, and the only ones that it reads.
const FLAGS: u16 = 0;

/// Appends the bytes of a record. Lengths fit their fields, since [`crate::Append::check`] came before.
pub(crate) fn encode(event: &Recorded, previous: Position, into: &mut Vec<u8>) {
    let start = into.len();
    let (stream, name) = (event.stream.as_str().as_bytes(), event.name.as_bytes());
    let len = RECORD_HEADER_LEN + stream.len() + name.len() + event.metadata.len() + event.body.len();
    into.reserve(len);
    into.extend_from_slice(&(len as u32).to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&event.position.get().to_le_bytes());
    into.extend_from_slice(&event.version.get().to_le_bytes());
    into.extend_from_slice(&previous.get().to_le_bytes());
    into.extend_from_slice(&event.time_us.to_le_bytes());
    into.extend_from_slice(event.id.get().as_bytes());
    into.extend_from_slice(&event.schema.to_le_bytes());
    into.extend_from_slice(&FLAGS.to_le_bytes());
    into.extend_from_slice(&[stream.len() as u8, name.len() as u8]);
    into.extend_from_slice(&(event.metadata.len() as u32).to_le_bytes());
    into.extend_from_slice(stream);
    into.extend_from_slice(name);
    into.extend_from_slice(&event.metadata);
    into.extend_from_slice(&event.body);
    let crc = crc32c::crc32c(&into[start + 8..]);
    into[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// A record whose checksum held, not yet taken apart.
#[derive(Clone, Copy)]
pub(crate) struct RawRecord<'a> {
    bytes: &'a [u8],
    stream: &'a str,
    name_start: usize,
}

impl<'a> RawRecord<'a> {
    /// The record at the start of some bytes.
    ///
    /// # Errors
    /// What does not hold, as words.
    pub(crate) fn first_of(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let len = u32_at(bytes, 0).ok_or("a record is cut off")? as usize;
        let bytes = bytes.get(..len).ok_or("a record is cut off")?;
        let crc = u32_at(bytes, 4).filter(|_| len >= RECORD_HEADER_LEN).ok_or("a record is too short")?;
        if crc32c::crc32c(&bytes[8..]) != crc {
            return Err("a record breaks its checksum");
        }
        let name_start = RECORD_HEADER_LEN + usize::from(bytes[60]);
        let strings_len = usize::from(bytes[61]) + u32_at(bytes, 62).unwrap_or(u32::MAX) as usize;
        if name_start + strings_len > len {
            return Err("a record has impossible lengths");
        }
        let stream = std::str::from_utf8(&bytes[RECORD_HEADER_LEN..name_start]);
        Ok(Self { bytes, stream: stream.map_err(|_| "a record has an impossible stream")?, name_start })
    }

    /// How many bytes the record at the start of some bytes claims to occupy, and at least the minimum.
    pub(crate) fn len_of(bytes: &[u8]) -> Option<usize> {
        u32_at(bytes, 0).map(|len| len as usize).filter(|len| *len >= RECORD_HEADER_LEN)
    }

    /// The position that the record at the start of some bytes claims to have.
    pub(crate) fn position_of(bytes: &[u8]) -> Option<Position> {
        u64_at(bytes, 8).map(Position::new)
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How many bytes it occupies.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn position(&self) -> Position {
        Position::new(u64_at(self.bytes, 8).unwrap_or(0))
    }

    pub(crate) fn version(&self) -> Version {
        Version::new(u64_at(self.bytes, 16).unwrap_or(0))
    }

    pub(crate) fn previous(&self) -> Position {
        Position::new(u64_at(self.bytes, 24).unwrap_or(0))
    }

    pub(crate) fn time_us(&self) -> i64 {
        i64_at(self.bytes, 32).unwrap_or(0)
    }

    /// The flags by which a newer version marked the record, if it did: then its contents are not understood.
    pub(crate) fn unknown_flags(&self) -> Option<u16> {
        u16_at(self.bytes, 58).filter(|flags| *flags != FLAGS)
    }

    pub(crate) fn id(&self) -> EventId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes[40..56]);
        Uuid::from_bytes(id).into()
    }

    pub(crate) fn stream(&self) -> &'a str {
        self.stream
    }

    /// Takes a copy of it apart.
    pub(crate) fn to_recorded(self, names: &mut Names) -> Result<Recorded, &'static str> {
        let copy = Bytes::copy_from_slice(self.bytes);
        RawRecord::first_of(&copy)?.decode(&copy, names)
    }

    /// Takes it apart; metadata and body stay slices of `buffer`, of which the record is a part.
    pub(crate) fn decode(&self, buffer: &Bytes, names: &mut Names) -> Result<Recorded, &'static str> {
        if self.unknown_flags().is_some() {
            return Err("a record was written by a newer version of Photon");
        }
        let metadata_start = self.name_start + usize::from(self.bytes[61]);
        let body_start = metadata_start + u32_at(self.bytes, 62).unwrap_or(0) as usize;
        let name = std::str::from_utf8(&self.bytes[self.name_start..metadata_start]);
        Ok(Recorded {
            id: self.id(),
            stream: StreamId::parse(self.stream).map_err(|_| "a record has an impossible stream")?,
            version: self.version(),
            position: self.position(),
            name: names.share(name.map_err(|_| "a record has an impossible name")?),
            schema: u16_at(self.bytes, 56).unwrap_or(0),
            time_us: self.time_us(),
            metadata: buffer.slice_ref(&self.bytes[metadata_start..body_start]),
            body: buffer.slice_ref(&self.bytes[body_start..]),
            beside: Beside::NONE,
        })
    }
}

/// The records that lie one after the other in some bytes; ends after the first error.
pub(crate) fn records(bytes: &[u8]) -> impl Iterator<Item = Result<RawRecord<'_>, &'static str>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = RawRecord::first_of(rest);
        rest = record.as_ref().map_or(&[], |record| &rest[record.len()..]);
        Some(record)
    })
}

/// Lets equal event names share one string.
#[derive(Default)]
pub(crate) struct Names(HashSet<Arc<str>>);

impl Names {
    pub(crate) fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(name);
        if self.0.len() < NAMES_MAX {
            self.0.insert(Arc::clone(&name));
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Recorded {
        Recorded {
            id: Uuid::from_u128(7).into(),
            stream: StreamId::new("agent", "a-1").unwrap(),
            version: Version::new(3),
            position: Position::new(9),
            name: Arc::from("agent.assigned"),
            schema: 2,
            time_us: -5,
            metadata: Bytes::from_static(b"{}"),
            body: Bytes::from_static(b"hello"),
            beside: Beside::NONE,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_went() {
        let mut bytes = Vec::new();
        encode(&sample(), Position::new(4), &mut bytes);
        encode(&sample(), Position::START, &mut bytes);
        let bytes = Bytes::from(bytes);
        let all: Vec<_> = records(&bytes).map(Result::unwrap).collect();
        assert_eq!(
            all.iter().map(RawRecord::previous).collect::<Vec<_>>(),
            [Position::new(4), Position::START]
        );
        for record in all {
            assert_eq!(record.decode(&bytes, &mut Names::default()), Ok(sample()));
        }
    }

    #[test]
    fn a_record_with_flags_is_a_newer_versions_and_not_read() {
        for bit in 0..16 {
            let mut bytes = Vec::new();
            encode(&sample(), Position::START, &mut bytes);
            let flags = 1_u16 << bit;
            bytes[58..60].copy_from_slice(&flags.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            let record = RawRecord::first_of(&bytes).unwrap();
            assert_eq!(record.unknown_flags(), Some(flags));
            let refused = record.to_recorded(&mut Names::default()).unwrap_err();
            assert_eq!(refused, "a record was written by a newer version of Photon");
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_is() {
        let mut bytes = Vec::new();
        encode(&sample(), Position::START, &mut bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(RawRecord::first_of(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn the_layout_is_the_promised_one() {
        let mut bytes = Vec::new();
        encode(&sample(), Position::new(4), &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "60000000",
            "CRCCRCCR",
            "0900000000000000",
            "0300000000000000",
            "0400000000000000",
            "fbffffffffffffff",
            "00000000000000000000000000000007",
            "0200",
            "0000",
            "09",
            "0e",
            "02000000",
            "6167656e742f612d31",
            "6167656e742e61737369676e6564",
            "7b7d",
            "68656c6c6f",
        );
        assert_eq!(hex[..8], expected[..8]);
        assert_eq!(hex[16..], expected[16..]);
    }
}
