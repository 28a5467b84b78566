//! Looks at the past, and what a comparison with the present must find.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use actors::past::{Comparison, Cut};
use domain::Timestamp;
use domain::operation::event::{Event, Patch};
use domain::views::{Stamp, Views};
use events::{EventLog, MemoryLog};
use support::{core, create, id, rename};

/// What is found when something is wrong with what is shown.
async fn found(spoil: impl FnOnce(&mut Views, Views)) -> Comparison {
    let core = core(Arc::new(MemoryLog::new())).await;
    create(&core, 1).await;
    let early = core.past(Cut::Position(core.projected.position())).await.unwrap();
    rename(&core, 1, "another").await.unwrap();
    create(&core, 2).await;
    let past = core.past(Cut::Position(core.projected.position())).await.unwrap();
    spoil(&mut core.projected.views.write(), early.views.clone());
    let found = core.compare(&past);
    core.stop();
    found
}

fn operation(number: u32) -> String {
    format!("operation/{}", id(number))
}

#[actix::test]
async fn nothing_is_found_where_nothing_is_wrong() {
    let found = found(|_, _| ()).await;
    assert_eq!(found, Comparison { compared: 2, moved_on: 0, differing: Vec::new() });
}

#[actix::test]
async fn what_is_not_shown_and_what_is_shown_at_a_former_revision_differs() {
    let found = found(|views, early| *views = early).await;
    for missing in [operation(1), operation(2)] {
        assert!(found.differing.contains(&missing), "{found:?}");
    }
    assert_eq!(found.moved_on, 0);
}

#[actix::test]
async fn what_is_shown_otherwise_and_what_was_never_created_differs() {
    let at = Timestamp::from_micros(1);
    let renamed = Event::Updated(Box::new(Patch { name: Some("spoilt".into()), ..Patch::default() }));
    let spoilt = found(|views, _| {
        let row = views.operations.find(&id(2)).unwrap();
        let (revision, created) = (row.revision, Event::Created(Box::new(support::definition("never"))));
        views.operations.apply(&id(2), &renamed, Stamp { revision, position: 1, at });
        views.operations.apply(&id(3), &created, Stamp { revision: 1, position: 1, at });
    })
    .await;
    for wrong in [operation(2), operation(3)] {
        assert!(spoilt.differing.contains(&wrong), "{spoilt:?}");
    }
}

#[actix::test]
async fn a_look_at_a_moment_that_is_not_over_is_not_kept() {
    let core = core(Arc::new(MemoryLog::new()) as Arc<dyn EventLog>).await;
    create(&core, 1).await;
    let later = core.around.clock.now().plus_ms(3_600_000);
    assert_eq!(core.past(Cut::Time(later)).await.unwrap().views.operations.len(), 1);
    create(&core, 2).await;
    assert_eq!(core.past(Cut::Time(later)).await.unwrap().views.operations.len(), 2);
    core.stop();
}
