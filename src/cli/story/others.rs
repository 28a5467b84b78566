//! What happens to agents, lanes, pools and the server itself, in one sentence each.

use serde_json::Value;

use super::{after_colon, fields, millis, text};
use crate::cli::terminal::plain;
use crate::http::event_view::EventView;

/// The sentence for an event of anything but an operation; none for an event that is not known.
pub(super) fn sentence(event: &EventView) -> Option<String> {
    let (kind, data) = (event.kind.as_str(), &event.data);
    // "agent/a-1": what the event is about.
    let subject = plain(event.subject.split_once('/').map_or(event.subject.as_str(), |(_, name)| name));
    Some(match kind {
        "agent.registered" => format!("Agent {subject} is registered."),
        "agent.reregistered" => {
            format!("Agent {subject} is registered again, incarnation {}.", data["incarnation"])
        }
        "agent.updated" => format!("Agent {subject} is changed: {}.", fields(data)),
        "agent.status_changed" => {
            let (from, to) = (text(&data["from"]), text(&data["to"]));
            format!("Agent {subject} is {to}, and was {from}: {}.", why(&text(&data["reason"])))
        }
        "agent.timeout" => format!("Agent {subject} has been silent for {}.", millis(&data["silentMs"])),
        "agent.unregistered" => format!("Agent {subject} is unregistered."),
        "agent.seen" => format!("Agent {} was heard.", text(&data["agent"])),
        "agent.heartbeat" => format!("Agent {subject} sent a heartbeat."),
        "lane.parked" => format!("Lane {subject} takes no calls until {}.", text(&data["until"])),
        "lane.opened" => format!("Lane {subject} is opened by {}.", text(&data["by"])),
        "work.carried" => format!("The record of agent {subject} is kept, while operations leave the log."),
        "stream.quarantined" => format!("{} is out of service: it failed too often.", text(&data["stream"])),
        "pool.scaled" => {
            let (pool, from, to) = (text(&data["pool"]), &data["from"], &data["to"]);
            format!("Pool {pool} had {from} workers and has {to}{}.", after_colon(&data["detail"]))
        }
        _ => return of_server(kind, data),
    })
}

fn of_server(kind: &str, data: &Value) -> Option<String> {
    Some(match kind {
        "system.health_changed" => {
            let checks = data["checks"].as_array().into_iter().flatten();
            let checks = checks.map(|check| format!("{} ({})", text(&check["name"]), text(&check["detail"])));
            let checks: Vec<String> = checks.collect();
            let (from, to) = (text(&data["from"]), text(&data["to"]));
            format!("The server's health went from {from} to {to}: {}.", checks.join(", "))
        }
        "system.metrics" => "The server's load was sampled.".to_owned(),
        "performance.alert" => {
            let (metric, value, threshold) = (text(&data["metric"]), &data["value"], &data["threshold"]);
            match data["state"].as_str() {
                Some("raised") => format!("{metric} is {value}, over the threshold of {threshold}."),
                _ => format!("{metric} is {value}, well below the threshold of {threshold} again."),
            }
        }
        "security.event" => {
            let (peer, count) = (text(&data["peer"]), &data["count"]);
            let kind = text(&data["kind"]).replace('_', " ");
            let times = if *count == 1 { "request" } else { "requests" };
            format!("{count} {times} of {peer} were refused, {kind}{}.", after_colon(&data["detail"]))
        }
        _ => return None,
    })
}

/// Why an agent has its status, in words.
fn why(reason: &str) -> String {
    match reason {
        "registered" => "it registered",
        "unregistered" => "it unregistered",
        "updated" => "its owner or an operator set it",
        "drained" => "it was drained",
        "heartbeat" => "it asked for that",
        "timeout" => "it was silent for too long",
        "heard_again" => "it was heard again",
        "pool_shrinks" => "its pool needs fewer workers",
        "quarantined_losses" => "it lost too many leases in a row",
        "quarantined_untaken" => "it left too many offers in a row untaken",
        "quarantined_failures" => "too many of its steps in a row failed",
        other => other,
    }
    .to_owned()
}
