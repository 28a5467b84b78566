//! Owns how far the views have come, and who waits for that. Each is woken once, and only when the
//! views are where it waits for: to wake all at every step would cost the square of their number.

use std::collections::BTreeMap;
use std::time::Duration;

use events::Position;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How far the views have come.
#[derive(Default)]
pub(crate) struct Reached(Mutex<Line>);

#[derive(Default)]
struct Line {
    position: Position,
    /// By the position they wait for; the number tells apart those that wait for the same.
    waiting: BTreeMap<(Position, u64), oneshot::Sender<()>>,
    next: u64,
}

/// A place in the line, given up by dropping it.
struct Place<'r> {
    reached: &'r Reached,
    at: (Position, u64),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.reached.0.lock().waiting.remove(&self.at);
    }
}

impl Reached {
    /// Where the views stand.
    pub(crate) fn position(&self) -> Position {
        self.0.lock().position
    }

    /// The views stand there now.
    pub(crate) fn advance(&self, position: Position) {
        let reached = {
            let mut line = self.0.lock();
            line.position = position;
            let later = line.waiting.split_off(&(position, u64::MAX));
            std::mem::replace(&mut line.waiting, later)
        };
        for waiting in reached.into_values() {
            // Who no longer waits need not know.
            let _ = waiting.send(());
        }
    }

    /// Waits until they stand there or further. False when they do not within the deadline.
    pub(crate) async fn wait_for(&self, position: Position, deadline: Duration) -> bool {
        let (sender, told) = oneshot::channel();
        let _place = {
            let mut line = self.0.lock();
            if line.position >= position {
                return true;
            }
            line.next += 1;
            let at = (position, line.next);
            line.waiting.insert(at, sender);
            Place { reached: self, at }
        };
        matches!(timeout(deadline, told).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(10);

    fn waiting(reached: &Reached) -> usize {
        reached.0.lock().waiting.len()
    }

    #[tokio::test]
    async fn each_is_told_when_its_position_is_reached_and_nobody_before() {
        let reached = Reached::default();
        reached.advance(Position::new(1));
        assert!(reached.wait_for(Position::new(1), SOON).await);
        let both = join(reached.wait_for(Position::new(3), LATE), reached.wait_for(Position::new(9), SOON));
        let moving = async {
            while waiting(&reached) < 2 {
                tokio::task::yield_now().await;
            }
            reached.advance(Position::new(2));
            assert_eq!(waiting(&reached), 2);
            reached.advance(Position::new(4));
        };
        assert_eq!(join(both, moving).await.0, (true, false));
        assert_eq!((reached.position(), waiting(&reached)), (Position::new(4), 0));
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing_behind() {
        let reached = Reached::default();
        assert!(!reached.wait_for(Position::new(u64::MAX), SOON).await);
        assert_eq!(waiting(&reached), 0);
    }
}
