//! When silence means that an agent is gone.

use crate::agent::event::Config;

/// So many missed heartbeats end an agent's activity.
const INTERVALS: u64 = 3;

/// Milliseconds of silence after which an agent counts as gone; none when no heartbeat is expected.
#[must_use]
pub fn silence_limit_ms(config: &Config) -> Option<u64> {
    (config.heartbeat_interval_ms > 0).then(|| config.heartbeat_interval_ms.saturating_mul(INTERVALS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_intervals_of_silence_are_the_limit_and_zero_means_none() {
        assert_eq!(silence_limit_ms(&Config::default()), Some(30_000));
        assert_eq!(silence_limit_ms(&Config { heartbeat_interval_ms: 0, ..Config::default() }), None);
    }
}
