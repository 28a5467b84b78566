//! Random histories, made through the API as clients make them, and the log as it is shown, text by text.
//! Everything random comes from one seed.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::dice::Dice;
use super::{Photon, step};

/// Texts that a careless encoder of JSON or of frames would break.
const TEXTS: [&str; 6] = [
    "plain",
    "zwei\nZeilen\r\nund: mehr",
    "\"quoted\" \\ back",
    "日本 🦀",
    "\u{2028}\u{0}\u{7f}",
    "data: x\n\n",
];

/// Dice with the seed of `PHOTON_TEST_SEED`, or a new one; printed, so that a failure can be repeated.
pub fn thrown() -> Dice {
    let given = std::env::var("PHOTON_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        use std::hash::{BuildHasher, Hasher};
        std::hash::RandomState::new().build_hasher().finish()
    });
    println!("PHOTON_TEST_SEED={seed}");
    Dice(seed)
}

/// An event of the log, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    pub sequence: u64,
    pub kind: String,
    pub subject: String,
    pub text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sheet<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    page: Place,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    next_cursor: Option<String>,
}

/// Every text on the pages of a list, from its first page on.
pub async fn pages(photon: &Photon, query: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut cursor = String::new();
    loop {
        let request = photon.request("GET", &format!("/api/v1/events?{query}{cursor}"));
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{text}");
        let sheet: Sheet<'_> = serde_json::from_str(&text).unwrap();
        texts.extend(sheet.data.iter().map(|raw| raw.get().to_owned()));
        match sheet.page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return texts,
        }
    }
}

/// The whole log.
pub async fn log(photon: &Photon) -> Vec<Logged> {
    let texts = pages(photon, "limit=500").await;
    let log: Vec<Logged> = texts
        .into_iter()
        .map(|text| {
            let event: Value = serde_json::from_str(&text).unwrap();
            let of = |name: &str| event[name].as_str().unwrap().to_owned();
            let sequence = super::streams::sequence_of(&event).unwrap();
            Logged { sequence, kind: of("type"), subject: of("subject"), text }
        })
        .collect();
    assert!(log.is_sorted_by(|one, next| one.sequence < next.sequence), "the log is out of order");
    log
}

/// What clients have made so far.
#[derive(Debug, Default)]
pub struct Made {
    pub agents: BTreeSet<String>,
    pub operations: Vec<String>,
    leases: Vec<String>,
}

impl Made {
    /// Does so many random things. What does not fit the moment is refused, which is as good.
    pub async fn live(&mut self, photon: &Photon, dice: &mut Dice, acts: usize) {
        for _ in 0..acts {
            self.act(photon, dice).await;
        }
    }

    async fn act(&mut self, photon: &Photon, dice: &mut Dice) {
        let agent = format!("agent-{}", dice.below(4));
        let text = dice.pick(&TEXTS);
        match dice.below(12) {
            0 => {
                let config = json!({"heartbeatIntervalMs": 0, "maxConcurrentOperations": 4});
                let body = json!({"id": agent, "name": text, "config": config});
                photon.post("/api/v1/agents", body).await;
                self.agents.insert(agent);
            }
            1 => {
                photon.put(&format!("/api/v1/agents/{agent}"), json!({"name": text})).await;
            }
            2 => {
                photon.post(&format!("/api/v1/agents/{agent}/heartbeat"), json!({})).await;
            }
            3 if dice.below(4) == 0 => {
                photon.delete(&format!("/api/v1/agents/{agent}?force=true")).await;
            }
            3..6 => self.create(photon, dice, text).await,
            6 | 7 => {
                let answer = photon.post(&format!("/api/v1/agents/{agent}/claim"), json!({})).await;
                let leases = answer.data()["leases"].as_array().cloned().unwrap_or_default();
                let ids = leases.iter().map(|lease| lease["leaseId"].as_str().unwrap().to_owned());
                self.leases.extend(ids);
            }
            8 if !self.operations.is_empty() => {
                photon.delete(&format!("/api/v1/operations/{}", dice.pick(&self.operations))).await;
            }
            _ if !self.leases.is_empty() => {
                let lease = dice.pick(&self.leases);
                let reports = [
                    ("ack", json!({})),
                    ("progress", json!({"percent": 50, "message": text})),
                    ("complete", json!({"result": text})),
                    ("complete", json!({"result": {"text": text}})),
                    ("fail", json!({"error": {"code": "broken", "message": text}})),
                    ("release", json!({"reason": text})),
                ];
                let (what, body) = dice.pick(&reports);
                photon.post(&format!("/api/v1/leases/{lease}/{what}"), body).await;
            }
            _ => {}
        }
    }

    async fn create(&mut self, photon: &Photon, dice: &mut Dice, text: &str) {
        let steps = u32::try_from(1 + dice.below(3)).unwrap();
        let workflow: Vec<Value> = (1..=steps)
            .map(|number| {
                let before = if number > 1 && dice.below(2) == 0 { vec![number - 1] } else { Vec::new() };
                step(number, "act", &before, json!({"text": text}))
            })
            .collect();
        let body = json!({"name": "random", "metadata": {"text": text}, "workflow": workflow});
        let answer = photon.post("/api/v1/operations", body).await;
        if let Some(id) = answer.data()["id"].as_str() {
            self.operations.push(id.to_owned());
        }
    }
}

/// A filter as a query, and as it reads in this test.
#[derive(Clone, Debug, Default)]
pub struct Sieve {
    types: Vec<String>,
    subject: Option<String>,
    /// Without `after`.
    pub query: String,
}

impl Sieve {
    /// Every event of the log.
    pub fn everything() -> Self {
        Self::default()
    }

    /// A random one over such a log.
    pub fn random(dice: &mut Dice, log: &[Logged]) -> Self {
        let mut types = Vec::new();
        for _ in 0..dice.pick(&[0, 0, 1, 1, 2, 3]) {
            let kind = dice.pick(log).kind;
            types.push(match dice.below(6) {
                0 => "*".to_owned(),
                1 => format!("{}.*", kind.split('.').next().unwrap()),
                2 => format!("{}*", &kind[..1 + dice.index(kind.len())]),
                3 => "agent.heartbeat".to_owned(),
                _ => kind,
            });
        }
        let subject = (dice.below(3) == 0).then(|| dice.pick(log).subject);
        let mut parts = Vec::new();
        if !types.is_empty() {
            parts.push(format!("types={}", types.join(",")));
        }
        // A system's own stream cannot be named.
        let subject = subject.filter(|subject| !subject.starts_with("system/"));
        if let Some(subject) = &subject {
            parts.push(subject.replacen('/', "=", 1));
        }
        Self { types, subject, query: parts.join("&") }
    }

    /// As a socket's `subscribe` writes it.
    pub fn wanted(&self) -> Value {
        let mut wanted = json!({"types": self.types});
        if let Some((kind, id)) = self.subject.as_ref().and_then(|subject| subject.split_once('/')) {
            wanted[kind] = json!(id);
        }
        wanted
    }

    /// The query with a beginning.
    pub fn after(&self, after: Option<u64>) -> String {
        let after = after.map(|number| format!("after={number}"));
        let parts = [self.query.clone(), after.unwrap_or_default()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&")
    }

    /// The texts of the events of a log that it lets through, after a place and up to another.
    pub fn of(&self, log: &[Logged], after: u64, upto: u64) -> Vec<String> {
        let wanted = log.iter().filter(|event| {
            let kind = |wanted: &String| match wanted.strip_suffix('*') {
                Some(stem) => event.kind.starts_with(stem),
                None => event.kind == *wanted,
            };
            (after < event.sequence && event.sequence <= upto)
                && self.subject.as_ref().is_none_or(|subject| *subject == event.subject)
                && (self.types.is_empty() || self.types.iter().any(kind))
        });
        wanted.map(|event| event.text.clone()).collect()
    }
}
