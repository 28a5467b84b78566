//! Watches the server from within: looks at its health, samples its load, and notes what changed in the
//! `system` stream. It must never be waited for by a request, and never repair anything.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::web;
use domain::alarm::{Alarm, HealthRecord};
use domain::system::{Alert, AlertState, Check, Event, Health, Metric};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::http::guard::Phase;
use crate::http::guard::offences::Offences;
use crate::http::{Api, health};
use crate::settings::Monitoring;

pub mod sample;

use sample::Sample;

/// The worst of the checks at the last look: 0 pass, 1 warn, 2 fail.
pub const HEALTH_STATE: &str = "photon_health_state";
/// Whether an alert is raised, by `metric`.
pub const ALERT_RAISED: &str = "photon_alert_raised";

/// Offences are noted once in this time.
const OFFENCES_EVERY: Duration = Duration::from_secs(60);
/// Longest wait for the monitor's end, and again for its last notes to be written.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Where each sample goes.
pub type OnSample = Box<dyn Fn(Value)>;

/// What the monitor saw last, for whoever shows it.
#[derive(Default)]
pub struct Watched {
    /// Who was turned away since the last note of it.
    pub offences: Offences,
    health: Mutex<Health>,
    alerts: Mutex<BTreeMap<Metric, Alert>>,
}

impl Watched {
    /// The worst of the checks at the last look.
    #[must_use]
    pub fn health(&self) -> Health {
        *self.health.lock()
    }

    /// Alerts that are raised, with what was measured last.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        self.alerts.lock().values().cloned().collect()
    }
}

/// The task that watches.
pub struct Monitor {
    stop: mpsc::Sender<oneshot::Sender<()>>,
}

impl Monitor {
    /// Begins to watch, on this thread. Without monitoring it only notes who was turned away.
    #[must_use]
    pub fn start(api: web::Data<Api>, settings: Monitoring, on_sample: OnSample) -> Self {
        let (stop, stopped) = mpsc::channel(1);
        let watching = Watching {
            api,
            settings,
            on_sample,
            record: HealthRecord::default(),
            alarms: BTreeMap::new(),
            sampled: Instant::now(),
        };
        actix_web::rt::spawn(watching.run(stopped));
        Self { stop }
    }

    /// Notes what was not noted yet, waits until that is written, and ends.
    pub async fn stop(&self) {
        let stopping = async {
            let (answer, ended) = oneshot::channel();
            if self.stop.send(answer).await.is_ok() {
                // An error means that it has ended already.
                let _ = ended.await;
            }
        };
        if tokio::time::timeout(STOP_MAX, stopping).await.is_err() {
            tracing::warn!("the monitor does not end");
        }
    }
}

struct Watching {
    api: web::Data<Api>,
    settings: Monitoring,
    on_sample: OnSample,
    record: HealthRecord,
    alarms: BTreeMap<Metric, Alarm>,
    sampled: Instant,
}

impl Watching {
    async fn run(mut self, mut stop: mpsc::Receiver<oneshot::Sender<()>>) {
        let (look, sample) = (self.settings.health_check_interval_ms, self.settings.metrics_interval_ms);
        let (look, sample) = (Duration::from_millis(look), Duration::from_millis(sample));
        // Ill from the start is worth knowing at once; a sample needs some time behind it.
        let mut looks = every(Duration::ZERO, look);
        let mut samples = every(sample, sample);
        let mut minutes = every(self.rest_of_minute(), OFFENCES_EVERY);
        loop {
            tokio::select! {
                _ = looks.tick(), if self.settings.enabled => self.look().await,
                _ = samples.tick(), if self.settings.enabled => self.sample(),
                _ = minutes.tick() => self.note_offences(),
                ending = stop.recv() => {
                    self.note_offences();
                    if !self.api.core.system.settled(STOP_MAX / 2).await {
                        tracing::warn!("the last facts about the system are not written yet");
                    }
                    if let Some(ending) = ending {
                        // Whoever asked may have given up.
                        let _ = ending.send(());
                    }
                    return;
                }
            }
        }
    }

    fn rest_of_minute(&self) -> Duration {
        let minute_us = OFFENCES_EVERY.as_micros() as u64;
        let into_us = self.api.core.around.clock.now().as_micros().unsigned_abs() % minute_us;
        Duration::from_micros(minute_us - into_us)
    }

    async fn look(&mut self) {
        let found = health::examine(&self.api).await;
        // To start and to stop is no illness.
        if self.api.state.phase() != Phase::Ready {
            return;
        }
        *self.api.watched.health.lock() = found.worst;
        let checks: Vec<Check> = found.checks.into_iter().map(|(check, _)| check).collect();
        if let Some(changed) = self.record.look(&checks) {
            let (from, to) = (changed.from.name(), changed.to.name());
            tracing::warn!(from, to, checks = ?changed.checks, "health changed");
            self.api.core.system.note(&Event::HealthChanged(changed));
        }
    }

    fn sample(&mut self) {
        if self.api.state.phase() != Phase::Ready {
            return;
        }
        let since = self.sampled.elapsed();
        self.sampled = Instant::now();
        let sample = Sample::take(&self.api, since);
        self.weigh(Metric::RequestP95Ms, sample.p95_us.map(|us| us.div_ceil(1_000)));
        self.weigh(Metric::ReadySteps, Some(sample.ready_steps as u64));
        (self.on_sample)(sample.shown());
    }

    fn weigh(&mut self, metric: Metric, measured: Option<u64>) {
        let threshold = match metric {
            Metric::RequestP95Ms => self.settings.alert_p95_ms,
            Metric::ReadySteps => self.settings.alert_ready_steps,
        };
        if threshold == 0 {
            return;
        }
        let alarm = self.alarms.entry(metric).or_default();
        let (after, said) = alarm.after(measured, threshold);
        *alarm = after;
        let alert = |state| Alert { metric, state, value: measured.unwrap_or(0), threshold };
        if let Some(state) = said {
            let (metric, state_name) = (metric.name(), if after.is_raised() { "raised" } else { "cleared" });
            tracing::warn!(metric, state = state_name, value = measured, threshold, "performance alert");
            self.api.core.system.note(&Event::Alert(alert(state)));
        }
        let mut alerts = self.api.watched.alerts.lock();
        if after.is_raised() {
            alerts.insert(metric, alert(AlertState::Raised));
        } else {
            alerts.remove(&metric);
        }
    }

    fn note_offences(&self) {
        let events: Vec<Event> = self.api.watched.offences.take().into_iter().map(Event::Security).collect();
        self.api.core.system.note_all(&events);
    }
}

fn every(first: Duration, period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + first, period);
    // What was missed while something took long is not made up for.
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
