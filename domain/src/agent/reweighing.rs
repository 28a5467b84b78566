//! What other weights would have made of a choice that is history. Looks at nothing but what was recorded
//! then: the parts of the scores, not the agents of today.

use crate::AgentId;
use crate::agent::selection::{Candidates, EXPLAINED_MAX, Scored, Weights};

/// What is lost of a sum by rounding.
const ROUNDING: f64 = 1e-9;

/// A recorded choice by other weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reweighed<'c> {
    /// Nobody else was there to be chosen.
    Alone,
    /// The same agent.
    Same,
    /// Another agent.
    Other(Difference<'c>),
    /// The best ten were recorded, and one beyond them may have won.
    Truncated,
    /// The chosen agent is not in the table.
    Unexplained,
}

/// Two agents whom the weights put in another order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference<'c> {
    /// Whom the recorded weights chose.
    pub then: &'c Scored,
    /// Its score by the other weights.
    pub then_score: f64,
    /// Whom the other weights choose.
    pub now: &'c Scored,
    /// Its score by the other weights.
    pub now_score: f64,
}

impl Candidates {
    /// Weighs the recorded parts anew. Of equal scores the one that was recorded first wins.
    #[must_use]
    pub fn reweighed(&self, chosen: &AgentId, weights: Weights) -> Reweighed<'_> {
        let Some(then) = self.ranked.iter().find(|scored| scored.agent == *chosen) else {
            return Reweighed::Unexplained;
        };
        let truncated = self.ranked.len() >= EXPLAINED_MAX;
        if self.ranked.len() == 1 {
            return Reweighed::Alone;
        }
        let then_score = then.weighed(weights);
        let mut best = (then, then_score);
        for scored in &self.ranked {
            let score = scored.weighed(weights);
            let earlier = self.is_before(scored, best.0);
            if score > best.1 || (earlier && score >= best.1) {
                best = (scored, score);
            }
        }
        if best.0.agent != then.agent {
            return Reweighed::Other(Difference { then, then_score, now: best.0, now_score: best.1 });
        }
        if truncated && self.ceiling(weights) > then_score + ROUNDING {
            return Reweighed::Truncated;
        }
        Reweighed::Same
    }

    fn is_before(&self, one: &Scored, other: &Scored) -> bool {
        let place = |scored: &Scored| self.ranked.iter().position(|ranked| ranked.agent == scored.agent);
        place(one) < place(other)
    }

    /// No agent beyond the recorded ones scores more by these weights: by the recorded ones it scored at
    /// most what the last did, and the worst case spends that on the parts whose weight rose most.
    fn ceiling(&self, weights: Weights) -> f64 {
        let mut parts = [
            (self.weights.capability, weights.capability),
            (self.weights.performance, weights.performance),
            (self.weights.availability, weights.availability),
            (self.weights.location, weights.location),
        ];
        // A part that weighed nothing costs nothing: its quotient is infinite, or no number when it still
        // weighs nothing and makes no difference.
        let rise = |(before, after): &(f64, f64)| after / before;
        parts.sort_by(|one, other| rise(other).total_cmp(&rise(one)));
        let mut left = self.ranked.last().map_or(0.0, |last| last.score);
        let mut most = 0.0;
        for (before, after) in parts {
            let share = if before > 0.0 { (left / before).clamp(0.0, 1.0) } else { 1.0 };
            most += after * share;
            left -= before * share;
        }
        most
    }
}
