//! When a failed attempt is made again. Deterministic, so that a replay agrees with the first run.

use serde::{Deserialize, Serialize};

use crate::texts;

/// What happens after a failed attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts in all, 1 to 100.
    pub max_attempts: u32,
    /// Wait before the second attempt, in milliseconds.
    pub initial_delay_ms: u64,
    /// Each further wait is this many times longer, 1 to 10.
    pub backoff_multiplier: f64,
    /// No wait is longer, in milliseconds.
    pub max_delay_ms: u64,
    /// Share of the wait that varies, 0 to 1.
    pub jitter: f64,
    /// Error codes that are final at once, compared in lower case and with `_` for other characters.
    pub non_retryable_errors: Vec<String>,
}

// Two policies differ when their bits differ; no policy holds a NaN, since bounds are checked on entry.
impl Eq for RetryPolicy {}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_delay_ms: 1_000,
            backoff_multiplier: 2.0,
            max_delay_ms: 60_000,
            jitter: 0.2,
            non_retryable_errors: Vec::new(),
        }
    }
}

impl RetryPolicy {
    /// Most attempts a policy may ask for.
    pub const ATTEMPTS_MAX: u32 = 100;
    /// Longest wait a policy may ask for: one day.
    pub const DELAY_MAX_MS: u64 = 86_400_000;

    /// Whether another attempt follows after `spent` of them and a failure with this code.
    #[must_use]
    pub fn allows(&self, spent: u32, code: &str) -> bool {
        let code = texts::code(code);
        spent < self.max_attempts && !self.non_retryable_errors.iter().any(|known| texts::code(known) == code)
    }

    /// Milliseconds to wait after attempt `attempt` (counted from 1) failed.
    ///
    /// Exponential back-off, moved by up to ± `jitter` and never longer than the policy's maximum; `seed`
    /// decides by how much it is moved.
    #[must_use]
    pub fn delay_ms(&self, attempt: u32, seed: &str) -> u64 {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let full = self.initial_delay_ms as f64 * self.backoff_multiplier.powi(exponent);
        let capped = full.min(self.max_delay_ms as f64);
        let swing = 1.0 + self.jitter * (2.0 * fraction(seed, attempt) - 1.0);
        (capped * swing).min(self.max_delay_ms.min(Self::DELAY_MAX_MS) as f64) as u64
    }

    /// What is out of bounds, as (field, sentence).
    #[must_use]
    pub fn faults(&self) -> Vec<(&'static str, &'static str)> {
        let mut faults = Vec::new();
        if !(1..=Self::ATTEMPTS_MAX).contains(&self.max_attempts) {
            faults.push(("maxAttempts", "maxAttempts must be from 1 to 100"));
        }
        if self.initial_delay_ms > Self::DELAY_MAX_MS {
            faults.push(("initialDelayMs", "initialDelayMs must be at most 86400000"));
        }
        if self.max_delay_ms > Self::DELAY_MAX_MS {
            faults.push(("maxDelayMs", "maxDelayMs must be at most 86400000"));
        }
        if !(1.0..=10.0).contains(&self.backoff_multiplier) {
            faults.push(("backoffMultiplier", "backoffMultiplier must be from 1 to 10"));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            faults.push(("jitter", "jitter must be from 0 to 1"));
        }
        faults
    }
}

/// A number in 0..1 that depends on nothing but its arguments (FNV-1a, 64 bits, then a final mix).
fn fraction(seed: &str, attempt: u32) -> f64 {
    let bytes = seed.bytes().chain(attempt.to_le_bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    ((mixed ^ (mixed >> 33)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_under_their_cap() {
        let policy = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
        let waits: Vec<u64> = (1..=8).map(|attempt| policy.delay_ms(attempt, "op/1")).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    }

    #[test]
    fn jitter_is_deterministic_and_bounded() {
        let policy = RetryPolicy::default();
        for attempt in 1..50 {
            let wait = policy.delay_ms(attempt, "op/1");
            assert_eq!(wait, policy.delay_ms(attempt, "op/1"));
            let plain = RetryPolicy { jitter: 0.0, ..policy.clone() }.delay_ms(attempt, "op/1") as f64;
            assert!((plain * 0.8 - 1.0..=plain * 1.2).contains(&(wait as f64)), "{wait} against {plain}");
            assert!(wait <= policy.max_delay_ms, "{wait}");
        }
        assert_ne!(policy.delay_ms(1, "op/1"), policy.delay_ms(1, "op/2"));
    }

    #[test]
    fn the_last_attempt_and_a_final_code_end_it() {
        let policy = RetryPolicy { non_retryable_errors: vec!["bad_input".into()], ..RetryPolicy::default() };
        assert!(policy.allows(2, "flaky"));
        assert!(!policy.allows(3, "flaky"));
        assert!(!policy.allows(1, "bad_input"));
        let policy = RetryPolicy { non_retryable_errors: vec!["HTTP 500".into()], ..policy };
        assert!(
            !policy.allows(1, "http_500") && !policy.allows(1, "Http 500") && policy.allows(1, "http_502")
        );
    }
}
