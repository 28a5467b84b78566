//! Recorded choices under other weights: what would have changed, and when that cannot be known.
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of a test fails as the test does.

mod support;

use domain::agent::reweighing::Reweighed;
use domain::agent::selection::{Candidates, EXPLAINED_MAX, Excluded, Scored, Weights};
use proptest::prelude::*;
use support::agent;

fn weights(parts: [f64; 4]) -> Weights {
    let [capability, performance, availability, location] = parts;
    Weights { capability, performance, availability, location }
}

fn scored(name: usize, parts: [f64; 4], by: Weights) -> Scored {
    let [capability, performance, availability, location] = parts;
    let agent = agent(&format!("a{name:02}"));
    let scored = Scored { agent, score: 0.0, capability, performance, availability, location };
    Scored { score: scored.weighed(by), ..scored }
}

/// All who fit, best first, as a selection would rank them.
fn ranked(all: &[[f64; 4]], by: Weights) -> Vec<Scored> {
    let mut ranked: Vec<Scored> = all.iter().enumerate().map(|(at, parts)| scored(at, *parts, by)).collect();
    ranked.sort_by(|one, other| other.score.total_cmp(&one.score));
    ranked
}

fn recorded(all: &[[f64; 4]], by: Weights) -> Candidates {
    let ranked = ranked(all, by).into_iter().take(EXPLAINED_MAX).collect();
    Candidates { ranked, excluded: Excluded::default(), weights: by }
}

#[test]
fn other_weights_may_choose_another_agent_and_both_scores_are_said() {
    let candidates = recorded(&[[1.0, 0.2, 1.0, 1.0], [0.5, 0.6, 1.0, 1.0]], Weights::default());
    assert_eq!(candidates.best(), Some(&agent("a00")));
    let other = candidates.reweighed(&agent("a00"), weights([0.1, 0.6, 0.2, 0.1]));
    let Reweighed::Other(difference) = other else { panic!("{other:?}") };
    assert_eq!((&difference.then.agent, &difference.now.agent), (&agent("a00"), &agent("a01")));
    assert!((difference.then_score - 0.52).abs() < 1e-9 && (difference.now_score - 0.71).abs() < 1e-9);
    assert_eq!(candidates.reweighed(&agent("a00"), weights([0.5, 0.2, 0.2, 0.1])), Reweighed::Same);
}

#[test]
fn of_equal_scores_the_recorded_order_decides() {
    let candidates = recorded(&[[1.0, 0.5, 1.0, 1.0], [0.5, 0.5, 1.0, 1.0]], Weights::default());
    assert_eq!(candidates.reweighed(&agent("a00"), weights([0.0, 0.5, 0.5, 0.0])), Reweighed::Same);
    // Whoever was given it against the order loses a tie.
    let other = candidates.reweighed(&agent("a01"), weights([0.0, 0.5, 0.5, 0.0]));
    assert!(matches!(other, Reweighed::Other(difference) if difference.now.agent == agent("a00")));
}

#[test]
fn what_the_table_does_not_hold_is_not_guessed() {
    let alone = recorded(&[[1.0, 0.5, 1.0, 1.0]], Weights::default());
    assert_eq!(alone.reweighed(&agent("a00"), weights([0.0, 1.0, 0.0, 0.0])), Reweighed::Alone);
    assert_eq!(alone.reweighed(&agent("bob"), Weights::default()), Reweighed::Unexplained);
    assert_eq!(Candidates::default().reweighed(&agent("bob"), Weights::default()), Reweighed::Unexplained);
    // Ten of twelve are recorded; the two others may be as near as can be, which makes up for 0.45 of
    // capability when place weighs much, and never when capability weighs more than before.
    let twelve: Vec<[f64; 4]> = (0..12).map(|at| [1.0 - f64::from(at) / 20.0, 0.5, 1.0, 0.0]).collect();
    let full = recorded(&twelve, Weights::default());
    assert_eq!(full.reweighed(&agent("a00"), weights([0.1, 0.1, 0.1, 0.7])), Reweighed::Truncated);
    assert_eq!(full.reweighed(&agent("a00"), weights([0.5, 0.3, 0.2, 0.0])), Reweighed::Same);
    // Twelve that look alike stay alike.
    let alike = recorded(&[[1.0, 0.5, 1.0, 1.0]; 12], Weights::default());
    assert_eq!(alike.reweighed(&agent("a00"), Weights::default()), Reweighed::Same);
}

fn fleets() -> impl Strategy<Value = Vec<[f64; 4]>> {
    // Coarse, so that there are ties.
    let part = || (0..=4_u8).prop_map(|quarter| f64::from(quarter) / 4.0);
    let parts = (part(), part(), part(), part()).prop_map(|(one, two, three, four)| [one, two, three, four]);
    proptest::collection::vec(parts, 1..16)
}

fn any_weights() -> impl Strategy<Value = Weights> {
    proptest::array::uniform4(0..=4_u8).prop_filter_map("weights make 1", |parts| {
        let sum = f64::from(parts.iter().map(|part| u32::from(*part)).sum::<u32>());
        (sum > 0.0).then(|| weights(parts.map(|part| f64::from(part) / sum)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 999, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_weights_of_then_change_nothing(all in fleets(), by in any_weights()) {
        let candidates = recorded(&all, by);
        let chosen = candidates.best().unwrap();
        let outcome = candidates.reweighed(chosen, by);
        let expected = if all.len() == 1 { Reweighed::Alone } else { Reweighed::Same };
        prop_assert_eq!(outcome, expected);
    }

    /// The whole fleet is known here, so that what the table alone says can be judged.
    #[test]
    fn what_is_said_of_a_truncated_table_is_true_of_the_whole_fleet(
        all in fleets(), by in any_weights(), anew in any_weights(),
    ) {
        let candidates = recorded(&all, by);
        let whole = ranked(&all, by);
        let chosen = candidates.best().unwrap();
        let scores: Vec<f64> = whole.iter().map(|scored| scored.weighed(anew)).collect();
        let highest = scores.iter().copied().fold(0.0, f64::max);
        match candidates.reweighed(chosen, anew) {
            Reweighed::Alone => prop_assert_eq!(all.len(), 1),
            Reweighed::Same => prop_assert!(scores[0] >= highest - 1e-6, "{scores:?}"),
            Reweighed::Other(difference) => {
                prop_assert!(difference.now_score > difference.then_score);
                prop_assert!(difference.now_score <= highest + 1e-9);
                if all.len() <= EXPLAINED_MAX {
                    let first = scores.iter().position(|score| *score == highest).unwrap();
                    prop_assert_eq!(&difference.now.agent, &whole[first].agent);
                }
            }
            Reweighed::Truncated => prop_assert!(candidates.ranked.len() == EXPLAINED_MAX),
            Reweighed::Unexplained => prop_assert!(false),
        }
    }
}
