//! One order (P6): many clients change and read the same aggregates, the server is killed in the middle, and
//! what they were told must be what a server tells that does one thing after the other, each between its
//! request and its answer. What is checked, and why that is exact: `linearizable/checker.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checker;
mod checker_cases;
mod clients;
use crate::support;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use checker::{Entry, Fields, Outcome, Request, Wish, check};
use clients::{Client, Notes, fields_of};
use futures_util::future;
use serde_json::{Value, json};
use support::Photon;
use support::dice::Dice;
use support::history::{log, pages, thrown};
use support::streams::sequence_of;
use support::tally::{Tally, asked};
use tokio::sync::RwLock;

const REQUESTS: usize = 500;
const CLIENTS: usize = 9;
/// Histories that one server serves, one after the other.
const ON_ONE_SERVER: usize = 25;
/// Longest time between a request and the kill that may hit it, in microseconds.
const AIM_US_MAX: u64 = 5_000;

#[tokio::test]
async fn every_history_of_a_server_that_is_killed_is_linearizable() {
    let _alone = support::alone();
    let tally = Tally::of(
        "P6",
        "histories of 500 requests by 9 clients, killed in the middle",
        asked(50, 2_000, 20_000),
    );
    let (mut dice, mut met) = (thrown(), Met::default());
    while !tally.is_done() {
        let mut photon = Photon::start().await;
        let mut told: Vec<String> = Vec::new();
        for number in 0..ON_ONE_SERVER {
            let (again, requests) = history(photon, number, &mut dice).await;
            photon = again;
            let last = told.last().map_or(0, |text| sequence(text));
            let texts = pages(&photon, &format!("after={last}&limit=500")).await;
            let made = entries(&texts, &requests);
            if let Err(fault) = check(&requests, &made) {
                let story = shown(&requests, &texts);
                panic!("history {number} breaks {:?}: {}\n{story}", fault.rule, fault.what);
            }
            met.note(&requests, &made);
            told.extend(texts);
            tally.add(1);
        }
        photon.kill();
        photon.restart().await;
        let whole: Vec<String> = log(&photon).await.into_iter().map(|event| event.text).collect();
        assert!(whole.starts_with(&told), "the log is another after the last restart");
    }
    println!("{met:?}");
    assert!([met.made_unheard, met.lost_unheard, met.repeated, met.refused].iter().all(|count| *count > 0));
}

/// How often the histories met what they are made for.
#[derive(Debug, Default)]
struct Met {
    /// Changes that nobody heard of and that were made, and that were not.
    made_unheard: usize,
    lost_unheard: usize,
    /// Changes that were answered with the outcome of an earlier request, or found nothing to change.
    repeated: usize,
    /// Changes of a revision that was over.
    refused: usize,
}

impl Met {
    fn note(&mut self, requests: &[Request], log: &[Entry]) {
        let made: HashSet<&str> = log.iter().map(|entry| entry.request.as_str()).collect();
        for request in requests.iter().filter(|request| request.wish != Wish::Read) {
            match (&request.outcome, made.contains(request.id.as_str())) {
                (Outcome::Unknown, true) => self.made_unheard += 1,
                (Outcome::Unknown, false) => self.lost_unheard += 1,
                (Outcome::Shown { .. }, false) => self.repeated += 1,
                (Outcome::Shown { .. }, true) => {}
                (Outcome::Mismatch { .. }, _) => self.refused += 1,
            }
        }
    }
}

/// Lets clients live, and kills the server meanwhile.
async fn history(photon: Photon, number: usize, dice: &mut Dice) -> (Photon, Vec<Request>) {
    let kill_at = REQUESTS / 4 + dice.index(REQUESTS / 2);
    let notes = Notes::new(format!("h{number}"), REQUESTS, kill_at);
    let aim = Duration::from_micros(dice.below(AIM_US_MAX));
    let photon = RwLock::new(photon);
    let clients = (0..CLIENTS).map(|_| Client::new(&notes, &photon, Dice(dice.roll())).live());
    let killing = async {
        notes.signal().await;
        tokio::time::sleep(aim).await;
        let mut photon = photon.write().await;
        photon.kill();
        photon.restart().await;
    };
    future::join(future::join_all(clients), killing).await;
    (photon.into_inner(), notes.into_requests())
}

fn sequence(text: &str) -> u64 {
    sequence_of(&serde_json::from_str(text).unwrap()).unwrap()
}

/// The events that the clients made.
fn entries(texts: &[String], requests: &[Request]) -> Vec<Entry> {
    let asked: HashMap<&str, &str> =
        requests.iter().map(|request| (request.id.as_str(), request.subject.as_str())).collect();
    let mut subjects: HashMap<String, String> = HashMap::new();
    let events = texts.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
    // What the server notes about itself.
    let made = events.filter(|event| !text(event, "subject").starts_with("system/"));
    let entries = made.map(|event| {
        let request = text(&event, "correlationid").to_owned();
        // The aggregate is the one that was to be made by the request that made it.
        let subject = subjects.entry(text(&event, "subject").to_owned());
        let subject =
            subject.or_insert_with(|| asked.get(request.as_str()).copied().unwrap_or("none").into());
        Entry {
            position: text(&event, "sequence").parse().unwrap(),
            time: text(&event, "time").to_owned(),
            subject: subject.clone(),
            revision: text(&event, "revision").parse().unwrap(),
            request,
            fields: changed(&event),
        }
    });
    entries.collect()
}

fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event[name].as_str().unwrap_or_default()
}

/// What an event changed of what clients look at.
fn changed(event: &Value) -> Fields {
    let mut shown = event["data"].clone();
    match text(event, "type") {
        "operation.created" | "operation.resumed" => shown["paused"] = json!(false),
        "operation.paused" => shown["paused"] = json!(true),
        "agent.registered" | "agent.reregistered" => shown = shown["profile"].take(),
        _ => {}
    }
    fields_of(&shown)
}

/// The history, for a person.
fn shown(requests: &[Request], texts: &[String]) -> String {
    let requests: Vec<String> = requests.iter().map(|request| format!("{request:?}")).collect();
    [requests, texts.to_vec()].concat().join("\n")
}
