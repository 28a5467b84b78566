//! The most steps that can be under way at once: so many of which none comes before another.
//!
//! By Dilworth's theorem that is the least number of chains that hold all steps, and those are counted by
//! the most links "then" in which each step has one successor and one predecessor at most, perhaps with
//! others between. Such links are a flow: a step's leaving side gives one, a step's entering side takes
//! one, and whatever enters a step may also pass through it. Dinic's algorithm, without recursion.

use std::collections::VecDeque;

use crate::operation::step::Skeleton;

const SOURCE: usize = 0;
const SINK: usize = 1;
/// Room of what may be used again and again; no workflow has so many steps.
const AMPLE: u32 = u32::MAX / 2;

/// The most steps of a workflow without a cycle that can be under way at once.
pub(super) fn width(skeleton: &Skeleton) -> usize {
    skeleton.steps.len() - Network::of(skeleton).flow()
}

#[derive(Clone, Copy)]
struct Arc {
    to: usize,
    room: u32,
}

/// Arc 2k + 1 leads back along arc 2k.
struct Network {
    arcs: Vec<Arc>,
    /// By node: arcs that leave it.
    leaving: Vec<Vec<usize>>,
    /// By node: arcs from the source, on the shortest way with room.
    distance: Vec<Option<u32>>,
    /// By node: the first of its arcs that may still lead on.
    next: Vec<usize>,
}

impl Network {
    fn of(skeleton: &Skeleton) -> Self {
        let steps = skeleton.steps.len();
        let nodes = 2 + 2 * steps;
        let mut network = Self {
            arcs: Vec::new(),
            leaving: vec![Vec::new(); nodes],
            distance: vec![None; nodes],
            next: vec![0; nodes],
        };
        let (out, entry) = (|step: usize| 2 + 2 * step, |step: usize| 3 + 2 * step);
        for step in 0..steps {
            network.join(SOURCE, out(step), 1);
            network.join(entry(step), SINK, 1);
            network.join(entry(step), out(step), AMPLE);
            for dependent in &*skeleton.dependents[step] {
                network.join(out(step), entry(*dependent), AMPLE);
            }
        }
        network
    }

    fn join(&mut self, from: usize, to: usize, room: u32) {
        self.leaving[from].push(self.arcs.len());
        self.arcs.push(Arc { to, room });
        self.leaving[to].push(self.arcs.len());
        self.arcs.push(Arc { to: from, room: 0 });
    }

    fn flow(&mut self) -> usize {
        let mut flow = 0;
        while self.measure() {
            self.next.fill(0);
            while self.send() {
                flow += 1;
            }
        }
        flow
    }

    /// Measures every distance; false when the sink is out of reach.
    fn measure(&mut self) -> bool {
        self.distance.fill(None);
        self.distance[SOURCE] = Some(0);
        let mut queue = VecDeque::from([(SOURCE, 0)]);
        while let Some((node, distance)) = queue.pop_front() {
            for arc in &self.leaving[node] {
                let Arc { to, room } = self.arcs[*arc];
                if room > 0 && self.distance[to].is_none() {
                    self.distance[to] = Some(distance + 1);
                    queue.push_back((to, distance + 1));
                }
            }
        }
        self.distance[SINK].is_some()
    }

    /// Sends one along a shortest way; false when no such way has room.
    fn send(&mut self) -> bool {
        let (mut way, mut node) = (Vec::new(), SOURCE);
        while node != SINK {
            if let Some(arc) = self.onward(node) {
                way.push(arc);
                node = self.arcs[arc].to;
            } else if let Some(arc) = way.pop() {
                node = self.arcs[arc ^ 1].to;
                self.next[node] += 1;
            } else {
                return false;
            }
        }
        for arc in way {
            self.arcs[arc].room -= 1;
            self.arcs[arc ^ 1].room += 1;
        }
        true
    }

    fn onward(&mut self, node: usize) -> Option<usize> {
        while let Some(arc) = self.leaving[node].get(self.next[node]).copied() {
            let Arc { to, room } = self.arcs[arc];
            if room > 0 && self.distance[to] == self.distance[node].map(|distance| distance + 1) {
                return Some(arc);
            }
            self.next[node] += 1;
        }
        None
    }
}
