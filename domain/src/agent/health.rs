//! When silence means that an agent is gone.

use crate::agent::event::Config;

/// So many missed heartbeats end an agent's activity.
const INTERVALS: u64 = 3;

/// Milliseconds of silence after which an agent counts as gone; none when no heartbeat is expected.
#[must_use]
pub fn silence_limit_ms(config: &Config) -> Option<u64> {
    (config.heartbeat_interval_ms > 0).then(|| config.heartbeat_interval_ms.saturating_mul(INTERVALS))
}

/// 1 just after a sign of life, 0 at the limit of silence; 1 when no heartbeat is expected.
#[must_use]
pub fn freshness(config: &Config, silent_ms: u64) -> f64 {
    let limit = silence_limit_ms(config);
    limit.map_or(1.0, |limit| 1.0 - (silent_ms as f64 / limit as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_intervals_of_silence_are_the_limit_and_zero_means_none() {
        assert_eq!(silence_limit_ms(&Config::default()), Some(30_000));
        assert_eq!(silence_limit_ms(&Config { heartbeat_interval_ms: 0, ..Config::default() }), None);
    }

    #[test]
    fn freshness_falls_to_nothing_at_the_limit_of_silence() {
        let unheard = Config { heartbeat_interval_ms: 0, ..Config::default() };
        for (silent_ms, fresh) in [(0, 1.0), (15_000, 0.5), (30_000, 0.0), (u64::MAX, 0.0)] {
            assert_eq!(freshness(&Config::default(), silent_ms), fresh);
            assert_eq!(freshness(&unheard, silent_ms), 1.0);
        }
    }
}
