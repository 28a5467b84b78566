//! Owns what a value must be beyond its kind: bounds, words, and combinations that are not safe.
//! It must never know where values are read from.

use std::net::IpAddr;

use super::layers::Stack;
use super::{Fault, Settings, Source};

const DAY_MS: i64 = 24 * 3_600_000;
const MAX_MS: i64 = 366 * DAY_MS;

/// Least and most of each whole number.
const BOUNDS: &[(&str, i64, i64)] = &[
    ("server.port", 0, 65_535),
    ("server.max_connections", 1, 1_000_000),
    ("server.request_timeout_ms", 1, 3_600_000),
    // Longer would let idle connections fill the pool.
    ("server.keep_alive_timeout_ms", 0, 60_000),
    ("server.shutdown_timeout_ms", 0, 600_000),
    ("storage.queue_max", 1, 1_000_000),
    ("storage.queue_max_bytes", 1 << 20, 4 << 30),
    ("storage.generation_max_bytes", 64 << 10, 1 << 30),
    ("storage.generation_max_events", 1_000, 100_000_000),
    ("retention.keep_ended_ms", 0, 100 * MAX_MS),
    ("snapshots.every_events", 0, 1_000_000_000),
    ("snapshots.stream_events", 0, 1_000_000_000),
    ("agents.heartbeat_sample_interval_ms", 1_000, MAX_MS),
    ("agents.lease_ms", 1_000, MAX_MS),
    ("agents.offer_ms", 100, 3_600_000),
    ("agents.cancel_grace_ms", 0, 3_600_000),
    ("agents.release_hold_ms", 0, 3_600_000),
    ("agents.retry_elsewhere_ms", 0, 3_600_000),
    ("agents.losses_in_a_row", 1, 1_000),
    ("agents.untaken_in_a_row", 1, 1_000),
    ("agents.failures_in_a_row", 0, 100),
    // One append holds at most 16 MiB.
    ("limits.max_body_bytes", 1_024, 16 << 20),
    ("limits.max_steps", 1, 1_000_000),
    ("limits.max_edges", 0, 10_000_000),
    ("limits.max_inputs_bytes", 1_024, 8 << 20),
    ("limits.max_result_bytes", 1_024, 8 << 20),
    ("limits.max_results_bytes", 1_024, 1 << 30),
    ("limits.max_checkpoint_bytes", 0, 8 << 20),
    ("limits.step_timeout_ms", 1, MAX_MS),
    ("limits.approval_timeout_ms", 100, 604_800_000),
    ("limits.idle_actor_ms", 100, MAX_MS),
    ("limits.max_agents", 1, 1_000_000),
    ("limits.max_idempotency_keys", 1, 10_000_000),
    ("limits.max_answer_bytes", 32 << 20, 1 << 40),
    ("limits.starvation_ms", 1, MAX_MS),
    ("limits.views_wait_ms", 1, 60_000),
    ("limits.stall_timeout_ms", 1_000, 3_600_000),
    ("limits.max_streams", 0, 1_000_000),
    ("limits.stream_hold_ms", 0, 60_000),
    ("limits.disk_low_water_bytes", 0, 1 << 40),
    ("limits.max_disk_bytes", 1 << 20, 1 << 50),
    ("websocket.ping_ms", 100, 3_600_000),
    ("websocket.pong_timeout_ms", 200, 7_200_000),
    ("monitoring.metrics_interval_ms", 100, MAX_MS),
    ("monitoring.health_check_interval_ms", 100, MAX_MS),
    ("monitoring.alert_p95_ms", 0, 3_600_000),
    ("monitoring.alert_ready_steps", 0, 1_000_000_000),
];

const WEIGHTS: &[&str] =
    &["selection.capability", "selection.performance", "selection.availability", "selection.location"];

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

pub(super) fn check(stack: &Stack, faults: &mut Vec<Fault>) {
    let mut refuse = |key: &str, reason: String| {
        faults.push(Fault::Value { source_place: stack.source(key), key: key.to_owned(), reason });
    };
    for (key, least, most) in BOUNDS {
        match stack.int(key) {
            Some(number) if (*least..=*most).contains(&number) => {}
            Some(number) => refuse(key, format!("must be from {least} to {most}, not {number}.")),
            None => refuse(key, format!("must be a whole number from {least} to {most}.")),
        }
    }
    check_weights(stack, &mut refuse);
    let level = stack.text("log.level");
    if !is_level(&level) {
        refuse("log.level", format!("must be one of {}, not '{level}'.", LEVELS.join(", ")));
    }
    let format = stack.text("log.format");
    if !matches!(format.as_str(), "text" | "json") {
        refuse("log.format", format!("must be text or json, not '{format}'."));
    }
    if stack.text("storage.data_dir").trim().is_empty() {
        refuse("storage.data_dir", "must name a folder.".to_owned());
    }
    // Idempotency keys and late reports are good for a day.
    if let Some(kept) = stack.int("retention.keep_ended_ms")
        && (1..DAY_MS).contains(&kept)
    {
        refuse("retention.keep_ended_ms", format!("must be 0 or at least {DAY_MS}, not {kept}."));
    }
    if let (Some(ping), Some(timeout)) =
        (stack.int("websocket.ping_ms"), stack.int("websocket.pong_timeout_ms"))
        && timeout <= ping
    {
        let reason = format!("must be longer than websocket.ping_ms, which is {ping}, not {timeout}.");
        refuse("websocket.pong_timeout_ms", reason);
    }
    check_exposure(stack, &mut refuse);
}

fn check_weights(stack: &Stack, refuse: &mut impl FnMut(&str, String)) {
    let weights: Vec<f64> = WEIGHTS.iter().filter_map(|key| stack.float(key)).collect();
    for (key, weight) in WEIGHTS.iter().zip(&weights) {
        if !(0.0..=1.0).contains(weight) {
            refuse(key, format!("must be from 0 to 1, not {weight}."));
            return;
        }
    }
    let sum: f64 = weights.iter().sum();
    if (sum - 1.0).abs() > 1e-6 {
        // The blame is with a weight that somebody changed, when there is one.
        let changed = WEIGHTS.iter().find(|key| stack.source(key) != Source::Default);
        let key = changed.copied().unwrap_or("selection.capability");
        refuse(key, format!("and the other three weights must make 1 together, not {sum}."));
    }
}

/// What would let strangers in. There is no way yet to tell them from friends.
fn check_exposure(stack: &Stack, refuse: &mut impl FnMut(&str, String)) {
    if stack.flag("auth.enabled") {
        let reason = "must be false: authentication is not built yet. Bind to loopback without it.";
        refuse("auth.enabled", reason.to_owned());
    }
    if stack.flag("ssl.enabled") {
        let reason = "must be false: TLS is not built yet. Bind to loopback without it.";
        refuse("ssl.enabled", reason.to_owned());
    }
    let host = stack.text("server.host");
    if !is_loopback(&host) {
        let reason = format!(
            "must be a loopback address such as 127.0.0.1, not '{host}': without authentication, \
             which is not built yet, a public address would let everybody in."
        );
        refuse("server.host", reason);
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `info`, or `info,photon::http=debug`. The filter itself would take a mistyped level for a module's name.
fn is_level(level: &str) -> bool {
    let known = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
    level.split(',').map(str::trim).all(|part| match part.split_once('=') {
        Some((target, word)) => !target.is_empty() && !target.contains(char::is_whitespace) && known(word),
        None => known(part),
    })
}

pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let has_keys = !settings.auth.api_keys.is_empty() || !settings.auth.admin_key.expose().is_empty();
    let sentence = "API keys are configured and have no effect: authentication is not built yet.";
    has_keys.then(|| sentence.to_owned()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{DEFAULTS, layers};
    use std::path::Path;

    #[test]
    fn every_whole_number_of_the_defaults_has_bounds() {
        let stack = layers::Stack::over(layers::read(DEFAULTS, Path::new("config.toml")).unwrap());
        let texts = |key: &&String| stack.int(key).is_some() && !WEIGHTS.contains(&key.as_str());
        let numbers = stack.keys().iter().filter(texts).filter(|key| !key.ends_with(".enabled"));
        let unbounded: Vec<_> = numbers.filter(|key| BOUNDS.iter().all(|(bound, ..)| bound != key)).collect();
        assert!(unbounded.is_empty(), "{unbounded:?}");
        assert!(BOUNDS.iter().all(|(key, ..)| stack.keys().iter().any(|known| known == key)));
    }

    #[test]
    fn a_mistyped_level_is_not_taken_for_a_module() {
        assert!(is_level("info") && is_level("INFO") && is_level("warn, photon::http=debug"));
        assert!(!is_level("inf") && !is_level("") && !is_level("info,") && !is_level("a=b"));
    }

    #[test]
    fn only_loopback_is_loopback() {
        assert!(["localhost", "127.0.0.1", "127.9.9.9", "::1"].iter().all(|host| is_loopback(host)));
        let public = ["0.0.0.0", "::", "10.0.0.1", "example.org", "", "127.0.0.1.evil.test", "[::1]"];
        assert!(public.iter().all(|host| !is_loopback(host)));
    }
}
