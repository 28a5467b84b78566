//! Skeletons of workflows that are open, each content once: operations made from one template share theirs.
//! It keeps none alive that no operation has.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Weak};

use crate::operation::definition::StepDefinition;
use crate::operation::step::Skeleton;

const LOOK_AGAIN_MIN: usize = 1_024;

/// Skeletons by content.
#[derive(Clone, Debug, Default)]
pub(super) struct Skeletons {
    /// By a hash; where two contents have the same one, the second is not shared.
    known: HashMap<u64, Weak<Skeleton>>,
    /// So many may be known before those that went are forgotten.
    look_again: usize,
    hashing: RandomState,
}

impl Skeletons {
    /// The skeleton of these steps, shared with another operation's if one is the same.
    pub(super) fn of(&mut self, steps: Arc<[StepDefinition]>) -> Arc<Skeleton> {
        let hash = self.hash(&steps);
        let known = self.known.get(&hash).and_then(Weak::upgrade);
        match known {
            Some(known) if known.steps == steps => known,
            Some(_) => Arc::new(Skeleton::of(steps)),
            None => {
                let skeleton = Arc::new(Skeleton::of(steps));
                self.known.insert(hash, Arc::downgrade(&skeleton));
                self.forget_gone();
                skeleton
            }
        }
    }

    fn forget_gone(&mut self) {
        if self.known.len() > self.look_again.max(LOOK_AGAIN_MIN) {
            self.known.retain(|_, skeleton| skeleton.strong_count() > 0);
            self.known.shrink_to(self.known.len() * 2);
            self.look_again = self.known.len() * 2;
        }
    }

    /// A hash of what mostly tells steps apart.
    fn hash(&self, steps: &[StepDefinition]) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        for step in steps {
            let StepDefinition { step, agent, platform, action, dependencies, requires, when, .. } = step;
            (step, agent, platform, action, dependencies, requires, when).hash(&mut hasher);
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Json;
    use crate::operation::definition::{EffectClass, Requirements};
    use crate::operation::retry::RetryPolicy;

    fn steps(action: &str, timeout_ms: u64) -> Arc<[StepDefinition]> {
        Arc::new([StepDefinition {
            step: 1,
            agent: None,
            platform: "worker".parse().unwrap(),
            action: action.parse().unwrap(),
            title: None,
            inputs: Json::object(),
            dependencies: Vec::new(),
            timeout_ms,
            retry: RetryPolicy::default(),
            requires: Requirements::default(),
            when: None,
            continue_on_error: false,
            effect: EffectClass::Idempotent,
        }])
    }

    #[test]
    fn equal_ones_are_shared_and_others_are_not() {
        let mut skeletons = Skeletons::default();
        let (a, b) = (skeletons.of(steps("a", 1)), skeletons.of(steps("a", 1)));
        assert!(Arc::ptr_eq(&a, &b));
        // The same hash, another content.
        let c = skeletons.of(steps("a", 2));
        assert_eq!((c.steps[0].timeout_ms, a.steps[0].timeout_ms), (2, 1));
    }

    #[test]
    fn those_that_went_are_forgotten() {
        let mut skeletons = Skeletons::default();
        let kept = skeletons.of(steps("kept", 1));
        for number in 0..10_000 {
            skeletons.of(steps(&format!("a{number}"), 1));
            assert!(skeletons.known.len() <= LOOK_AGAIN_MIN + 1);
        }
        assert!(Arc::ptr_eq(&kept, &skeletons.of(steps("kept", 1))));
    }
}
