//! Owns reading a log from its first event to its last: that it is whole, its digest, and what it comes to.

use std::path::Path;

use actors::codec;
use actors::past::Past;
use events::{Audit, Recorded, SledLog};

use super::Fault;
use crate::archive::Digest;

/// What a whole log comes to.
pub struct Survey {
    /// That it holds together.
    pub audit: Audit,
    /// BLAKE3 of its events.
    pub digest: String,
    /// What its events fold to.
    pub past: Past,
}

impl Survey {
    /// Reads the log in a folder that nobody has open, and shows each event.
    ///
    /// # Errors
    /// When it is damaged, or an event of it is not understood.
    pub fn of(folder: &Path, each: &mut dyn FnMut(&Recorded)) -> Result<Self, Fault> {
        let (mut digest, mut past, mut unknown) = (Digest::default(), Past::default(), None);
        let audit = SledLog::audit(folder, &mut |event| {
            let checked = codec::check(event.stream.category(), &event.name, event.schema, &event.body);
            checked.map_err(|fault| {
                unknown = Some(Box::new(fault));
                "an event is not understood"
            })?;
            digest.add(event);
            let _ = past.take(event);
            each(event);
            Ok(())
        });
        match audit {
            Ok(audit) => Ok(Self { audit, digest: digest.end().digest, past }),
            Err(source) => Err(Fault::Log { folder: folder.to_owned(), source: Box::new(source), unknown }),
        }
    }
}
