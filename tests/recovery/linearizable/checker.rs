//! Whether the requests of a history, and the log that they left, agree with one order (P6). Pure: it sends
//! nothing and knows no server, no clock and no dice.
//!
//! A history is linearizable exactly when each request can be given a point between its sending and its
//! answer, so that the answers are those of a server that does one thing after the other, at those points. In
//! general such an order must be searched for (Wing and Gong, Lowe). Not here: each answer names the revision
//! that it shows, and the log says which request made which revision, so the order is given. What shows
//! revision `r` lies behind what made `r` and before what made `r + 1`; among those that only show it, what
//! was sent first goes first. In this order each takes the earliest point that it can: the latest sending so
//! far. If that is behind its answer, the history is not linearizable. A sort, exact, whose faults name the
//! requests that contradict each other.
//!
//! That revisions are told is not taken on trust: what an answer shows must be what the log folds to at that
//! revision, and what the log has must be what was asked for, once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

/// When something was sent or heard: a count that all clients share, so that no two are equal.
pub(crate) type Moment = u64;

/// What was never heard.
pub(crate) const NEVER: Moment = Moment::MAX;

/// What clients see of an aggregate, or change of it.
pub(crate) type Fields = BTreeMap<String, Value>;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To be shown how it stands.
    Read,
    /// To give these fields these values; only at this revision, if one is named; only once for all requests
    /// with this key, if there is one.
    Change { fields: Fields, only_at: Option<u64>, key: Option<String> },
}

/// What came of a request.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It was carried out, and this is how the aggregate stood then.
    Shown { revision: u64, fields: Fields, position: u64 },
    /// The revision was another than the one that it named.
    Mismatch { position: u64 },
    /// Nobody said.
    Unknown,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Unique; the log names it.
    pub(crate) id: String,
    pub(crate) subject: String,
    pub(crate) wish: Wish,
    pub(crate) sent: Moment,
    pub(crate) outcome: Outcome,
    /// [`NEVER`] if nobody said what came of it.
    pub(crate) heard: Moment,
}

/// One event of the log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) position: u64,
    /// In a form whose order is that of time.
    pub(crate) time: String,
    pub(crate) subject: String,
    pub(crate) revision: u64,
    /// The request that made it.
    pub(crate) request: String,
    /// What it changed.
    pub(crate) fields: Fields,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Positions rise, times never fall, revisions are 1, 2, 3; no answer is behind one that was heard before
    /// its request was sent.
    Places,
    /// What is in the log was asked for, and not refused.
    Unasked,
    /// A request, and all with one key, change something once.
    Once,
    /// What was acknowledged is in the log.
    Lost,
    /// A change that names a revision is made at that revision.
    Overwritten,
    /// What is shown is what stood at the revision that is named.
    Shown,
    /// The order of the log is one in which everything can have happened between its sending and its answer.
    RealTime,
    /// Who is refused because of the revision was so at a moment at which it was another.
    Refused,
}

/// A rule that is broken, and by what.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

fn broken<T>(rule: Rule, what: String) -> Result<T, Fault> {
    Err(Fault { rule, what })
}

fn require(holds: bool, rule: Rule, what: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds { Ok(()) } else { broken(rule, what()) }
}

impl Wish {
    fn key(&self) -> Option<&str> {
        match self {
            Self::Change { key, .. } => key.as_deref(),
            Self::Read => None,
        }
    }

    fn only_at(&self) -> Option<u64> {
        match self {
            Self::Change { only_at, .. } => *only_at,
            Self::Read => None,
        }
    }
}

/// Says what is wrong first, if anything is. The log is that of the requests alone, oldest first.
pub(crate) fn check(requests: &[Request], log: &[Entry]) -> Result<(), Fault> {
    let by_id: HashMap<&str, &Request> =
        requests.iter().map(|request| (request.id.as_str(), request)).collect();
    let mut writers = Vec::new();
    for entry in log {
        match by_id.get(entry.request.as_str()) {
            Some(writer) if writer.subject == entry.subject => writers.push(*writer),
            _ => return broken(Rule::Unasked, format!("nobody asked for {entry:?}")),
        }
    }
    places(log)?;
    answers_rise(requests)?;
    once(&writers)?;
    // One order for all of them together; each with its readers comes below.
    let mut latest = 0;
    for writer in &writers {
        latest = latest.max(writer.sent);
        require(latest <= writer.heard, Rule::RealTime, || format!("too late in the log: {writer:?}"))?;
    }
    let subjects: BTreeSet<&str> = requests.iter().map(|request| request.subject.as_str()).collect();
    for subject in subjects {
        let made = log.iter().zip(writers.iter().copied()).filter(|(entry, _)| entry.subject == subject);
        let register = Register::of(made)?;
        let requests: Vec<&Request> = requests.iter().filter(|request| request.subject == subject).collect();
        register.check(&requests)?;
    }
    Ok(())
}

fn places(log: &[Entry]) -> Result<(), Fault> {
    for pair in log.windows(2) {
        let grows = pair[0].position < pair[1].position && pair[0].time <= pair[1].time;
        require(grows, Rule::Places, || format!("{:?} before {:?}", pair[0], pair[1]))?;
    }
    let mut revisions: HashMap<&str, u64> = HashMap::new();
    for entry in log {
        let revision = revisions.entry(&entry.subject).or_default();
        *revision += 1;
        require(entry.revision == *revision, Rule::Places, || format!("{entry:?} is no. {revision}"))?;
    }
    Ok(())
}

/// The positions that answers name, before and after a restart.
fn answers_rise(requests: &[Request]) -> Result<(), Fault> {
    let mut moments: BTreeMap<Moment, (&Request, bool)> = BTreeMap::new();
    for request in requests {
        moments.insert(request.sent, (request, false));
        if request.heard != NEVER {
            moments.insert(request.heard, (request, true));
        }
    }
    let (mut latest, mut known) = (0, HashMap::new());
    for (request, is_heard) in moments.into_values() {
        match &request.outcome {
            Outcome::Unknown => {}
            _ if !is_heard => {
                known.insert(request.id.as_str(), latest);
            }
            Outcome::Shown { position, .. } | Outcome::Mismatch { position } => {
                let said = || format!("{latest} was known before {request:?}");
                require(*position >= known[request.id.as_str()], Rule::Places, said)?;
                latest = latest.max(*position);
            }
        }
    }
    Ok(())
}

fn once(writers: &[&Request]) -> Result<(), Fault> {
    let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for writer in writers {
        let is_new = ids.insert(&writer.id) && writer.wish.key().is_none_or(|key| keys.insert(key));
        require(is_new, Rule::Once, || format!("twice in the log: {writer:?}"))?;
    }
    Ok(())
}

/// One revision of an aggregate.
struct Revision<'a> {
    entry: &'a Entry,
    writer: &'a Request,
    /// How the aggregate stood then.
    fields: Fields,
}

/// One aggregate as the log tells it.
struct Register<'a>(Vec<Revision<'a>>);

/// What an answer that shows a revision has to do with it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Made it.
    Made,
    /// Has the key of the one that made it: shows what was then, whatever came since.
    Repeated,
    /// Found it and left it.
    Found,
}

impl<'a> Register<'a> {
    fn of(made: impl Iterator<Item = (&'a Entry, &'a Request)>) -> Result<Self, Fault> {
        let (mut revisions, mut fields) = (Vec::new(), Fields::new());
        for (entry, writer) in made {
            let said = || format!("{entry:?} is not what was asked for by {writer:?}");
            let Wish::Change { fields: asked, only_at, .. } = &writer.wish else {
                return broken(Rule::Unasked, said());
            };
            let changed = asked.iter().filter(|(name, value)| fields.get(*name) != Some(*value));
            let is_right = !entry.fields.is_empty() && changed.eq(entry.fields.iter());
            let is_refused = matches!(writer.outcome, Outcome::Mismatch { .. });
            require(is_right && !is_refused, Rule::Unasked, said)?;
            let fits = only_at.is_none_or(|only| only + 1 == entry.revision);
            require(fits, Rule::Overwritten, || format!("{entry:?} by {writer:?}"))?;
            fields.extend(entry.fields.clone());
            revisions.push(Revision { entry, writer, fields: fields.clone() });
        }
        Ok(Self(revisions))
    }

    fn at(&self, revision: u64) -> Option<&Revision<'a>> {
        self.0.get(usize::try_from(revision.checked_sub(1)?).ok()?)
    }

    fn check(&self, requests: &[&Request]) -> Result<(), Fault> {
        let mut shown = Vec::new();
        for request in requests {
            if let Outcome::Shown { revision, .. } = &request.outcome {
                shown.push((*revision, self.part(request)?, *request));
            }
        }
        // Those of whom nobody said anything, but who are in the log, have a point too.
        let unheard = self.0.iter().filter(|revision| matches!(revision.writer.outcome, Outcome::Unknown));
        shown.extend(unheard.map(|revision| (revision.entry.revision, Part::Made, revision.writer)));
        let points = points(shown)?;
        for request in requests {
            self.names_its_place(request)?;
            if matches!(request.outcome, Outcome::Mismatch { .. }) {
                refused(request, requests, &points)?;
            }
        }
        Ok(())
    }

    /// Who goes on from the place that a read names misses nothing: what it does not show comes later.
    fn names_its_place(&self, request: &Request) -> Result<(), Fault> {
        let (Wish::Read, Outcome::Shown { revision, position, .. }) = (&request.wish, &request.outcome)
        else {
            return Ok(());
        };
        let next = self.at(*revision + 1);
        let said = || format!("what follows is before the place that is named: {request:?}");
        require(next.is_none_or(|next| *position < next.entry.position), Rule::Places, said)
    }

    /// What the answer to a request says is what the log says.
    fn part(&self, request: &Request) -> Result<Part, Fault> {
        let Outcome::Shown { revision, fields, position } = &request.outcome else { return Ok(Part::Found) };
        let Some(then) = self.at(*revision) else {
            return broken(Rule::Lost, format!("not in the log: {request:?}"));
        };
        let said = |what: &str| format!("{what} {:?}: {request:?}", then.entry);
        let part = if then.writer.id == request.id {
            Part::Made
        } else if request.wish.key().is_some_and(|key| then.writer.wish.key() == Some(key)) {
            Part::Repeated
        } else {
            Part::Found
        };
        if let (Part::Found, Wish::Change { fields: asked, .. }) = (&part, &request.wish) {
            let elsewhere = self.0.iter().any(|made| made.writer.id == request.id);
            let stands = asked.iter().all(|(name, value)| then.fields.get(name) == Some(value));
            require(!elsewhere && stands, Rule::Lost, || said("it did not make"))?;
            let fits = request.wish.only_at().is_none_or(|only| only == *revision);
            require(fits, Rule::Overwritten, || said("it names another than"))?;
        }
        require(*fields == then.fields, Rule::Shown, || format!("{:?}: {request:?}", then.fields))?;
        require(*position >= then.entry.position, Rule::Places, || said("it is behind"))?;
        Ok(part)
    }
}

/// The earliest moment at which each revision can have been made, the first one first.
fn points(mut shown: Vec<(u64, Part, &Request)>) -> Result<Vec<Moment>, Fault> {
    // A read that was sent before the write that it shows is behind it all the same.
    shown.sort_by(|one, other| (one.0, &one.1, one.2.sent).cmp(&(other.0, &other.1, other.2.sent)));
    let (mut latest, mut points, mut last) = (0, Vec::new(), None::<&Request>);
    for (_, part, request) in shown {
        if part != Part::Repeated && request.sent > latest {
            (latest, last) = (request.sent, Some(request));
        }
        let said = || format!("{last:?} was sent after the answer to {request:?}, which is behind it");
        require(latest <= request.heard, Rule::RealTime, said)?;
        if part == Part::Made {
            points.push(latest);
        }
    }
    Ok(points)
}

/// A client names only a revision that it was shown, so that it can only be refused because of a later one.
fn refused(request: &Request, requests: &[&Request], points: &[Moment]) -> Result<(), Fault> {
    let only_at = request.wish.only_at();
    let knew = requests.iter().any(|earlier| {
        matches!(earlier.outcome, Outcome::Shown { revision, .. } if Some(revision) == only_at)
            && earlier.heard < request.sent
    });
    require(knew, Rule::Refused, || format!("nobody was shown the revision that it names: {request:?}"))?;
    let next = only_at.and_then(|only| points.get(usize::try_from(only).ok()?));
    let is_over = next.is_some_and(|next| *next <= request.heard);
    require(is_over, Rule::Refused, || format!("it named the revision that stood: {request:?}"))
}
