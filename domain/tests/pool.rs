//! Laws of a pool's size: its bounds, that more work never makes it smaller, that it settles under a constant
//! load and comes back after a burst. Pools are simulated with workers that take time to start and to work.

use std::cmp::Ordering;
use std::collections::VecDeque;

use domain::Timestamp;
use domain::pool::{Backoff, Policy, Scaler, Seen, sentence};
use domain::system::ScalingReason;
use proptest::prelude::*;

const LOOK_MS: u64 = 500;
const START_MS: u64 = 1_000;

fn at(ms: u64) -> Timestamp {
    Timestamp::default().plus_ms(ms)
}

fn policy(min: u32, max: u32) -> Policy {
    Policy { min, max, target_ms: 5_000, idle_ms: 20_000, slots: 1 }
}

/// A pool whose workers do what they should: a worker per entry, with the moment at which it is free.
struct Simulation {
    policy: Policy,
    scaler: Scaler,
    service_ms: u64,
    now_ms: u64,
    queue: VecDeque<u64>,
    workers: Vec<u64>,
    wanted: Vec<u32>,
    measured: bool,
}

impl Simulation {
    fn new(policy: Policy, service_ms: u64) -> Self {
        let scaler = Scaler::default();
        let (queue, workers, wanted) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { policy, scaler, service_ms, now_ms: 0, queue, workers, wanted, measured: false }
    }

    fn arrive(&mut self, steps: usize) {
        self.queue.extend(std::iter::repeat_n(self.now_ms, steps));
    }

    /// So much time passes, in steps of 50 ms, with a look at each 500 ms.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            for free_at in &mut self.workers {
                if *free_at <= self.now_ms && self.queue.pop_front().is_some() {
                    *free_at = self.now_ms + self.service_ms;
                    self.measured = true;
                }
            }
            if self.now_ms.is_multiple_of(LOOK_MS) {
                self.look();
            }
            self.now_ms += 50;
        }
    }

    fn look(&mut self) {
        let busy = self.workers.iter().filter(|free_at| **free_at > self.now_ms).count();
        let seen = Seen {
            ready: self.queue.len() as u64,
            oldest_wait_ms: self.queue.front().map_or(0, |since| self.now_ms - since),
            service_ms: self.measured.then_some(self.service_ms),
            held: busy as u64,
            idle: (self.workers.len() - busy) as u32,
            busy: busy as u32,
            starting: 0,
        };
        self.scaler.look(&self.policy, &seen, at(self.now_ms));
        let wanted = self.scaler.wanted() as usize;
        while self.workers.len() < wanted {
            self.workers.push(self.now_ms + START_MS);
        }
        while self.workers.len() > wanted {
            let idle = self.workers.iter().position(|free_at| *free_at <= self.now_ms);
            let Some(idle) = idle else { break };
            self.workers.swap_remove(idle);
        }
        self.wanted.push(self.scaler.wanted());
    }

    /// How often it grew again after it had shrunk, in the looks from this one on.
    fn returns_since(&self, look: usize) -> usize {
        let steps = self.wanted[look..].windows(2).map(|pair| pair[1].cmp(&pair[0]));
        let changes: Vec<Ordering> = steps.filter(|step| *step != Ordering::Equal).collect();
        changes.windows(2).filter(|pair| *pair == [Ordering::Less, Ordering::Greater]).count()
    }
}

#[test]
fn a_burst_makes_the_pool_grow_at_once_and_it_shrinks_one_by_one_after_the_idle_time() {
    let mut pool = Simulation::new(policy(1, 8), 2_000);
    pool.pass(5_000);
    assert_eq!(pool.wanted.last(), Some(&1));
    pool.arrive(100);
    pool.pass(LOOK_MS * 2);
    assert_eq!(pool.wanted.last(), Some(&8), "the first look after the burst");
    pool.pass(30_000);
    assert!(pool.queue.is_empty());
    pool.pass(60_000);
    assert_eq!(pool.wanted.last(), Some(&1));
    assert!(pool.wanted.windows(2).all(|pair| pair[1] >= pair[0] || pair[0] - pair[1] == 1));
}

#[test]
fn without_history_a_step_is_taken_to_last_as_long_as_the_target() {
    let policy = policy(0, 8);
    let seen = |ready| Seen { ready, ..Seen::default() };
    for (ready, wanted) in [(0, 0), (1, 1), (5, 5), (100, 8)] {
        let mut scaler = Scaler::default();
        scaler.look(&policy, &seen(ready), at(0));
        assert_eq!(scaler.wanted(), wanted, "{ready} ready steps");
    }
}

#[test]
fn the_wanted_number_keeps_the_queue_within_the_target_and_never_exceeds_the_steps() {
    let table = [
        // ready, held, service, busy, wanted: 10 × 1 s in 5 s need two.
        (10, 0, 1_000, 0, 2),
        (5, 0, 1_000, 0, 1),
        (6, 0, 1_000, 0, 2),
        // One step of a minute needs one more worker, not twelve.
        (1, 1, 60_000, 1, 2),
        // Who is busy is needed.
        (0, 3, 1_000, 3, 3),
    ];
    for (ready, held, service, busy, wanted) in table {
        let seen = Seen { ready, held, service_ms: Some(service), busy, ..Seen::default() };
        let mut scaler = Scaler::default();
        assert_eq!(scaler.look(&policy(0, 8), &seen, at(0)), Some(ScalingReason::Queue));
        assert_eq!(scaler.wanted(), wanted, "{seen:?}");
    }
}

#[test]
fn a_step_that_waits_too_long_while_all_work_adds_one_worker_at_a_time() {
    let mut scaler = Scaler::default();
    let policy = policy(1, 4);
    let seen = Seen { ready: 1, held: 1, service_ms: Some(10), busy: 1, ..Seen::default() };
    let late = Seen { oldest_wait_ms: 5_001, ready: 9, ..seen };
    assert_eq!(scaler.look(&policy, &seen, at(0)), Some(ScalingReason::Queue));
    assert_eq!(scaler.look(&policy, &late, at(1)), Some(ScalingReason::Overdue));
    assert_eq!(scaler.wanted(), 2);
    let starting = Seen { starting: 1, ..late };
    assert_eq!(scaler.look(&policy, &starting, at(2)), None, "the second one has not begun to work");
    let idle = Seen { idle: 1, ..late };
    assert_eq!(scaler.look(&policy, &idle, at(3)), None, "more workers than steps that can be taken");
    assert_eq!(scaler.look(&policy, &Seen { busy: 2, held: 2, ..late }, at(4)), Some(ScalingReason::Overdue));
    assert_eq!(scaler.wanted(), 3);
}

#[test]
fn queue_time_is_ready_steps_times_service_time_over_slots() {
    let policy = Policy { slots: 4, ..policy(0, 8) };
    let seen = Seen { ready: 16, service_ms: Some(1_000), idle: 1, busy: 1, ..Seen::default() };
    assert_eq!(seen.queue_ms(&policy), Some(2_000));
    assert_eq!(Seen { idle: 0, busy: 0, ..seen }.queue_ms(&policy), None);
}

#[test]
fn every_reason_is_told_with_its_figures() {
    use ScalingReason as Why;
    let policy = policy(1, 8);
    let seen = Seen { ready: 12, oldest_wait_ms: 6_540, service_ms: Some(2_000), busy: 2, ..Seen::default() };
    let table = [
        (Why::Minimum, seen, "The pool never has less than 1 worker."),
        (
            Why::Queue,
            seen,
            "12 steps waiting would take 12.0 s to begin with 2 workers; the target is 5.0 s.",
        ),
        (Why::Queue, Seen { ready: 1, busy: 0, ..seen }, "1 step waiting, and no worker is there."),
        (Why::Overdue, seen, "A step has waited 6.5 s while 2 workers had work; the target is 5.0 s."),
        (Why::Idle, seen, "Fewer workers were enough for 20.0 s or longer."),
    ];
    for (reason, seen, words) in table {
        assert_eq!(sentence(reason, &policy, &seen), words);
    }
    assert!(Why::ALL.iter().all(|reason| sentence(*reason, &policy, &seen).ends_with('.')));
}

#[test]
fn workers_that_end_by_themselves_are_held_back_longer_each_time_until_one_lives() {
    let mut backoff = Backoff::default();
    assert_eq!(backoff.allows(5, 2, at(0)), 5);
    let mut now = 1_000;
    for wait in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
        backoff.failed(at(now));
        backoff.failed(at(now));
        assert_eq!(backoff.until(), at(now + wait), "one round counts once");
        assert_eq!(backoff.allows(5, 0, at(now + wait - 1)), 0);
        now += wait;
        assert_eq!(
            (backoff.allows(5, 0, at(now)), backoff.allows(5, 1, at(now))),
            (1, 0),
            "one that shows it"
        );
    }
    assert_eq!(backoff.failures(), 9);
    backoff.lives(at(now), at(now + 9_999));
    assert_eq!(backoff.failures(), 9);
    backoff.lives(at(0), at(now + 10_000));
    assert_eq!(backoff.failures(), 9, "an older worker proves nothing");
    let mut other = backoff;
    backoff.lives(at(now), at(now + 10_000));
    assert_eq!(backoff, Backoff::default());
    other.ended_well(at(0));
    assert_eq!(other.failures(), 9);
    other.ended_well(at(now));
    assert_eq!(other, Backoff::default());
}

prop_compose! {
    fn looks()(
        ready in 0_u64..500, oldest_wait_ms in 0_u64..100_000,
        service_ms in proptest::option::of(0_u64..100_000),
        held in 0_u64..64, idle in 0_u32..9, busy in 0_u32..9, starting in 0_u32..9,
    ) -> Seen {
        Seen { ready, oldest_wait_ms, service_ms, held, idle, busy, starting }
    }
}

prop_compose! {
    fn policies()(
        min in 0_u32..8, more in 0_u32..20, target_ms in 1_000_u64..60_000, idle_ms in 0_u64..60_000,
        slots in 1_u32..9,
    ) -> Policy {
        Policy { min, max: (min + more).max(1), target_ms, idle_ms, slots }
    }
}

proptest! {
    #[test]
    fn the_wanted_number_stays_within_its_bounds_and_falls_by_one(
        policy in policies(), seen in proptest::collection::vec((looks(), 1_u64..30_000), 1..60),
    ) {
        let (mut scaler, mut now) = (Scaler::default(), 0);
        for (number, (seen, pause)) in seen.iter().enumerate() {
            let before = scaler.wanted();
            let reason = scaler.look(&policy, seen, at(now));
            let after = scaler.wanted();
            prop_assert!((policy.min..=policy.max).contains(&after));
            prop_assert_eq!(reason.is_some(), before != after);
            prop_assert_eq!(reason == Some(ScalingReason::Idle), after < before);
            prop_assert!(number == 0 || after + 1 >= before);
            now += pause;
        }
    }

    #[test]
    fn more_ready_steps_never_make_it_smaller(
        policy in policies(), history in proptest::collection::vec(looks(), 0..20), seen in looks(),
        more in 0_u64..500,
    ) {
        let mut scaler = Scaler::default();
        for (number, seen) in history.iter().enumerate() {
            scaler.look(&policy, seen, at(number as u64 * 10_000));
        }
        let mut other = scaler.clone();
        let now = at(history.len() as u64 * 10_000);
        scaler.look(&policy, &seen, now);
        other.look(&policy, &Seen { ready: seen.ready + more, ..seen }, now);
        prop_assert!(other.wanted() >= scaler.wanted());
    }

    /// A load of 5 % to 95 % of what so many workers can do, in even or uneven gaps.
    #[test]
    fn a_constant_load_settles(
        workers in 1_u64..12, percent in 5_u64..95, service in 2_u64..200, uneven in any::<bool>(),
    ) {
        let service_ms = service * 100;
        let gap_ms = (service_ms * 100 / (percent * workers)).max(50);
        let mut pool = Simulation::new(policy(1, 16), service_ms);
        let settled_ms = 1_200_000;
        let mut number = 0_u64;
        let mut looks_before = 0;
        while pool.now_ms < settled_ms + 1_200_000 {
            if pool.now_ms < settled_ms {
                looks_before = pool.wanted.len();
            }
            pool.arrive(1);
            // Gaps of half and of one and a half, in no order that repeats soon.
            let odd = uneven && (number * number / 3).is_multiple_of(2);
            let gap = if !uneven { gap_ms } else if odd { gap_ms / 2 } else { gap_ms * 3 / 2 };
            pool.pass(gap.next_multiple_of(50));
            number += 1;
        }
        // A need that comes back only after the longest idle time of 160 s is met anew each time.
        let returns = pool.returns_since(looks_before);
        prop_assert!(returns <= 1_200 / 160 + 2, "{returns} returns in 20 minutes");
        prop_assert!(pool.queue.len() as u64 <= 5_000 * 16 / service_ms + 2, "{} wait", pool.queue.len());
    }

    #[test]
    fn after_a_burst_it_is_as_before(steps in 1_usize..400, service in 1_u64..100, min in 0_u32..3) {
        let service_ms = service * 100;
        let mut pool = Simulation::new(policy(min, 10), service_ms);
        pool.pass(2_000);
        pool.arrive(steps);
        pool.pass(steps as u64 * service_ms + 60_000);
        prop_assert!(pool.queue.is_empty());
        prop_assert_eq!(pool.wanted.last(), Some(&min));
    }
}
