//! Owns how measured durations become figures. It must never know what was measured.

use std::time::Duration;

use serde::Serialize;

/// How long single requests took.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Latency {
    /// Half of them took no longer.
    pub(super) p50_ms: f64,
    /// All but one in a hundred took no longer.
    pub(super) p99_ms: f64,
    /// The slowest.
    pub(super) max_ms: f64,
}

impl Latency {
    /// Of at least one duration.
    pub(super) fn of(mut durations: Vec<Duration>) -> Option<Self> {
        durations.sort_unstable();
        let at = |share: usize| durations.get(durations.len().saturating_sub(1) * share / 100);
        let shown = |duration: &Duration| rounded(duration.as_secs_f64() * 1e3, 3);
        Some(Self { p50_ms: at(50).map(shown)?, p99_ms: at(99).map(shown)?, max_ms: at(100).map(shown)? })
    }
}

/// So many digits after the point: more would pretend to be exact.
pub(super) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// The one in the middle, by a key; of an even number the lower of the two.
pub(super) fn median_by<T>(mut items: Vec<T>, key: impl Fn(&T) -> f64) -> Option<T> {
    items.sort_by(|one, other| key(one).total_cmp(&key(other)));
    let middle = items.len().checked_sub(1)? / 2;
    Some(items.swap_remove(middle))
}

/// One figure in relation to another; none when that one is nothing.
pub(super) fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| rounded(part / whole, 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_durations() {
        let durations = (1..=100).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(durations).unwrap();
        assert_eq!((latency.p50_ms, latency.p99_ms, latency.max_ms), (50.0, 99.0, 100.0));
        assert!(Latency::of(Vec::new()).is_none());
    }

    #[test]
    fn a_median_is_one_of_the_rounds() {
        assert_eq!(median_by(vec![5.0, 1.0, 3.0], |value| *value), Some(3.0));
        assert_eq!(median_by(vec![4.0, 2.0], |value| *value), Some(2.0));
        assert_eq!(median_by(Vec::<f64>::new(), |value| *value), None);
        assert_eq!((ratio(1.0, 3.0), ratio(1.0, 0.0)), (Some(0.333), None));
    }
}
