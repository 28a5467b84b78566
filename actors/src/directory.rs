//! Where the actors are: id → address. Gives births and sends idle ones to rest; both under one lock,
//! so that nobody is ever handed the address of an actor that is about to end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use actix::prelude::{Actor, Addr, ArbiterHandle};
use domain::Timestamp;
use events::StreamId;
use parking_lot::RwLock;

use crate::aggregate_actor::{AggregateActor, Retire, Surroundings};
use crate::codec::Durable;
use crate::supervisor::Supervisor;

/// An actor's address and who uses it.
struct Seat<A: Durable> {
    address: Addr<AggregateActor<A>>,
    users: AtomicUsize,
    used_at_us: AtomicI64,
}

/// The right to talk to an actor; while it is held the actor is not sent to rest.
pub struct Visit<A: Durable>(Arc<Seat<A>>);

impl<A: Durable> Visit<A> {
    /// Where to send.
    #[must_use]
    pub fn address(&self) -> &Addr<AggregateActor<A>> {
        &self.0.address
    }
}

impl<A: Durable> Drop for Visit<A> {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::Release);
    }
}

type Seats<A> = Arc<RwLock<HashMap<<A as domain::Aggregate>::Id, Arc<Seat<A>>>>>;

/// All actors of one kind.
pub struct Directory<A: Durable> {
    seats: Seats<A>,
    around: Arc<Surroundings>,
    supervisor: Arc<Supervisor>,
    arbiter: ArbiterHandle,
}

impl<A: Durable> Directory<A> {
    /// An empty one whose actors will live on this arbiter.
    ///
    /// One thread decides everything: times are then given out in the order in which the log's writer
    /// receives them.
    #[must_use]
    pub fn new(around: Arc<Surroundings>, supervisor: Arc<Supervisor>, arbiter: ArbiterHandle) -> Self {
        Self { seats: Arc::default(), around, supervisor, arbiter }
    }

    /// How many actors live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seats.read().len()
    }

    /// Whether none lives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The actor of this id, born now if it does not live.
    ///
    /// `new` says that the stream does not exist yet, `again` that an earlier actor of it died.
    pub fn visit(&self, id: &A::Id, stream: &StreamId, new: bool, again: bool) -> Visit<A> {
        let now_us = self.around.clock.now().as_micros();
        if let Some(seat) = self.seats.read().get(id) {
            return taken(seat, now_us);
        }
        let mut seats = self.seats.write();
        let seat = seats.entry(id.clone()).or_insert_with(|| self.born(id, stream, new && !again));
        taken(seat, now_us)
    }

    fn born(&self, id: &A::Id, stream: &StreamId, new: bool) -> Arc<Seat<A>> {
        let on_death = {
            let (seats, supervisor) = (Arc::clone(&self.seats), Arc::clone(&self.supervisor));
            let (id, stream) = (id.clone(), stream.clone());
            Box::new(move || {
                // While the process stops, an actor may end within `visit`, which holds the lock.
                if supervisor.died(&stream) {
                    seats.write().remove(&id);
                }
            })
        };
        let around = Arc::clone(&self.around);
        let actor = AggregateActor::new(id.clone(), stream.clone(), around, new, on_death);
        let address = AggregateActor::start_in_arbiter(&self.arbiter, move |_| actor);
        Arc::new(Seat { address, users: AtomicUsize::new(0), used_at_us: AtomicI64::new(0) })
    }

    /// Sends actors to rest that nobody has used for `idle_ms`.
    pub fn rest_idle(&self, now: Timestamp, idle_ms: u64) {
        let mut seats = self.seats.write();
        seats.retain(|_, seat| {
            let used_at = Timestamp::from_micros(seat.used_at_us.load(Ordering::Relaxed));
            let idle = seat.users.load(Ordering::Acquire) == 0 && now.ms_since(used_at) >= idle_ms;
            !(idle && seat.address.try_send(Retire).is_ok())
        });
    }

    /// Makes one actor panic; only for tests of what happens then.
    #[cfg(feature = "testing")]
    pub fn sabotage(&self, id: &A::Id) {
        if let Some(seat) = self.seats.read().get(id) {
            let _ = seat.address.try_send(crate::aggregate_actor::Sabotage);
        }
    }
}

fn taken<A: Durable>(seat: &Arc<Seat<A>>, now_us: i64) -> Visit<A> {
    seat.users.fetch_add(1, Ordering::Acquire);
    seat.used_at_us.store(now_us, Ordering::Relaxed);
    Visit(Arc::clone(seat))
}
