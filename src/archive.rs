//! Owns events as lines of JSON outside the log: what is exported, imported, and kept of what is removed.
//! It must never leave anything out: a file without its last line, or with another digest, is refused.
//!
//! The first line tells the format and the version that wrote it, the last one how many events there are and
//! their digest. Format 1 had no such first line; Photon wrote it before its first release, and it is named
//! when it is found and never read.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use events::{Beside, Position, Recorded, StreamId, Version};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::event_view;

/// Longest line: the largest append, twice as hexadecimal digits and once more as JSON.
const LINE_MAX_BYTES: u64 = 64 << 20;

/// One line: an event with the places that it has in the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EventLine<D> {
    position: u64,
    version: u64,
    stream: String,
    id: Uuid,
    name: String,
    schema: u16,
    time_us: i64,
    /// Hexadecimal digits, as is the body.
    metadata: String,
    body: String,
    /// The body for people; an import does not read it.
    data: D,
}

/// The only format that is written, and read.
const FORMAT: u32 = 2;

/// How each line of format 1 begins that can be its first.
const FORMER: [&str; 2] = ["{\"position\":", END];

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct HeadLine {
    export: Head,
}

/// What the first line says. A later format may say more.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    /// Version of the program that wrote it.
    program: String,
}

/// How the last line begins, and no other.
const END: &str = "{\"end\"";

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndLine {
    end: End,
}

/// What the last line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// How many events there are.
    pub events: u64,
    /// BLAKE3 of all that an import reads.
    pub digest: String,
}

/// The digest of events, in order: the same wherever they are kept.
#[derive(Default)]
pub struct Digest {
    hasher: blake3::Hasher,
    events: u64,
}

impl Digest {
    /// Adds one event.
    pub fn add(&mut self, event: &Recorded) {
        let Recorded { id, stream, version, position, name, schema, time_us, metadata, body, beside: _ } =
            event;
        self.events += 1;
        for number in [position.get(), version.get(), u64::from(*schema)] {
            self.hasher.update(&number.to_le_bytes());
        }
        self.hasher.update(&time_us.to_le_bytes()).update(id.get().as_bytes());
        for bytes in [stream.as_str().as_bytes(), name.as_bytes(), metadata, body] {
            self.hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
    }

    /// What the last line says.
    #[must_use]
    pub fn end(&self) -> End {
        End { events: self.events, digest: self.hasher.finalize().to_hex().to_string() }
    }
}

/// Writes lines.
pub struct LineWriter<W> {
    out: W,
    digest: Digest,
    begun: bool,
}

impl<W: Write> LineWriter<W> {
    /// Nothing is written yet.
    pub fn new(out: W) -> Self {
        Self { out, digest: Digest::default(), begun: false }
    }

    /// Writes one event.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&mut self, event: &Recorded) -> io::Result<()> {
        self.begin()?;
        self.digest.add(event);
        let line = EventLine {
            position: event.position.get(),
            version: event.version.get(),
            stream: event.stream.to_string(),
            id: event.id.get(),
            name: event.name.to_string(),
            schema: event.schema,
            time_us: event.time_us,
            metadata: hex(&event.metadata),
            body: hex(&event.body),
            data: event_view::data(event),
        };
        self.line(&line)
    }

    /// Writes the last line, and gives back what was written to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(mut self) -> io::Result<(End, W)> {
        self.begin()?;
        let end = self.digest.end();
        self.line(&EndLine { end: end.clone() })?;
        self.out.flush()?;
        Ok((end, self.out))
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        let program = env!("CARGO_PKG_VERSION").into();
        self.line(&HeadLine { export: Head { format: FORMAT, program } })
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }
}

/// Reads lines: events, and an error unless the last line is there and right.
pub struct LineReader<R> {
    lines: R,
    number: u64,
    digest: Digest,
    ended: bool,
}

impl<R: BufRead> LineReader<R> {
    /// Nothing is read yet.
    pub fn new(lines: R) -> Self {
        Self { lines, number: 0, digest: Digest::default(), ended: false }
    }

    fn next_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.number += 1;
        self.lines.by_ref().take(LINE_MAX_BYTES).read_line(&mut line)?;
        if line.is_empty() { Err(self.wrong("is missing: the file has no end")) } else { Ok(line) }
    }

    /// Reads the first line, which says whether the others are understood.
    fn begin(&mut self) -> io::Result<()> {
        let line = self.next_line()?;
        if FORMER.iter().any(|begin| line.starts_with(begin)) {
            return Err(unreadable(
                "it has format 1, which Photon wrote before its first release and this version cannot read; \
                 import it with the version that wrote it",
            ));
        }
        let head = serde_json::from_str(&line).map_err(|_| self.wrong("is not the beginning of an export"));
        let HeadLine { export: Head { format, program } } = head?;
        if format == FORMAT {
            return Ok(());
        }
        let program: String = program.chars().filter(|letter| !letter.is_control()).take(32).collect();
        Err(unreadable(&format!(
            "it has format {format}, written by version {program} of Photon, and this version reads format \
             {FORMAT} only; import it with the version that wrote it"
        )))
    }

    fn read(&mut self) -> io::Result<Option<Recorded>> {
        if self.number == 0 {
            self.begin()?;
        }
        let line = self.next_line()?;
        if line.starts_with(END) {
            return self.end(&line).map(|()| None);
        }
        let line = serde_json::from_str(&line).ok().and_then(recorded);
        let event = line.ok_or_else(|| self.wrong("is not an exported event"))?;
        self.digest.add(&event);
        Ok(Some(event))
    }

    fn end(&mut self, line: &str) -> io::Result<()> {
        let EndLine { end } = serde_json::from_str(line).map_err(|_| self.wrong("is no end of an export"))?;
        if end != self.digest.end() {
            return Err(self.wrong("does not fit what is before it: something was changed or left out"));
        }
        if !self.lines.fill_buf()?.is_empty() {
            return Err(self.wrong("should be the last one"));
        }
        Ok(())
    }

    fn wrong(&self, what: &str) -> io::Error {
        unreadable(&format!("line {} {what}", self.number))
    }
}

fn unreadable(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<R: BufRead> Iterator for LineReader<R> {
    type Item = io::Result<Recorded>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let read = self.read();
        self.ended = !matches!(read, Ok(Some(_)));
        read.transpose()
    }
}

fn recorded(line: EventLine<IgnoredAny>) -> Option<Recorded> {
    Some(Recorded {
        id: line.id.into(),
        stream: StreamId::parse(&line.stream).ok()?,
        version: Version::new(line.version),
        position: Position::new(line.position),
        name: Arc::from(line.name),
        schema: line.schema,
        time_us: line.time_us,
        metadata: bytes_of(&line.metadata)?.into(),
        body: bytes_of(&line.body)?.into(),
        beside: Beside::NONE,
    })
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| Some(nibble(pair[0])? << 4 | nibble(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(position: u64) -> Recorded {
        Recorded {
            id: Uuid::from_u128(u128::from(position)).into(),
            stream: StreamId::lossy("operation", "op_1"),
            version: Version::new(position),
            position: Position::new(position),
            name: Arc::from("operation.started"),
            schema: 1,
            time_us: -7,
            metadata: vec![0, 255, 16].into(),
            body: Vec::new().into(),
            beside: Beside::NONE,
        }
    }

    fn written() -> String {
        let mut lines = LineWriter::new(Vec::new());
        (1..=3).for_each(|position| lines.event(&event(position)).unwrap());
        String::from_utf8(lines.end().unwrap().1).unwrap()
    }

    fn read(text: &str) -> io::Result<Vec<Recorded>> {
        LineReader::new(text.as_bytes()).collect()
    }

    #[test]
    fn events_come_back_as_they_went() {
        assert_eq!(read(&written()).unwrap(), (1..=3).map(event).collect::<Vec<_>>());
        assert_eq!(bytes_of(&hex(&[0, 1, 254])), Some(vec![0, 1, 254]));
        assert!(bytes_of("0").is_none() && bytes_of("0x").is_none());
    }

    #[test]
    fn whatever_is_changed_added_or_left_out_is_noticed() {
        let whole = written();
        let lines: Vec<&str> = whole.lines().collect();
        let without_one = [lines[0], lines[1], lines[3], lines[4], ""].join("\n");
        let without_end = [lines[0], lines[1], lines[2], lines[3], ""].join("\n");
        let changed = whole.replace("00ff10", "00ff11");
        let after_end = format!("{whole}{}\n", lines[1]);
        for broken in
            [without_one, without_end, changed, after_end, String::new(), whole.replace("op_1", "/")]
        {
            let error = read(&broken).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{broken}");
        }
    }

    #[test]
    fn an_export_of_another_format_is_refused_by_its_name() {
        let whole = written();
        let former: String = whole.lines().skip(1).map(|line| format!("{line}\n")).collect();
        let empty = LineWriter::new(Vec::new()).end().unwrap().1;
        let former_empty = String::from_utf8(empty).unwrap().lines().nth(1).unwrap().to_owned();
        for former in [former, former_empty] {
            let refused = read(&former).unwrap_err().to_string();
            assert!(refused.starts_with("it has format 1, which Photon wrote before"), "{refused}");
        }
        let newer = r#"{"export":{"format":9,"program":"7.8.9","more":true}}"#;
        let refused = read(&format!("{newer}\n")).unwrap_err().to_string();
        assert!(refused.starts_with("it has format 9, written by version 7.8.9 of Photon"), "{refused}");
        let no_export = read("{}\n").unwrap_err().to_string();
        assert_eq!(no_export, "line 1 is not the beginning of an export");
    }
}
