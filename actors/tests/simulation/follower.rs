//! Readers of the whole log that stop, fall behind and resume after the last position that they saw: over
//! all their lives there is no gap and no repeat (P17).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actors::Core;
use events::Position;
use events::dice::Dice;
use futures_util::StreamExt;
use tokio::time::sleep;

use crate::world::Shared;

/// Begins, or goes on, to read.
pub(crate) fn follow(world: &Shared, core: &Arc<Core>) {
    for reader in 0..world.borrow().seen.len() {
        actix::spawn(read(Rc::clone(world), Arc::clone(core), reader));
    }
}

async fn read(world: Shared, core: Arc<Core>, reader: usize) {
    // Of its own: whom a watched value wakes first is chance that no seed rules.
    let mut dice = Dice(world.borrow_mut().dice.roll());
    loop {
        let (after, many) = (world.borrow().seen[reader], dice.between(1, 150));
        let mut tail = core.around.log.tail(after);
        for _ in 0..many {
            let Some(event) = tail.next().await else { return };
            let mut world = world.borrow_mut();
            let (Ok(event), before) = (event, world.seen[reader]) else { return };
            // The memory log leaves no position out.
            if event.position.get() != before.get() + 1 {
                let said = format!("P17: reader {reader} sees {} after {before}", event.position);
                world.faults.push(said);
                return;
            }
            world.seen[reader] = event.position;
        }
        drop(tail);
        sleep(Duration::from_millis(dice.below(5_000))).await;
    }
}

/// Whether every reader has seen everything.
pub(crate) fn all_seen(seen: &[Position], head: Position) -> bool {
    seen.iter().all(|seen| *seen == head)
}
