//! Lanes: parked until the provider takes calls again, opened by time or by hand.
#![allow(clippy::unwrap_used)] // A helper of a test fails as the test does.

mod support;

use domain::agent::event::Config;
use domain::lane::{Command, Event, Lane, Rejection, WINDOW_MAX_MS};
use domain::scenario::Scenario;
use domain::views::lanes::Lanes;
use domain::{LaneId, LeaseId, Timestamp};
use support::{agent, operation_id, world};

fn lane() -> Scenario<Lane> {
    Scenario::new("worker.ada".parse().unwrap(), world())
}

fn park(until: Timestamp) -> Command {
    Command::Park { until, lease: LeaseId { operation: operation_id(), step: 1, grant: 1 } }
}

#[test]
fn a_lane_is_parked_until_the_reset_and_open_from_then_on() {
    let mut lane = lane();
    let until = lane.now.plus_ms(60_000);
    let events = lane.when(&park(until)).unwrap();
    let Event::Parked(parked) = &events[0] else { panic!("{events:?}") };
    assert_eq!((parked.until, parked.wait_ms), (until, 60_000));
    assert_eq!(lane.when(&park(until)), Ok(vec![]));
    assert_eq!(lane.when(&park(lane.now.plus_ms(1_000))), Ok(vec![]));
    let state = lane.state.clone().unwrap();
    assert!(state.is_parked(lane.now) && !state.is_parked(until));
    lane.wait(60_000);
    assert!(!lane.state.as_ref().unwrap().is_parked(lane.now));
    assert_eq!(lane.when(&park(lane.now)), Ok(vec![]));
}

#[test]
fn a_later_reset_counts_and_none_is_further_than_a_month() {
    let mut lane = lane();
    lane.when(&park(lane.now.plus_ms(1_000))).unwrap();
    lane.when(&park(Timestamp::from_micros(i64::MAX))).unwrap();
    assert_eq!(lane.state.as_ref().unwrap().until, lane.now.plus_ms(WINDOW_MAX_MS));
}

#[test]
fn a_lane_can_be_opened_by_hand_once_it_was_parked() {
    let mut lane = lane();
    let open = Command::Open { by: "ops".into() };
    assert_eq!(lane.when(&open), Err(Rejection::Unknown));
    lane.when(&park(lane.now.plus_ms(60_000))).unwrap();
    assert_eq!(lane.when(&open).unwrap().len(), 1);
    assert!(!lane.state.as_ref().unwrap().is_parked(lane.now));
    assert_eq!(lane.when(&open), Ok(vec![]));
}

#[test]
fn agents_with_the_same_account_share_a_lane() {
    let mut config = Config::default();
    let lane = |name: &str, config: &Config| LaneId::of_agent(&agent(name), config);
    assert_eq!(lane("ada", &config).as_str(), "worker.ada");
    config.labels.insert("account".into(), "team".into());
    assert_eq!(lane("ada", &config), lane("bob", &config));
    assert_eq!(lane("ada", &config).as_str(), "account.team");
    assert_eq!(LaneId::of_account("no name"), None);
}

#[test]
fn the_view_shows_what_is_parked_and_forgets_what_is_open() {
    let (mut view, mut scenario) = (Lanes::default(), lane());
    let other: LaneId = "worker.bob".parse().unwrap();
    for event in scenario.when(&park(scenario.now.plus_ms(500))).unwrap() {
        view.apply(&scenario.id, &event, scenario.now);
    }
    assert!(view.parked_until(&scenario.id, scenario.now).is_some());
    scenario.wait(500);
    assert_eq!(view.parked_until(&scenario.id, scenario.now), None);
    let mut second = Scenario::<Lane> { now: scenario.now, ..Scenario::new(other, world()) };
    let events = second.when(&park(second.now.plus_ms(9))).unwrap();
    view.apply(&second.id, &events[0], second.now);
    assert_eq!(view.parked(Timestamp::default()).count(), 1);
}
