//! Owns the bytes around the records: the header of a journal and the header of each frame.
//! Must never change them: what is written is read for ever.
//!
//! A journal begins with 72 bytes: magic `photonjl`, u32 format, u32 CRC32C of the other 68 bytes, u64
//! generation, u64 last position before, 8 bytes mark, 32 bytes hash of the previous generation's last
//! frame (zeros if none). Magic, format and checksum keep their place in every later format.
//!
//! A frame begins with 72 bytes: the journal's mark, u64 offset of the frame, u64 last position before,
//! u32 number of records, u32 length of the records, 32 bytes BLAKE3 of the frame before (or of the
//! journal's header), u32 kind, u32 CRC32C of the 68 bytes before. A frame is only begun when everything
//! before its offset is durable.
//!
//! Format 3 is the journal of a generation, in which positions are without a gap. Format 4 is the journal of
//! a *base*: what was kept of the generations up to its own number. Its positions may skip, it begins after
//! position 0, and its last frame, of kind 3, says where those generations ended: u64 last position, i64
//! last time, 32 bytes hash of the last frame, u32 CRC32C of those 48 bytes.
//!
//! Formats 1 and 2 were the same with records that had no flags. Photon wrote them before its first release;
//! they are named when they are found, and never read.

use crate::journal::bytes::{array_at, i64_at, u32_at, u64_at};
use crate::log::APPEND_MAX_BYTES;

const GENERATION_FORMAT: u32 = 3;
const BASE_FORMAT: u32 = 4;
/// The length of a journal's header, in bytes.
pub(crate) const JOURNAL_HEADER_LEN: usize = 72;
/// The length of a frame's header, in bytes.
pub(crate) const FRAME_HEADER_LEN: usize = 72;
/// The most bytes of records in a frame: a gathered commit holds at most 1 MiB, and a larger append
/// travels alone.
pub(crate) const PAYLOAD_MAX_LEN: usize = APPEND_MAX_BYTES;

const MAGIC: [u8; 8] = *b"photonjl";

/// A link of the chain that ties each frame to the one before.
pub(crate) type Hash = [u8; 32];

/// Random for each journal and begins each of its frames, so that no stored body can pass for a frame.
pub(crate) type Mark = [u8; 8];

/// The header of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JournalHeader {
    pub(crate) generation: u64,
    /// The last position of the generations before.
    pub(crate) after: u64,
    pub(crate) mark: Mark,
    pub(crate) previous: Hash,
    /// Whether it is what was kept of the generations up to this number.
    pub(crate) base: bool,
}

/// Why bytes are not a journal's header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Damaged,
    /// Another version of the program wrote it.
    Other(OtherFormat),
}

/// A format that this version does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherFormat {
    Former(u32),
    Newer(u32),
}

impl JournalHeader {
    pub(crate) fn encode(&self) -> [u8; JOURNAL_HEADER_LEN] {
        let mut bytes = [0; JOURNAL_HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        let format = if self.base { BASE_FORMAT } else { GENERATION_FORMAT };
        bytes[8..12].copy_from_slice(&format.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.after.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.mark);
        bytes[40..].copy_from_slice(&self.previous);
        let crc = Self::crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; JOURNAL_HEADER_LEN]) -> Result<Self, HeaderError> {
        if bytes[..8] != MAGIC || u32_at(bytes, 12) != Some(Self::crc(bytes)) {
            return Err(HeaderError::Damaged);
        }
        match u32_at(bytes, 8) {
            Some(format @ (GENERATION_FORMAT | BASE_FORMAT)) => {
                Self::fields(bytes, format == BASE_FORMAT).ok_or(HeaderError::Damaged)
            }
            Some(former @ 1..GENERATION_FORMAT) => Err(HeaderError::Other(OtherFormat::Former(former))),
            Some(newer) if newer > BASE_FORMAT => Err(HeaderError::Other(OtherFormat::Newer(newer))),
            _ => Err(HeaderError::Damaged),
        }
    }

    fn fields(bytes: &[u8], base: bool) -> Option<Self> {
        Some(Self {
            base,
            generation: u64_at(bytes, 16)?,
            after: u64_at(bytes, 24)?,
            mark: array_at(bytes, 32)?,
            previous: array_at(bytes, 40)?,
        })
    }

    fn crc(bytes: &[u8; JOURNAL_HEADER_LEN]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
    }
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One commit.
    Events = 1,
    /// Nothing but the statement that everything before is durable.
    Watermark = 2,
    /// The end of a base.
    End = 3,
}

/// What the last frame of a base says: where the generations ended of which it was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BaseEnd {
    pub(crate) last: u64,
    pub(crate) last_time_us: i64,
    pub(crate) chain: Hash,
}

impl BaseEnd {
    const LEN: usize = 52;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes =
            [&self.last.to_le_bytes()[..], &self.last_time_us.to_le_bytes(), &self.chain].concat();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let whole = bytes.len() == Self::LEN && u32_at(bytes, 48)? == crc32c::crc32c(&bytes[..48]);
        whole.then_some(Self {
            last: u64_at(bytes, 0)?,
            last_time_us: i64_at(bytes, 8)?,
            chain: array_at(bytes, 16)?,
        })
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Where the frame begins; everything before is durable.
    pub(crate) offset: u64,
    /// The last position of the frames before.
    pub(crate) after: u64,
    pub(crate) count: u32,
    pub(crate) payload_len: u32,
    pub(crate) previous: Hash,
    pub(crate) kind: Kind,
}

impl FrameHeader {
    pub(crate) fn encode(&self, mark: Mark) -> [u8; FRAME_HEADER_LEN] {
        let mut bytes = [0; FRAME_HEADER_LEN];
        bytes[..8].copy_from_slice(&mark);
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.after.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.count.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.previous);
        bytes[64..68].copy_from_slice(&(self.kind as u32).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..68]);
        bytes[68..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header of the frame that begins at `offset`, if these bytes are it.
    pub(crate) fn decode(bytes: &[u8], mark: Mark, offset: u64) -> Option<Self> {
        let bytes: [u8; FRAME_HEADER_LEN] = array_at(bytes, 0)?;
        let kind = match u32_at(&bytes, 64)? {
            1 => Kind::Events,
            2 => Kind::Watermark,
            3 => Kind::End,
            _ => return None,
        };
        let header = Self {
            offset: u64_at(&bytes, 8)?,
            after: u64_at(&bytes, 16)?,
            count: u32_at(&bytes, 24)?,
            payload_len: u32_at(&bytes, 28)?,
            previous: array_at(&bytes, 32)?,
            kind,
        };
        let holds = bytes[..8] == mark
            && u32_at(&bytes, 68)? == crc32c::crc32c(&bytes[..68])
            && header.offset == offset
            && (header.kind == Kind::Events) == (header.count > 0)
            && header.payload_len as usize <= PAYLOAD_MAX_LEN;
        holds.then_some(header)
    }

    /// Where the frame ends.
    pub(crate) fn end(&self) -> u64 {
        self.offset + FRAME_HEADER_LEN as u64 + u64::from(self.payload_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = *b"12345678";

    #[test]
    fn headers_come_back_as_they_went_and_notice_every_flipped_bit() {
        let base = JournalHeader { generation: 3, after: 0, mark: MARK, previous: [0; 32], base: true };
        assert_eq!(JournalHeader::decode(&base.encode()), Ok(base));
        let end = BaseEnd { last: 7, last_time_us: -8, chain: [9; 32] };
        assert_eq!(BaseEnd::decode(&end.encode()), Some(end));
        let journal = JournalHeader { generation: 3, after: 99, mark: MARK, previous: [5; 32], base: false };
        let mut bytes = journal.encode();
        assert_eq!(JournalHeader::decode(&bytes), Ok(journal));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(JournalHeader::decode(&bytes), Err(HeaderError::Damaged), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let kind = Kind::Events;
        let frame =
            FrameHeader { offset: 72, after: 99, count: 2, payload_len: 500, previous: [6; 32], kind };
        let mut bytes = frame.encode(MARK);
        assert_eq!(FrameHeader::decode(&bytes, MARK, 72), Some(frame));
        assert_eq!(FrameHeader::decode(&bytes, MARK, 73), None, "a frame knows where it belongs");
        assert_eq!(FrameHeader::decode(&bytes, *b"another.", 72), None);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&bytes, MARK, 72), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_format_of_another_version_is_named() {
        use OtherFormat::{Former, Newer};
        let header = JournalHeader { generation: 1, after: 0, mark: MARK, previous: [0; 32], base: false };
        let mut bytes = header.encode();
        let mut of_format = |format: u8| {
            bytes[8] = format;
            let crc = JournalHeader::crc(&bytes);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            JournalHeader::decode(&bytes)
        };
        assert_eq!(of_format(0), Err(HeaderError::Damaged), "there never was such a format");
        assert_eq!(of_format(1), Err(HeaderError::Other(Former(1))));
        assert_eq!(of_format(2), Err(HeaderError::Other(Former(2))));
        assert_eq!(of_format(3), Ok(header));
        assert_eq!(of_format(4), Ok(JournalHeader { base: true, ..header }));
        assert_eq!(of_format(5), Err(HeaderError::Other(Newer(5))));
    }
}
