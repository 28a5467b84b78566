//! Measures durable creations, paired with the bare server: one round of each in turn, so that a noisy
//! moment of the machine falls on both.

use serde::Serialize;

use super::Plan;
use super::fault::Fault;
use super::figures::{self, median_by};
use super::load::{Answered, Request, closed_loop, median};
use super::process::{Memory, Process};
use super::sample;
use super::server::Server;

/// Creations, and the same without Photon.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Creates {
    /// Durable creations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) photon: Option<Answered>,
    /// Bare actix-web with the same JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bare: Option<Answered>,
    /// The first in relation to the second: the median of the rounds' own ratios.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<f64>,
    /// The same by processor time of client and server, which noise on the machine hardly changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_ratio: Option<f64>,
    /// The server's memory at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Memory>,
}

/// Measures Photon, the bare server, or both.
pub(super) async fn measure(plan: &Plan, photon: bool, bare: bool) -> Result<Creates, Fault> {
    let server = if photon { Some(Server::of(plan).await?) } else { None };
    let ceiling = if bare { Some(Process::bare(&[]).await?) } else { None };
    let (mut durable, mut plain, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        if let Some(ceiling) = &ceiling {
            plain.push(
                closed_loop(ceiling.address(), requests(plan, "bench"), plan.seconds, Some(ceiling)).await?,
            );
        }
        if let Some(server) = &server {
            let requests = requests(plan, &plan.unclaimed());
            durable.push(closed_loop(server.address(), requests, plan.seconds, server.process()).await?);
        }
        if let (Some(durable), Some(plain)) = (durable.last(), plain.last()) {
            ratios.extend(figures::ratio(durable.per_second, plain.per_second));
        }
    }
    let memory = server.as_ref().and_then(Server::process).and_then(Process::memory);
    if let Some(server) = server {
        server.stop().await?;
    }
    let ratio = median_by(ratios, |ratio| *ratio);
    let (photon, bare) = (median(durable), median(plain));
    let both = photon.as_ref().and_then(Answered::cpu_us).zip(bare.as_ref().and_then(Answered::cpu_us));
    let cpu_ratio = both.and_then(|(durable, plain)| figures::ratio(plain, durable));
    Ok(Creates { photon, bare, ratio, cpu_ratio, memory })
}

fn requests(plan: &Plan, action: &str) -> Vec<Request> {
    let request =
        || Request { path: "/api/v1/operations".into(), body: sample::operation(action), wanted: 201 };
    (0..plan.connections).map(|_| request()).collect()
}
