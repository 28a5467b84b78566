//! The checker can fail: small histories in order, and what is wrong in others that differ in one thing.

use serde_json::json;

use super::checker::{Entry, Fault, Fields, Moment, NEVER, Outcome, Request, Rule, Wish, check};

const SUBJECT: &str = "operation 0";
/// A position that is behind no event.
const HEAD: u64 = 1_000;

/// Requests about one aggregate, and the log.
#[derive(Default)]
struct Script {
    requests: Vec<Request>,
    log: Vec<Entry>,
}

fn named(name: &str) -> Fields {
    [("name".to_owned(), json!(name))].into()
}

impl Script {
    /// One write: made as revision 1 between the moments 1 and 2.
    fn new() -> Self {
        Self::default().change("a", "first").shown(1, 2, 1, "first").logged(1, "a", "first")
    }

    fn ask(mut self, id: &str, wish: Wish) -> Self {
        let (id, subject, outcome) = (id.to_owned(), SUBJECT.to_owned(), Outcome::Unknown);
        self.requests.push(Request { id, subject, wish, sent: 0, outcome, heard: NEVER });
        self
    }

    fn read(self, id: &str) -> Self {
        self.ask(id, Wish::Read)
    }

    fn change(self, id: &str, name: &str) -> Self {
        self.ask(id, Wish::Change { fields: named(name), only_at: None, key: None })
    }

    fn change_at(self, id: &str, name: &str, only_at: u64) -> Self {
        self.ask(id, Wish::Change { fields: named(name), only_at: Some(only_at), key: None })
    }

    fn change_once(self, id: &str, name: &str, key: &str) -> Self {
        self.ask(id, Wish::Change { fields: named(name), only_at: None, key: Some(key.to_owned()) })
    }

    /// The last request was sent and answered at these moments.
    fn shown(self, sent: Moment, heard: Moment, revision: u64, name: &str) -> Self {
        let fields = named(name);
        self.answered(sent, heard, Outcome::Shown { revision, fields, position: 10 * revision })
    }

    /// The last answer names the end of the log, whatever it shows.
    fn at_the_end(mut self) -> Self {
        if let Outcome::Shown { position, .. } = &mut self.requests.last_mut().unwrap().outcome {
            *position = HEAD;
        }
        self
    }

    fn refused(self, sent: Moment, heard: Moment) -> Self {
        self.answered(sent, heard, Outcome::Mismatch { position: HEAD })
    }

    fn unknown(self, sent: Moment) -> Self {
        self.answered(sent, NEVER, Outcome::Unknown)
    }

    fn answered(mut self, sent: Moment, heard: Moment, outcome: Outcome) -> Self {
        let last = self.requests.last_mut().unwrap();
        (last.sent, last.heard, last.outcome) = (sent, heard, outcome);
        self
    }

    /// Each event is at ten times its revision.
    fn logged(mut self, revision: u64, request: &str, name: &str) -> Self {
        let (subject, request, time) = (SUBJECT.to_owned(), request.to_owned(), "12:00".to_owned());
        self.log.push(Entry {
            position: 10 * revision,
            time,
            subject,
            revision,
            request,
            fields: named(name),
        });
        self
    }

    fn but(mut self, change: impl FnOnce(&mut Entry)) -> Self {
        change(self.log.last_mut().unwrap());
        self
    }

    fn verdict(&self) -> Result<(), Fault> {
        check(&self.requests, &self.log)
    }

    #[track_caller]
    fn holds(self) {
        self.verdict().unwrap();
    }

    #[track_caller]
    fn breaks(self, rule: Rule) {
        let fault = self.verdict().unwrap_err();
        assert_eq!(fault.rule, rule, "{fault:?}");
    }
}

#[test]
fn what_happens_one_after_the_other_is_in_order() {
    let story = Script::new().read("b").shown(3, 4, 1, "first");
    let story = story.change_at("c", "second", 1).shown(5, 6, 2, "second").logged(2, "c", "second");
    let story = story.read("d").shown(7, 8, 2, "second").change_at("e", "third", 1).refused(9, 10);
    story.holds();
}

#[test]
fn what_overlaps_may_have_either_order() {
    let overlapping =
        || Script::new().change("b", "second").shown(3, 8, 2, "second").logged(2, "b", "second");
    overlapping().read("c").shown(4, 5, 1, "first").read("d").shown(6, 7, 2, "second").holds();
    overlapping().read("c").shown(4, 5, 2, "second").read("d").shown(6, 7, 2, "second").holds();
    overlapping().read("c").shown(4, 7, 1, "first").read("d").shown(5, 6, 2, "second").holds();
    overlapping()
        .read("c")
        .shown(4, 5, 2, "second")
        .read("d")
        .shown(6, 7, 1, "first")
        .at_the_end()
        .breaks(Rule::RealTime);
}

#[test]
fn a_stale_read_after_an_acknowledged_write_is_found() {
    let written = Script::new().change("b", "second").shown(3, 4, 2, "second").logged(2, "b", "second");
    written.read("c").shown(5, 6, 1, "first").at_the_end().breaks(Rule::RealTime);
}

#[test]
fn a_place_beyond_what_an_answer_shows_is_found() {
    let overlapping = Script::new().change("b", "second").shown(3, 8, 2, "second").logged(2, "b", "second");
    overlapping.read("c").shown(4, 5, 1, "first").at_the_end().breaks(Rule::Places);
}

#[test]
fn a_read_of_what_was_not_yet_asked_for_is_found() {
    let read = Script::new().read("b").shown(3, 4, 2, "second");
    read.change("c", "second").shown(5, 6, 2, "second").logged(2, "c", "second").breaks(Rule::RealTime);
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    let alone = Script::new().change("b", "second").shown(3, 4, 2, "second");
    alone.breaks(Rule::Lost);
    // Another took its revision.
    let replaced = Script::new().change("b", "second").shown(3, 4, 2, "second");
    replaced.change("c", "third").shown(5, 6, 2, "third").logged(2, "c", "third").breaks(Rule::Lost);
    // It is there, but as another revision.
    let moved = Script::new().change("b", "second").shown(3, 6, 1, "first");
    moved.logged(2, "b", "second").breaks(Rule::Lost);
}

#[test]
fn an_overwritten_revision_is_found() {
    let between = Script::new().change("b", "second").shown(3, 4, 2, "second").logged(2, "b", "second");
    let over = between.change_at("c", "third", 1).shown(5, 6, 3, "third").logged(3, "c", "third");
    over.breaks(Rule::Overwritten);
    // The same without a change.
    let between = Script::new().change("b", "second").shown(3, 4, 2, "second").logged(2, "b", "second");
    between.change_at("c", "second", 1).shown(5, 6, 2, "second").breaks(Rule::Overwritten);
}

#[test]
fn a_value_that_was_never_written_is_found() {
    Script::new().read("b").shown(3, 4, 1, "never").breaks(Rule::Shown);
    Script::new().read("b").shown(3, 4, 2, "never").breaks(Rule::Lost);
    Script::new().change("b", "second").unknown(3).read("c").shown(4, 5, 2, "second").breaks(Rule::Lost);
    let other = Script::new().change("b", "second").unknown(3).logged(2, "b", "never");
    other.breaks(Rule::Unasked);
    Script::new().logged(2, "nobody", "second").breaks(Rule::Unasked);
    Script::new().read("b").unknown(3).logged(2, "b", "second").breaks(Rule::Unasked);
}

#[test]
fn an_order_that_contradicts_real_time_is_found() {
    let swapped = Script::new().change("b", "third").shown(3, 4, 3, "third");
    let swapped = swapped.change("c", "second").shown(5, 6, 2, "second").at_the_end();
    swapped.logged(2, "c", "second").logged(3, "b", "third").breaks(Rule::RealTime);
    // Two aggregates, each in order, but not the log.
    let mut two = Script::new().change("b", "first").shown(3, 4, 1, "first").logged(1, "b", "first");
    (two.requests[1].subject, two.log[1].subject) = ("other".to_owned(), "other".to_owned());
    two.log.reverse();
    two.but(|entry| entry.position = 11).breaks(Rule::RealTime);
}

#[test]
fn an_unknown_write_may_have_happened_or_not() {
    Script::new().change("b", "second").unknown(3).read("c").shown(4, 5, 1, "first").holds();
    let late = Script::new().change("b", "second").unknown(3).read("c").shown(4, 5, 1, "first");
    let late = late.read("d").shown(6, 7, 2, "second").logged(2, "b", "second");
    late.holds();
    // But not before it was asked for, nor undone once it was read.
    let early = Script::new().read("c").shown(3, 4, 2, "second").change("b", "second").unknown(5);
    early.logged(2, "b", "second").breaks(Rule::RealTime);
    let undone = Script::new().change("b", "second").unknown(3).read("c").shown(4, 5, 2, "second");
    undone.read("d").shown(6, 7, 1, "first").at_the_end().logged(2, "b", "second").breaks(Rule::RealTime);
}

#[test]
fn a_repetition_shows_the_first_outcome_and_changes_nothing() {
    let first = || Script::new().change_once("b", "second", "k").unknown(3).logged(2, "b", "second");
    let changed = || first().change("c", "third").shown(4, 5, 3, "third").logged(3, "c", "third");
    first().change_once("d", "second", "k").shown(6, 7, 2, "second").holds();
    changed().change_once("d", "second", "k").shown(6, 7, 2, "second").at_the_end().holds();
    let other = changed().change_once("d", "second", "other").shown(6, 7, 2, "second");
    other.at_the_end().breaks(Rule::RealTime);
    let twice = changed().change_once("d", "second", "k").shown(6, 7, 4, "second");
    twice.logged(4, "d", "second").breaks(Rule::Once);
    // Repeated before it was made.
    let early = Script::new().change_once("d", "second", "k").shown(3, 4, 2, "second");
    early.change_once("b", "second", "k").unknown(5).logged(2, "b", "second").breaks(Rule::RealTime);
}

#[test]
fn a_refusal_needs_a_moment_at_which_the_revision_was_another() {
    Script::new().change_at("b", "second", 1).refused(3, 4).breaks(Rule::Refused);
    let later = Script::new().change_at("b", "second", 1).refused(3, 4);
    let later = later.change("c", "third").shown(5, 6, 2, "third").at_the_end().logged(2, "c", "third");
    later.breaks(Rule::Refused);
    let meanwhile = Script::new().change_at("b", "second", 1).refused(3, 6);
    let meanwhile = meanwhile.change("c", "third").shown(4, 7, 2, "third").logged(2, "c", "third");
    meanwhile.holds();
    // Refused, and made all the same.
    let made = Script::new().change_at("b", "second", 1).refused(3, 4).logged(2, "b", "second");
    made.breaks(Rule::Unasked);
    // Nobody can name what nobody was shown.
    Script::new().change_at("b", "second", 2).refused(3, 4).breaks(Rule::Refused);
}

#[test]
fn places_and_times_of_the_log_are_looked_at() {
    let two = || Script::new().change("b", "second").unknown(3).logged(2, "b", "second");
    two().holds();
    two().but(|entry| entry.position = 10).breaks(Rule::Places);
    two().but(|entry| entry.revision = 3).breaks(Rule::Places);
    two().but(|entry| entry.time = "11:59".to_owned()).breaks(Rule::Places);
    // An answer that is behind what it shows, or behind an answer that was known when it was asked for.
    let at = |position| Outcome::Shown { revision: 2, fields: named("second"), position };
    two().read("c").answered(4, 5, at(HEAD)).holds();
    two().read("c").answered(4, 5, at(19)).breaks(Rule::Places);
    two().read("c").answered(4, 5, at(HEAD + 1)).read("d").answered(6, 7, at(HEAD)).breaks(Rule::Places);
    two().read("c").answered(4, 7, at(HEAD + 1)).read("d").answered(5, 6, at(HEAD)).holds();
}
