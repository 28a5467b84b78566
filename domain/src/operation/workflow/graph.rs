//! The dependencies of a workflow as a graph: cycles, and who comes before whom. Linear, and without
//! recursion, since a workflow may be one chain of ten thousand steps.

use std::collections::{BTreeSet, HashMap};

use petgraph::Direction;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::operation::definition::StepDefinition;

/// Node n is `workflow[n]`, an edge leads to the dependent.
pub(super) struct Graph {
    graph: DiGraph<(), ()>,
    index: HashMap<u32, usize>,
    /// Dependencies on numbers that no step has: position of the step, and the number.
    pub(super) unknown: Vec<(usize, u32)>,
    /// Positions of steps that depend on themselves.
    pub(super) selfish: Vec<usize>,
}

impl Graph {
    pub(super) fn of(steps: &[StepDefinition]) -> Self {
        let index: HashMap<u32, usize> =
            steps.iter().enumerate().map(|(index, step)| (step.step, index)).collect();
        let edges = steps.iter().map(|step| step.dependencies.len()).sum();
        let mut graph = DiGraph::with_capacity(steps.len(), edges);
        for _ in steps {
            graph.add_node(());
        }
        let (mut unknown, mut selfish) = (Vec::new(), Vec::new());
        for (at, step) in steps.iter().enumerate() {
            for number in &step.dependencies {
                match index.get(number) {
                    None => unknown.push((at, *number)),
                    Some(other) if *other == at => selfish.push(at),
                    Some(other) => {
                        graph.add_edge(NodeIndex::new(*other), NodeIndex::new(at), ());
                    }
                }
            }
        }
        selfish.dedup();
        Self { graph, index, unknown, selfish }
    }

    /// Position of the step with this number.
    pub(super) fn position(&self, number: u32) -> Option<usize> {
        self.index.get(&number).copied()
    }

    /// One closed walk for each group of steps that depend on each other, from its first step on:
    /// `[3, 5, 3]`.
    pub(super) fn cycles(&self) -> Vec<Vec<usize>> {
        let groups = kosaraju_scc(&self.graph).into_iter().filter(|group| group.len() > 1);
        let mut cycles: Vec<Vec<usize>> =
            groups.map(|group| self.walk(&group.into_iter().collect())).collect();
        cycles.sort_unstable();
        cycles
    }

    fn walk(&self, group: &BTreeSet<NodeIndex>) -> Vec<usize> {
        let mut seen = HashMap::new();
        let mut path = Vec::new();
        let mut next = group.first().copied();
        while let Some(node) = next {
            path.push(node.index());
            if let Some(start) = seen.insert(node, path.len() - 1) {
                return path.split_off(start);
            }
            let mut onward = self.graph.neighbors_directed(node, Direction::Outgoing);
            next = onward.find(|other| group.contains(other));
        }
        path
    }

    /// For each step all that come before it. The graph must have no cycle.
    pub(super) fn ancestors(&self) -> Ancestors {
        let nodes = self.graph.node_count();
        let words = nodes.div_ceil(64);
        let mut ancestors = Ancestors { words, bits: vec![0; words * nodes] };
        // Without a cycle every component is one node, and they come last first.
        for node in kosaraju_scc(&self.graph).into_iter().rev().flatten() {
            for parent in self.graph.neighbors_directed(node, Direction::Incoming) {
                ancestors.add(node.index(), parent.index());
            }
        }
        ancestors
    }
}

/// For each step a set of steps that come before it, as bits.
pub(super) struct Ancestors {
    words: usize,
    bits: Vec<u64>,
}

impl Ancestors {
    fn add(&mut self, node: usize, parent: usize) {
        let (words, from) = (self.words, parent * self.words);
        let inherited: Vec<u64> = self.bits[from..from + words].to_vec();
        let own = &mut self.bits[node * words..(node + 1) * words];
        own.iter_mut().zip(inherited).for_each(|(own, inherited)| *own |= inherited);
        own[parent / 64] |= 1 << (parent % 64);
    }

    pub(super) fn contains(&self, node: usize, other: usize) -> bool {
        self.bits[node * self.words + other / 64] & (1 << (other % 64)) != 0
    }
}
