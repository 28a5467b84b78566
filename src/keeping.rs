//! Owns when a server takes snapshots: by policy while it runs, and once more when it has stopped cleanly.
//! Must never keep a start, a request or a stop from going on.

use std::sync::Arc;
use std::time::Duration;

use actors::Core;
use actors::keeper::{Keeper, Policy, TakeError};
use events::Anchor;
use snapshots::FileStore;

use crate::http::guard::{Phase, ServiceState};
use crate::http::health::Disk;
use crate::settings::Settings;

/// Where snapshots are, within the data folder.
pub const FOLDER: &str = "snapshots";

/// Time between two looks at whether one is due.
const LOOK: Duration = Duration::from_secs(1);
/// Longest wait, at a stop, for the views to show what was answered.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(2);

/// The disk that holds log and snapshots.
#[must_use]
pub fn disk(settings: &Settings) -> Disk {
    Disk {
        folder: settings.storage.data_dir.clone(),
        low_water_bytes: settings.limits.disk_low_water_bytes,
        max_bytes: settings.limits.max_disk_bytes,
        anchor: Anchor::of(&settings.storage.data_dir).ok(),
    }
}

/// The keeper of a log's snapshots; none when there shall be none.
#[must_use]
pub fn keeper(settings: &Settings) -> Option<Arc<Keeper>> {
    if !settings.snapshots.enabled {
        return None;
    }
    let policy = Policy {
        every_events: settings.snapshots.every_events,
        stream_events: settings.snapshots.stream_events,
    };
    let disk = disk(settings);
    match FileStore::open(disk.folder.join(FOLDER)) {
        Ok(store) => Some(Keeper::new(store, policy, move || disk.is_roomy())),
        Err(fault) => {
            tracing::warn!(%fault, "there are no snapshots: their folder cannot be looked at");
            None
        }
    }
}

/// Takes snapshots by policy until the server is about to stop.
pub async fn follow(core: Arc<Core>, keeper: Arc<Keeper>, state: Arc<ServiceState>) {
    while state.phase() != Phase::Draining {
        let events = core.projected.events();
        if keeper.is_due(events)
            && let Err(fault) =
                keeper.take(&core.around.log, core.projected.blocks(), core.around.clock.now()).await
        {
            tracing::warn!(%fault, "no snapshot was taken");
            keeper.put_off(events);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = state.draining() => {}
        }
    }
}

/// Ends the core, and leaves a snapshot of what it knew.
pub async fn stop(core: &Core, keeper: Option<&Keeper>) {
    let log = Arc::clone(&core.around.log);
    if let (Some(_), Ok(head)) = (keeper, log.head().await) {
        core.projected.reached(head, CAUGHT_UP_WITHIN).await;
    }
    core.stop();
    let Some(keeper) = keeper else { return };
    match keeper.take_last(&*log, &core.projected, core.around.clock.now()).await {
        Ok(_) | Err(TakeError::Empty) => {}
        Err(fault) => tracing::warn!(%fault, "no snapshot was taken"),
    }
}
