//! Clients that change and read the same few aggregates at once, and note what they send and hear. Knows
//! nothing of what is right: that is the checker's.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::sync::{Notify, RwLock};
use tokio::time::timeout;

use super::checker::{Fields, Moment, NEVER, Outcome, Request, Wish};
use super::support::dice::Dice;
use super::support::{Photon, step};

/// Aggregates of one history: operations, and agents among them.
const PLACES: usize = 6;
/// Longest patience of a client that hangs up before it hears an answer, in microseconds.
const HANG_UP_US_MAX: u64 = 4_000;

/// What the clients of one history share: all run on one thread.
pub(crate) struct Notes {
    name: String,
    requests: RefCell<Vec<Request>>,
    moment: Cell<Moment>,
    asked: usize,
    taken: Cell<usize>,
    signal_at: usize,
    signal: Notify,
}

impl Notes {
    /// Of a history with so many requests; the signal comes with one of them.
    pub(crate) fn new(name: String, asked: usize, signal_at: usize) -> Self {
        let (requests, moment, taken) = (RefCell::default(), Cell::default(), Cell::default());
        Self { name, requests, moment, asked, taken, signal_at, signal: Notify::new() }
    }

    /// Waits until so many requests were begun.
    pub(crate) async fn signal(&self) {
        self.signal.notified().await;
    }

    pub(crate) fn into_requests(self) -> Vec<Request> {
        self.requests.into_inner()
    }

    /// The number of a new request, unless there were enough.
    fn take(&self) -> Option<usize> {
        let number = self.taken.get();
        if number == self.signal_at {
            self.signal.notify_one();
        }
        (number < self.asked).then(|| self.taken.replace(number + 1))
    }

    fn now(&self) -> Moment {
        self.moment.replace(self.moment.get() + 1)
    }

    /// Aggregates are begun one after the other, so that there are creations all the time.
    fn places(&self) -> usize {
        1 + self.taken.get() * PLACES / (self.asked + 1)
    }
}

/// An aggregate that a client was shown.
#[derive(Clone)]
struct Known {
    path: String,
    revision: u64,
}

/// One client.
pub(crate) struct Client<'a> {
    notes: &'a Notes,
    photon: &'a RwLock<Photon>,
    dice: Dice,
    known: Vec<Option<Known>>,
}

/// What is sent.
#[derive(Clone, Debug)]
struct Call {
    place: usize,
    method: &'static str,
    path: String,
    body: Option<Value>,
    wish: Wish,
}

/// The name of an aggregate before the server gives it one.
fn subject(place: usize) -> String {
    let kind = if is_agent(place) { "agent" } else { "operation" };
    format!("{kind} {place}")
}

fn is_agent(place: usize) -> bool {
    place % 3 == 2
}

/// What of an aggregate, or of an event about it, clients look at.
pub(crate) fn fields_of(shown: &Value) -> Fields {
    let names = ["name", "description", "metadata", "paused"].into_iter();
    let fields = names.map(|name| (name.to_owned(), shown[name].clone()));
    fields.filter(|(_, value)| !value.is_null()).collect()
}

impl<'a> Client<'a> {
    pub(crate) fn new(notes: &'a Notes, photon: &'a RwLock<Photon>, dice: Dice) -> Self {
        Self { notes, photon, dice, known: vec![None; PLACES] }
    }

    /// Asks until the history is long enough.
    pub(crate) async fn live(mut self) {
        while let Some(number) = self.notes.take() {
            let place = self.dice.index(self.notes.places());
            let call = match self.known[place].clone() {
                None => self.creation(place),
                Some(known) => self.visit(place, number, &known),
            };
            let mut unheard = self.send(&call, number).await;
            // Whoever has a key may ask again what came of it; others never hear.
            let has_key = matches!(call.wish, Wish::Change { key: Some(_), .. });
            while unheard && has_key && self.dice.below(4) > 0 {
                let Some(number) = self.notes.take() else { return };
                unheard = self.send(&call, number).await;
            }
        }
    }

    /// All clients create with the same key and body, so that there is one aggregate.
    fn creation(&self, place: usize) -> Call {
        let (id, text) = (format!("{}-{place}", self.notes.name), "new");
        let mut shown = json!({"name": text, "metadata": {"text": text}});
        let mut body = shown.clone();
        if is_agent(place) {
            (body["id"], body["config"]) = (json!(id), json!({"heartbeatIntervalMs": 0}));
        } else {
            shown["description"] = json!(text);
            body["description"] = json!(text);
            // No step begins, so that the clients alone write its history.
            (body["autoStart"], body["workflow"]) = (json!(false), json!([step(1, "act", &[], json!({}))]));
            shown["paused"] = json!(false);
        }
        let path = if is_agent(place) { "/api/v1/agents" } else { "/api/v1/operations" };
        let wish = Wish::Change { fields: fields_of(&shown), only_at: None, key: Some(id) };
        Call { place, method: "POST", path: path.to_owned(), body: Some(body), wish }
    }

    /// Reads or changes what is there.
    fn visit(&mut self, place: usize, number: usize, known: &Known) -> Call {
        let text = format!("text {number}");
        let path = known.path.clone();
        match self.dice.below(10) {
            0..4 => Call { place, method: "GET", path, body: None, wish: Wish::Read },
            4 | 5 if !is_agent(place) => {
                let (what, paused) = self.dice.pick(&[("pause", true), ("resume", false)]);
                let key = Some(format!("{}-{number}", self.notes.name));
                let wish = Wish::Change { fields: fields_of(&json!({"paused": paused})), only_at: None, key };
                Call { place, method: "POST", path: format!("{path}/{what}"), body: Some(json!({})), wish }
            }
            _ => {
                let mut body = json!({});
                let names = if is_agent(place) { &["name"][..] } else { &["name", "description"] };
                match self.dice.index(names.len() + 1) {
                    at if at < names.len() => body[names[at]] = json!(text),
                    _ => (body["name"], body["metadata"]) = (json!(text), json!({"text": text})),
                }
                let only_at = self.dice.coin().then_some(known.revision);
                let wish = Wish::Change { fields: fields_of(&body), only_at, key: None };
                Call { place, method: "PUT", path, body: Some(body), wish }
            }
        }
    }

    /// Sends a call and notes it; true when nobody said what came of it.
    async fn send(&mut self, call: &Call, number: usize) -> bool {
        let id = format!("{}-{number}", self.notes.name);
        // Not while the server is between two lives.
        let request = call.request(&*self.photon.read().await).header("x-request-id", &id);
        // What is left alone after the last kill might be carried out when the history is over.
        let may_hang_up = self.notes.taken.get() < self.notes.signal_at && call.wish != Wish::Read;
        let hangs_up = may_hang_up && self.dice.below(16) == 0;
        let patience_us = if hangs_up { self.dice.below(HANG_UP_US_MAX) } else { u64::MAX };
        let patience = Duration::from_micros(patience_us);
        let sent = self.notes.now();
        let outcome = timeout(patience, self.hear(call, request)).await.unwrap_or(Outcome::Unknown);
        let unheard = matches!(outcome, Outcome::Unknown);
        let heard = if unheard { NEVER } else { self.notes.now() };
        let (subject, wish) = (subject(call.place), call.wish.clone());
        self.notes.requests.borrow_mut().push(Request { id, subject, wish, sent, outcome, heard });
        unheard
    }

    async fn hear(&mut self, call: &Call, request: RequestBuilder) -> Outcome {
        let Ok(answer) = request.send().await else { return Outcome::Unknown };
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Ok(body) = answer.json::<Value>().await else { return Outcome::Unknown };
        match status {
            200 | 201 => {
                let (data, position): (_, u64) = (&body["data"], header("photon-position").parse().unwrap());
                let revision = data["revision"].as_u64().unwrap();
                match is_agent(call.place) {
                    true => must_be_of_agent(header("etag"), revision, position),
                    false => assert_eq!(header("etag"), format!("\"{revision}\"")),
                }
                let path = if is_agent(call.place) { "/api/v1/agents" } else { "/api/v1/operations" };
                let path = format!("{path}/{}", data["id"].as_str().unwrap());
                self.known[call.place] = Some(Known { path, revision });
                Outcome::Shown { revision, fields: fields_of(data), position }
            }
            412 => Outcome::Mismatch { position: header("photon-position").parse().unwrap() },
            // The server begins or ends.
            503 => Outcome::Unknown,
            _ => panic!("{call:?} was answered with {status}: {body}"),
        }
    }
}

impl Call {
    fn request(&self, photon: &Photon) -> RequestBuilder {
        let mut request = photon.request(self.method, &self.path);
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        match &self.wish {
            Wish::Change { only_at: Some(revision), .. } => {
                // Of an agent's tag the revision is looked at alone.
                let position = if is_agent(self.place) { ".1" } else { "" };
                request.header("if-match", format!("\"{revision}{position}\""))
            }
            Wish::Change { key: Some(key), .. } => request.header("idempotency-key", key),
            _ => request,
        }
    }
}

/// What is shown of an agent changes without its revision too: its tag names both, and nothing that is to
/// come.
fn must_be_of_agent(tag: &str, revision: u64, position: u64) {
    let parts = tag.trim_matches('"').split_once('.').and_then(|(of, since)| Some((of, since.parse().ok()?)));
    let (of, since): (&str, u64) = parts.unwrap_or_else(|| panic!("{tag} is no tag of an agent"));
    assert_eq!((of, since <= position), (&*revision.to_string(), true), "{tag} at {position}");
}
