//! The audit of snapshots: each is compared with what the log says, folded from its beginning. Changes
//! nothing.

use std::sync::Arc;

use domain::Aggregate;
use domain::agent::Agent;
use domain::lane::Lane;
use domain::operation::Operation;
use events::{EventLog, Position, ReadError, StreamId, Version};
use snapshots::{FileStore, Flaw, Found, Hash, Reader, Subject};

use super::streams::end_of;
use super::{Taken, belongs};
use crate::codec::Durable;
use crate::kept::{FORM, keep_all};
use crate::recovery::{Recovered, recover};
use crate::standing::Standing;

/// What was found of one snapshot.
#[derive(Debug)]
pub struct Verified {
    /// The name of its file.
    pub name: String,
    /// What it says of itself, if it can be read.
    pub taken: Option<Taken>,
    /// How it is.
    pub verdict: Verdict,
}

/// How a snapshot is.
#[derive(Debug)]
pub enum Verdict {
    /// It is what the log says.
    Right,
    /// It is whole, and not used: of another form or another log.
    PassedOver(Flaw),
    /// It is damaged, or says something else than the log.
    Wrong(String),
}

/// Verifies all snapshots in a store against a log.
///
/// # Errors
/// When the log cannot be read.
pub async fn verify(store: &FileStore, log: &Arc<dyn EventLog>) -> Result<Vec<Verified>, ReadError> {
    let mut found: Vec<Found> = store.all()?.collect();
    // Those of the views in the order of the log, which is folded once for all of them.
    found.reverse();
    let mut standing = Standing::default();
    let mut all = Vec::with_capacity(found.len());
    for Found { name, opened } in found {
        let taken = opened.as_ref().ok();
        let taken = taken.map(|reader| Taken::of(reader.stamp(), reader.state(), reader.bytes()));
        let verdict = match opened {
            Ok(reader) => of(&reader, &**log, &mut standing).await?,
            Err(flaw) => judged(flaw),
        };
        all.push(Verified { name, taken, verdict });
    }
    all.reverse();
    Ok(all)
}

fn judged(flaw: Flaw) -> Verdict {
    match flaw {
        Flaw::OtherForm { .. } | Flaw::OtherLog(_) | Flaw::Missing => Verdict::PassedOver(flaw),
        Flaw::Damaged(_) | Flaw::Io(_) => Verdict::Wrong(flaw.to_string()),
    }
}

async fn of(reader: &Reader, log: &dyn EventLog, standing: &mut Standing) -> Result<Verdict, ReadError> {
    let stamp = reader.stamp();
    let Subject::Stream(name) = &stamp.subject else {
        if let Err(flaw) = belongs(stamp, log).await {
            return Ok(judged(flaw));
        }
        standing.fold_up_to(log, Position::new(stamp.position), &|| true).await?;
        let ends_then = standing.past.time == domain::Timestamp::from_micros(stamp.time_us);
        let counted = standing.past.events == stamp.events && ends_then;
        return Ok(compared(hash_of_all(standing), reader.state(), counted));
    };
    let Ok(stream) = StreamId::parse(name) else { return Ok(Verdict::Wrong("it is of no stream".into())) };
    match stream.category() {
        Operation::CATEGORY => of_stream::<Operation>(reader, log, &stream).await,
        Agent::CATEGORY => of_stream::<Agent>(reader, log, &stream).await,
        Lane::CATEGORY => of_stream::<Lane>(reader, log, &stream).await,
        _ => Ok(Verdict::Wrong("streams of its kind have no state".into())),
    }
}

async fn of_stream<A: Durable>(
    reader: &Reader,
    log: &dyn EventLog,
    stream: &StreamId,
) -> Result<Verdict, ReadError> {
    let stamp = reader.stamp();
    if stamp.form != FORM {
        return Ok(judged(Flaw::OtherForm { found: stamp.form, wanted: FORM }));
    }
    match end_of(log, stream, Version::new(stamp.version)).await {
        Ok(end) if end.hash == stamp.end => {}
        Ok(_) => return Ok(judged(Flaw::OtherLog("another event stands where it ends"))),
        Err(flaw) => return Ok(judged(flaw)),
    }
    let admits = |recorded: &events::Recorded| recorded.version.get() <= stamp.version;
    let whole = recover::<A>(log, stream, Recovered::default(), &admits).await;
    let state = match whole.map(|recovered| recovered.state) {
        Ok(Some(state)) => state.keep().ok(),
        Ok(None) => None,
        Err(fault) => return Ok(Verdict::Wrong(fault.to_string())),
    };
    let mut hasher = blake3::Hasher::new();
    let hash = state.map(|state| {
        piece(&mut hasher, &state);
        *hasher.finalize().as_bytes()
    });
    Ok(compared(hash, reader.state(), true))
}

/// The hash that a snapshot of this has: of each piece after its length.
pub(super) fn hash_of_all(standing: &Standing) -> Option<Hash> {
    let mut hasher = blake3::Hasher::new();
    let each = &mut |part: &[u8]| {
        piece(&mut hasher, part);
        Ok(())
    };
    keep_all::<String>(&standing.past.views, &standing.keys, each).ok()?;
    Some(*hasher.finalize().as_bytes())
}

fn piece(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    hasher.update(&length.to_le_bytes()).update(bytes);
}

fn compared(folded: Option<Hash>, kept: Hash, counted: bool) -> Verdict {
    match folded {
        Some(folded) if folded == kept && counted => Verdict::Right,
        _ => Verdict::Wrong("its state is not what the log comes to".into()),
    }
}
