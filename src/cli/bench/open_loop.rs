//! Measures creations that come at a fixed rate, whatever the server does: a request that has to wait for the
//! one before it counts from the moment at which it was due. It must never slow down with the server.

use std::time::{Duration, Instant};

use super::Plan;
use super::fault::Fault;
use super::load::{Answered, Window};
use super::sample;
use super::server::Server;
use super::wire::Wire;

/// Creations per second.
pub(super) const RATE: u32 = 1_000;

/// Creates operations at the rate, on as many connections as the plan says.
pub(super) async fn measure(plan: &Plan) -> Result<Answered, Fault> {
    let server = Server::of(plan).await?;
    let connections = u32::try_from(plan.connections).unwrap_or(u32::MAX).max(1);
    let mut wires = Vec::with_capacity(plan.connections);
    for _ in 0..connections {
        let wire = Wire::open(server.address()).await?;
        let request = wire.post("/api/v1/operations", &sample::operation(&plan.unclaimed()))?;
        wires.push((wire, request));
    }
    let begins = Instant::now();
    let (opens, closes) = Window::bounds(plan.seconds);
    let (between, every) = (Duration::from_secs(1) / RATE, Duration::from_secs(1) * connections / RATE);
    let mut working = Vec::with_capacity(wires.len());
    for (number, (wire, request)) in (0..).zip(wires) {
        working.push(tokio::spawn(at_moments(wire, request, begins + between * number, every, closes)));
    }
    let window = Window::watch(opens, closes, server.process()).await;
    let mut answered = Vec::new();
    for work in working {
        answered.append(&mut work.await.map_err(std::io::Error::other)??);
    }
    server.stop().await?;
    window.figures(answered)
}

/// Sends the request when it is due, or at once when it is late.
async fn at_moments(
    mut wire: Wire,
    request: Vec<u8>,
    first: Instant,
    every: Duration,
    until: Instant,
) -> Result<Vec<(Instant, Duration)>, Fault> {
    let mut answered = Vec::new();
    let mut due = first;
    while due < until {
        tokio::time::sleep_until(due.into()).await;
        wire.exchange(&request, 201).await?;
        let at = Instant::now();
        answered.push((at, at - due));
        due += every;
    }
    Ok(answered)
}
