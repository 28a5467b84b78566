//! About a thousand ended operations as one piece of memory that never changes: sorted by age, each text
//! stored once, each row readable without its neighbours. Knows nothing of other blocks, nor of open rows.
//!
//! ```text
//! rows u32 | bytes of names u32 | bytes of texts u32 | oldest i64 | end of each row u32 … | texts | rows
//! ```
//!
//! Names are the texts that agents and platforms have; they stand first, so that whether a block has any row
//! of an agent is seen without looking at its rows. General compression would save about a third, and would
//! cost the core a dependency and every look at a single row the decoding of a thousand.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bytes::{Reader, Texts, place_of, put_number, text_at};
use crate::operation::definition::Priority;
use crate::operation::step::Status;
use crate::views::filter::Filter;
use crate::views::operation_board::{Place, Row};
use crate::{AgentId, OperationId, PlatformName, Timestamp};

/// How an operation can have ended, as a row's first byte numbers it.
const ENDS: [Status; 3] = [Status::Completed, Status::Failed, Status::Cancelled];
/// Most rows of a block.
pub(in crate::views) const ROWS_MAX: usize = 1_024;
const HEADER_BYTES: usize = 20;
const ID_BYTES: usize = 16;
/// Bits of a row's first byte beside its end and its priority.
const STARTED: u8 = 1 << 4;
const COMPLETED: u8 = 1 << 5;
const DEADLINE: u8 = 1 << 6;
const MAX_PARALLEL: u8 = 1 << 7;

/// Ended operations. A clone shares them.
#[derive(Clone, Debug)]
pub struct Block(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: Box<[u8]>,
    rows: usize,
    /// Where the texts are, and how many bytes of them are names.
    texts: Range<usize>,
    names: usize,
    /// When the oldest was created; the times in the rows count from there.
    oldest: Timestamp,
    newest: Timestamp,
    first_deadline: Option<Timestamp>,
    counts: [[u32; Priority::ALL.len()]; ENDS.len()],
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.bytes == other.0.bytes
    }
}

/// What a filter comes to in one block.
pub(in crate::views) struct Wanted<'f> {
    filter: &'f Filter,
    agent: Option<u64>,
    platform: Option<u64>,
}

impl Block {
    /// Packs rows of ended operations, whatever their order.
    #[must_use]
    pub fn pack(rows: &[(OperationId, &Row)]) -> Self {
        let mut sorted: Vec<&(OperationId, &Row)> = rows.iter().collect();
        sorted.sort_unstable_by(|(a, left), (b, right)| (left.created_at, a).cmp(&(right.created_at, b)));
        let oldest = sorted.first().map_or(Timestamp::default(), |(_, row)| row.created_at);
        let mut texts = Texts::default();
        for (_, row) in &sorted {
            row.agents_used.iter().for_each(|agent| _ = texts.place(agent.as_str()));
            row.platforms.iter().for_each(|platform| _ = texts.place(platform.as_str()));
        }
        let (names, mut body, mut ends) = (texts.bytes.len(), Vec::new(), Vec::new());
        for (id, row) in &sorted {
            put_row(&mut body, &mut texts, oldest, id, row);
            ends.extend_from_slice(&(body.len() as u32).to_le_bytes());
        }
        let header = [sorted.len(), names, texts.bytes.len()].map(|number| (number as u32).to_le_bytes());
        let bytes = [header.as_flattened(), &oldest.as_micros().to_le_bytes(), &ends, &texts.bytes, &body];
        let bytes = bytes.concat().into_boxed_slice();
        let texts = HEADER_BYTES + ends.len()..HEADER_BYTES + ends.len() + texts.bytes.len();
        let inner = Inner { bytes, rows: sorted.len(), texts, names, oldest, ..Inner::empty() };
        Self(Arc::new(inner.bounded(sorted.iter().map(|(_, row)| *row))))
    }

    /// The block that these bytes are. None when they are not those of one.
    #[must_use]
    pub fn parse(bytes: Box<[u8]>) -> Option<Self> {
        let mut header = Reader(&bytes);
        let [rows, names, texts] = [header.word()?, header.word()?, header.word()?].map(|n| n as usize);
        let oldest = Timestamp::from_micros(i64::from_le_bytes(header.take(8)?.try_into().ok()?));
        header.take(rows.checked_mul(4)?)?;
        let begin = bytes.len() - header.0.len();
        header.take(texts)?;
        let inner = Inner { rows, names, texts: begin..begin + texts, oldest, bytes, ..Inner::empty() };
        let block = Self(Arc::new(inner));
        if !(1..=ROWS_MAX).contains(&rows) || names > texts {
            return None;
        }
        let all: Option<Vec<(OperationId, Row)>> = (0..rows).map(|row| block.row(row)).collect();
        let all = all?;
        let ordered = all.is_sorted_by(|(a, left), (b, right)| (left.created_at, a) < (right.created_at, b));
        let inner = Arc::into_inner(block.0)?;
        ordered.then(|| Self(Arc::new(inner.bounded(all.iter().map(|(_, row)| row)))))
    }

    /// How many rows it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.rows
    }

    /// Never true: a block has rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.rows == 0
    }

    /// The bytes that it is, from which [`Block::parse`] makes it again.
    #[must_use]
    pub fn stored(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Whether both are one in memory.
    #[must_use]
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The row at an index, oldest first.
    #[must_use]
    pub fn row(&self, index: usize) -> Option<(OperationId, Row)> {
        let inner = &*self.0;
        let mut reader = Reader(inner.row_bytes(index)?);
        let first = reader.byte()?;
        let id = inner.id(&mut reader)?;
        let created_at = inner.moment(&mut reader, inner.oldest)?;
        let agents_used: BTreeSet<_> = inner.named(&mut reader)?;
        let platforms = inner.named(&mut reader)?;
        let mut moments = [None; 3];
        for (moment, bit) in moments.iter_mut().zip([DEADLINE, STARTED, COMPLETED]) {
            if first & bit != 0 {
                *moment = Some(inner.moment(&mut reader, created_at)?);
            }
        }
        let [deadline, started_at, completed_at] = moments;
        let name = inner.text(&mut reader)?.to_owned();
        let entries = reader.size()?;
        let entry = |_| Some((inner.text(&mut reader)?.to_owned(), inner.text(&mut reader)?.to_owned()));
        let metadata = (0..entries).map(entry).collect::<Option<_>>()?;
        let status_reason = match reader.number()? {
            0 => None,
            place => Some(text_at(inner.all_texts(), place - 1)?.to_owned()),
        };
        let agents = inner.named(&mut reader)?;
        let max_parallel = match first & MAX_PARALLEL {
            0 => None,
            _ => Some(reader.number()?.try_into().ok()?),
        };
        let row = Row {
            name,
            priority: priority_of(first),
            status: end_of(first)?,
            status_reason,
            agents,
            agents_used,
            platforms,
            metadata,
            max_parallel,
            deadline,
            created_at,
            started_at,
            completed_at,
            progress: reader.byte()?,
            steps: reader.size()?,
            settled: reader.size()?,
            revision: reader.number()?,
            run: None,
        };
        reader.0.is_empty().then_some((id, row))
    }

    /// The id of the row at an index.
    pub(super) fn id(&self, index: usize) -> Option<OperationId> {
        let mut reader = Reader(self.0.row_bytes(index)?.get(1..)?);
        self.0.id(&mut reader)
    }

    /// The place of the row at an index in lists.
    pub(in crate::views) fn place(&self, index: usize) -> Option<Place> {
        let mut reader = Reader(self.0.row_bytes(index)?.get(1..)?);
        let id = self.0.id(&mut reader)?;
        Some((self.0.moment(&mut reader, self.0.oldest)?, id))
    }

    /// How many of its rows are of this status and priority.
    pub(in crate::views) fn count(&self, status: Status, priority: Priority) -> u32 {
        let end = ENDS.iter().position(|end| *end == status);
        end.map_or(0, |end| self.0.counts[end][priority as usize])
    }

    /// What a filter comes to here, as far as this says it without reading names or metadata. None when no
    /// row of it can be admitted.
    pub(in crate::views) fn wanted<'f>(&self, filter: &'f Filter) -> Option<Wanted<'f>> {
        let inner = &*self.0;
        let of_kind = |status: Status, priority: Priority| {
            filter.admits_status(status)
                && filter.priority.is_none_or(|wanted| wanted == priority)
                && self.count(status, priority) > 0
        };
        let any =
            ENDS.into_iter().any(|end| Priority::ALL.into_iter().any(|priority| of_kind(end, priority)));
        let in_time = filter.created_after.is_none_or(|after| inner.newest > after)
            && filter.created_before.is_none_or(|before| inner.oldest < before)
            && filter.deadline_before.is_none_or(|before| inner.first_deadline.is_some_and(|at| at < before));
        if !any || !in_time || filter.blocked_on.is_some() {
            return None;
        }
        let names = inner.all_texts().get(..inner.names)?;
        let named = |name: &Option<String>| match name {
            None => Some(None),
            Some(name) => place_of(names, name).map(Some),
        };
        Some(Wanted { filter, agent: named(&filter.agent)?, platform: named(&filter.platform)? })
    }

    /// Whether it admits the row, apart from its name and metadata.
    pub(in crate::views) fn admits(&self, index: usize, wanted: &Wanted<'_>) -> bool {
        self.0.admits(index, wanted).unwrap_or(false)
    }

    /// Whether a filter admits the name and the metadata of a row.
    pub(in crate::views) fn admits_text(&self, index: usize, filter: &Filter) -> bool {
        self.0.admits_text(index, filter).unwrap_or(false)
    }

    /// How many rows a filter admits that asks for nothing but status and priority; none for another filter.
    pub(in crate::views) fn counted(&self, filter: &Filter) -> Option<u64> {
        let urgent = |priority: Priority| filter.priority.is_none_or(|wanted| wanted == priority);
        filter.is_of_kind_only().then(|| {
            let ends = ENDS.into_iter().filter(|end| filter.admits_status(*end));
            let count = |end| {
                let priorities = Priority::ALL.into_iter().filter(|priority| urgent(*priority));
                priorities.map(|priority| u64::from(self.count(end, priority))).sum::<u64>()
            };
            ends.map(count).sum()
        })
    }
}

impl Inner {
    fn empty() -> Self {
        Self {
            bytes: Box::default(),
            rows: 0,
            texts: 0..0,
            names: 0,
            oldest: Timestamp::default(),
            newest: Timestamp::default(),
            first_deadline: None,
            counts: Default::default(),
        }
    }

    /// With the bounds of these rows, which are its own.
    fn bounded<'r>(mut self, rows: impl Iterator<Item = &'r Row>) -> Self {
        for row in rows {
            self.newest = self.newest.max(row.created_at);
            self.first_deadline = self.first_deadline.into_iter().chain(row.deadline).min();
            if let Some(end) = ENDS.iter().position(|end| *end == row.status) {
                self.counts[end][row.priority as usize] += 1;
            }
        }
        self
    }

    fn all_texts(&self) -> &[u8] {
        self.bytes.get(self.texts.clone()).unwrap_or_default()
    }

    fn row_bytes(&self, index: usize) -> Option<&[u8]> {
        if index >= self.rows {
            return None;
        }
        let end = |index: usize| {
            let at = HEADER_BYTES + index * 4;
            Reader(self.bytes.get(at..)?).word().map(|end| end as usize)
        };
        let begin = index.checked_sub(1).map_or(Some(0), end)?;
        self.bytes.get(self.texts.end..)?.get(begin..end(index)?)
    }

    fn id(&self, reader: &mut Reader<'_>) -> Option<OperationId> {
        let bits = reader.take(ID_BYTES)?.try_into().ok()?;
        Some(OperationId::from_bits(u128::from_be_bytes(bits)))
    }

    fn moment(&self, reader: &mut Reader<'_>, from: Timestamp) -> Option<Timestamp> {
        Some(Timestamp::from_micros(from.as_micros().wrapping_add(reader.number()? as i64)))
    }

    fn text(&self, reader: &mut Reader<'_>) -> Option<&str> {
        text_at(self.all_texts(), reader.number()?)
    }

    fn named<T: std::str::FromStr, C: FromIterator<T>>(&self, reader: &mut Reader<'_>) -> Option<C> {
        let count = reader.size()?;
        (0..count).map(|_| self.text(reader)?.parse().ok()).collect()
    }

    fn admits(&self, index: usize, wanted: &Wanted<'_>) -> Option<bool> {
        let filter = wanted.filter;
        let mut reader = Reader(self.row_bytes(index)?);
        let first = reader.byte()?;
        if !filter.admits_status(end_of(first)?)
            || filter.priority.is_some_and(|priority| priority_of(first) != priority)
        {
            return Some(false);
        }
        let id = self.id(&mut reader)?;
        if filter.id.is_some_and(|part| !part.fits(&id)) {
            return Some(false);
        }
        let created_at = self.moment(&mut reader, self.oldest)?;
        if filter.created_after.is_some_and(|after| created_at <= after)
            || filter.created_before.is_some_and(|before| created_at >= before)
            || !holds(&mut reader, wanted.agent)?
            || !holds(&mut reader, wanted.platform)?
        {
            return Some(false);
        }
        let Some(before) = filter.deadline_before else { return Some(true) };
        Some(first & DEADLINE != 0 && self.moment(&mut reader, created_at)? < before)
    }

    fn admits_text(&self, index: usize, filter: &Filter) -> Option<bool> {
        let mut reader = Reader(self.row_bytes(index)?);
        let first = reader.byte()?;
        reader.take(ID_BYTES)?;
        reader.number()?;
        let _lists = (holds(&mut reader, None)?, holds(&mut reader, None)?);
        for _ in [DEADLINE, STARTED, COMPLETED].into_iter().filter(|bit| first & bit != 0) {
            reader.number()?;
        }
        let name = self.text(&mut reader)?;
        if filter.text.as_ref().is_some_and(|text| !name.to_lowercase().contains(text)) {
            return Some(false);
        }
        let mut missing: Vec<&(String, String)> = filter.metadata.iter().collect();
        for _ in 0..reader.number()? {
            let (key, value) = (self.text(&mut reader)?, self.text(&mut reader)?);
            missing.retain(|entry| (entry.0.as_str(), entry.1.as_str()) != (key, value));
        }
        Some(missing.is_empty())
    }
}

/// Whether a list of places holds this one, if one is wanted; reads on to the end of the list.
fn holds(reader: &mut Reader<'_>, wanted: Option<u64>) -> Option<bool> {
    let mut found = wanted.is_none();
    for _ in 0..reader.number()? {
        found |= Some(reader.number()?) == wanted;
    }
    Some(found)
}

fn end_of(first: u8) -> Option<Status> {
    ENDS.get(usize::from(first & 3)).copied()
}

fn priority_of(first: u8) -> Priority {
    Priority::ALL[usize::from(first >> 2 & 3)]
}

fn put_row<'r>(out: &mut Vec<u8>, texts: &mut Texts<'r>, oldest: Timestamp, id: &OperationId, row: &'r Row) {
    let end = ENDS.iter().position(|end| *end == row.status).unwrap_or(0) as u8;
    let bit = |is: bool, bit: u8| if is { bit } else { 0 };
    out.push(
        end | (row.priority as u8) << 2
            | bit(row.started_at.is_some(), STARTED)
            | bit(row.completed_at.is_some(), COMPLETED)
            | bit(row.deadline.is_some(), DEADLINE)
            | bit(row.max_parallel.is_some(), MAX_PARALLEL),
    );
    out.extend_from_slice(&id.bits().to_be_bytes());
    let moment = |out: &mut Vec<u8>, from: Timestamp, at: Timestamp| {
        put_number(out, at.as_micros().wrapping_sub(from.as_micros()) as u64);
    };
    moment(out, oldest, row.created_at);
    put_list(out, texts, row.agents_used.iter().map(AgentId::as_str));
    put_list(out, texts, row.platforms.iter().map(PlatformName::as_str));
    for at in [row.deadline, row.started_at, row.completed_at].into_iter().flatten() {
        moment(out, row.created_at, at);
    }
    put_number(out, texts.place(&row.name));
    put_number(out, row.metadata.len() as u64);
    for (key, value) in &row.metadata {
        put_number(out, texts.place(key));
        put_number(out, texts.place(value));
    }
    put_number(out, row.status_reason.as_ref().map_or(0, |reason| texts.place(reason) + 1));
    put_list(out, texts, row.agents.iter().map(AgentId::as_str));
    if let Some(max) = row.max_parallel {
        put_number(out, u64::from(max));
    }
    out.push(row.progress);
    for number in [row.steps as u64, row.settled as u64, row.revision] {
        put_number(out, number);
    }
}

fn put_list<'r>(out: &mut Vec<u8>, texts: &mut Texts<'r>, list: impl ExactSizeIterator<Item = &'r str>) {
    put_number(out, list.len() as u64);
    for text in list {
        put_number(out, texts.place(text));
    }
}

impl Serialize for Block {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0.bytes)
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Block;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a block of ended operations")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Block, E> {
                Block::parse(bytes.into()).ok_or_else(|| E::custom("these bytes are no block"))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Block, E> {
                Block::parse(bytes.into()).ok_or_else(|| E::custom("these bytes are no block"))
            }
        }

        deserializer.deserialize_byte_buf(Bytes)
    }
}
