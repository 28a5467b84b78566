//! Owns how long to wait before a server that is away is asked again.
//! It must never know what is asked.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// Waits that grow. Many clients that lost one server must not come back in step, so that they vary.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Whether nothing failed yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// The next wait; not shorter than what the server asks for.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let grown = FIRST.saturating_mul(1 << self.failures.min(8)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let share = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
        grown.mul_f64(0.75 + f64::from(share) / 512.0).max(asked.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_respect_the_server() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_fresh());
        let first = backoff.next(None);
        assert!(first >= FIRST.mul_f64(0.75) && first <= FIRST.mul_f64(1.25), "{first:?}");
        let last = (0..20).map(|_| backoff.next(None)).last().unwrap_or_default();
        assert!(last >= LONGEST.mul_f64(0.75) && last <= LONGEST.mul_f64(1.25), "{last:?}");
        assert_eq!(backoff.next(Some(Duration::from_secs(9))), Duration::from_secs(9));
    }
}
