//! Owns where every stream ends, in little memory: most streams are named by a number and rest for ever.
//! Must never guess: a head belongs to exactly the name that it was put under.
//!
//! A name that ends in 32 hexadecimal digits is kept as those 16 bytes, in a table of its prefix; any other
//! name as it is.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::log::Head;
use crate::stream::{Position, StreamId, Version};

/// Hexadecimal digits of a number.
const DIGITS: usize = 32;
/// Prefixes that have a table; names with further ones are kept as they are.
const PREFIXES_MAX: usize = 8;
/// Parts of a table, so that growing one of them holds nobody up.
const PARTS: usize = 64;
const SLOTS_MIN: usize = 8;
/// A version that does not fit: the head is kept under its name.
const ELSEWHERE: u32 = u32::MAX;

/// The durable head of every stream. Readers start from it.
#[derive(Default)]
pub(crate) struct Heads {
    numbered: Vec<(Box<str>, Table)>,
    named: HashMap<StreamId, Head>,
    streams: u64,
}

impl Heads {
    /// Where a stream ends; none when it has no event.
    pub(crate) fn get(&self, stream: &str) -> Option<Head> {
        if let Some((prefix, number)) = split(stream)
            && let Some(table) = self.table(prefix)
            && let Some(head) = table.get(number).filter(|head| head.version != elsewhere())
        {
            return Some(head);
        }
        self.named.get(stream).copied()
    }

    /// A stream ends here now.
    pub(crate) fn put(&mut self, stream: &StreamId, head: Head) {
        let new = match split(stream.as_str()) {
            Some((prefix, number)) if self.make_room(prefix) => {
                let fits = head.version < elsewhere();
                if !fits {
                    self.named.insert(stream.clone(), head);
                }
                let kept = if fits { head } else { Head { version: elsewhere(), ..head } };
                let table = self.numbered.iter_mut().find(|(known, _)| **known == *prefix);
                table.is_some_and(|(_, table)| table.put(number, kept))
            }
            _ => self.named.insert(stream.clone(), head).is_none(),
        };
        self.streams += u64::from(new);
    }

    /// How many streams there are.
    pub(crate) fn len(&self) -> u64 {
        self.streams
    }

    fn table(&self, prefix: &str) -> Option<&Table> {
        self.numbered.iter().find(|(known, _)| **known == *prefix).map(|(_, table)| table)
    }

    /// Whether there is a table for this prefix, made now if there may be another one.
    fn make_room(&mut self, prefix: &str) -> bool {
        let known = self.table(prefix).is_some();
        if !known && self.numbered.len() < PREFIXES_MAX {
            self.numbered.push((prefix.into(), Table::default()));
            return true;
        }
        known
    }
}

fn elsewhere() -> Version {
    Version::new(u64::from(ELSEWHERE))
}

/// A name's prefix and the number at its end.
fn split(name: &str) -> Option<(&str, u128)> {
    let (prefix, digits) = name.split_at_checked(name.len().checked_sub(DIGITS)?)?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let number = digits.bytes().all(is_digit).then(|| u128::from_str_radix(digits, 16).ok()).flatten()?;
    Some((prefix, number))
}

/// Heads by number: open addressing, at most 85 hundredths full.
#[derive(Default)]
struct Table {
    parts: Vec<Part>,
    /// Differs between processes, so that nobody can choose numbers that collide.
    hashing: RandomState,
}

#[derive(Default)]
struct Part {
    slots: Vec<Slot>,
    used: usize,
}

/// Number, position and version in four bytes each, so that nothing is lost between slots; vacant while the
/// version is 0.
type Slot = [u32; 7];

const VACANT: Slot = [0; 7];

impl Table {
    fn get(&self, number: u128) -> Option<Head> {
        let (part, hash) = self.hashed(number);
        let part = self.parts.get(part)?;
        let slot = part.slots.get(part.find(number, hash)?)?;
        (*slot != VACANT).then(|| head_of(slot))
    }

    /// Whether the number is a new one.
    fn put(&mut self, number: u128, head: Head) -> bool {
        self.parts.resize_with(PARTS, Part::default);
        let (part, hash) = self.hashed(number);
        let hashing = &self.hashing;
        let Some(part) = self.parts.get_mut(part) else { return false };
        if part.used * 100 >= part.slots.len() * 85 {
            part.grow(|number| hashing.hash_one(number));
        }
        let Some(slot) = part.find(number, hash).and_then(|at| part.slots.get_mut(at)) else { return false };
        let new = *slot == VACANT;
        *slot = slot_of(number, head);
        part.used += usize::from(new);
        new
    }

    fn hashed(&self, number: u128) -> (usize, u64) {
        let hash = self.hashing.hash_one(number);
        (hash as usize % PARTS, hash)
    }
}

impl Part {
    /// Where a number is, or would be.
    fn find(&self, number: u128, hash: u64) -> Option<usize> {
        let count = self.slots.len();
        let first = ((u128::from(hash) * count as u128) >> 64) as usize;
        let places = (first..count).chain(0..first);
        places.into_iter().find(|at| self.slots[*at] == VACANT || number_of(&self.slots[*at]) == number)
    }

    fn grow(&mut self, hash: impl Fn(u128) -> u64) {
        let slots = (self.slots.len() * 5 / 4 + 1).max(SLOTS_MIN);
        let before = std::mem::replace(&mut self.slots, vec![VACANT; slots]);
        for slot in before.into_iter().filter(|slot| *slot != VACANT) {
            let number = number_of(&slot);
            if let Some(at) = self.find(number, hash(number)) {
                self.slots[at] = slot;
            }
        }
    }
}

fn slot_of(number: u128, head: Head) -> Slot {
    let (position, version) = (head.position.get(), head.version.get());
    let version = u32::try_from(version).unwrap_or(ELSEWHERE);
    let [a, b, c, d] = [96, 64, 32, 0].map(|shift| (number >> shift) as u32);
    [a, b, c, d, (position >> 32) as u32, position as u32, version]
}

fn number_of(slot: &Slot) -> u128 {
    slot[..4].iter().fold(0, |number, part| number << 32 | u128::from(*part))
}

fn head_of(slot: &Slot) -> Head {
    let position = u64::from(slot[4]) << 32 | u64::from(slot[5]);
    Head { version: Version::new(u64::from(slot[6])), position: Position::new(position) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    fn head(version: u64, position: u64) -> Head {
        Head { version: Version::new(version), position: Position::new(position) }
    }

    #[test]
    fn heads_are_what_a_plain_table_says() {
        let (mut heads, mut plain, mut dice) = (Heads::default(), HashMap::new(), Dice(7));
        for turn in 1..50_000 {
            let number = u128::from(dice.below(9_000)) << (dice.below(2) * 90);
            let name = match dice.below(8) {
                0 => format!("agent/a{number}"),
                1 => format!("agent/a-{number:032X}"),
                2 => format!("x{}/{number:032x}", dice.below(20)),
                _ => format!("operation/op_{number:032x}"),
            };
            let version = if dice.below(99) == 0 { u64::from(ELSEWHERE) + dice.below(3) } else { turn };
            let stream = StreamId::parse(&name).unwrap();
            heads.put(&stream, head(version, turn << 20));
            plain.insert(stream, head(version, turn << 20));
            let other = format!("operation/op_{:032x}", dice.below(9_000));
            assert_eq!(heads.get(&other), plain.get(other.as_str()).copied());
        }
        assert!(plain.iter().all(|(stream, head)| heads.get(stream.as_str()) == Some(*head)));
        assert_eq!(heads.len(), plain.len() as u64);
        assert_eq!(heads.numbered.len(), PREFIXES_MAX);
    }

    #[test]
    fn a_head_of_a_numbered_stream_takes_less_than_fifty_bytes() {
        let mut heads = Heads::default();
        for number in 0..100_000_u128 {
            let stream = StreamId::new("operation", &format!("op_{number:032x}")).unwrap();
            heads.put(&stream, head(3, 9));
            if number > 5_000 && number % 1_000 == 0 {
                let slots: usize = heads.numbered[0].1.parts.iter().map(|part| part.slots.capacity()).sum();
                assert!(slots * size_of::<Slot>() < 50 * number as usize, "{number}: {slots}");
            }
        }
    }
}
