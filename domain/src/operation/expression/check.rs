//! What can be said of an expression before it runs: names that nothing has, kinds that never fit, and
//! constants, which are evaluated here. It must never refuse what could have a value.

use std::collections::BTreeSet;

use serde_json::Value;

use super::evaluate::Evaluator;
use super::operators::kind;
use super::syntax::{Binary, Node, parse};
use super::{ExpressionError, Scope, names};

/// Bytes that the constants of one expression may move.
const WORK_MAX: usize = 1024 * 1024;

/// An expression that may run, its constants evaluated.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) node: Node,
    /// The steps it reads.
    pub(super) steps: BTreeSet<u32>,
}

impl Checked {
    /// The value, when it is the same in every run.
    pub(super) fn constant(&self) -> Option<&Value> {
        if let Node::Constant(value) = &self.node { Some(value) } else { None }
    }

    /// What the value is in every run, when that is known.
    pub(super) fn kind(&self) -> Option<&'static str> {
        known(&self.node)
    }
}

/// Parses and checks an expression.
///
/// # Errors
/// A sentence about what is wrong with it.
pub(super) fn checked(source: &str) -> Result<Checked, String> {
    let mut node = parse(source)?;
    let scope = Scope::default();
    let mut check =
        Check { constants: Evaluator { scope: &scope, work_left: WORK_MAX }, steps: BTreeSet::new() };
    check.node(&mut node)?;
    Ok(Checked { node, steps: check.steps })
}

struct Check<'s> {
    constants: Evaluator<'s>,
    steps: BTreeSet<u32>,
}

impl Check<'_> {
    /// Checks a node after its children; a node whose children are constants becomes one.
    fn node(&mut self, node: &mut Node) -> Result<(), String> {
        let mut constant = true;
        for child in children(node) {
            self.node(child)?;
            constant &= matches!(child, Node::Constant(_));
        }
        match node {
            Node::Constant(_) | Node::Operation => Ok(()),
            Node::Step(number) => {
                self.steps.insert(*number);
                Ok(())
            }
            _ if constant => {
                let value = self.constants.value(node).map(std::borrow::Cow::into_owned);
                *node = Node::Constant(value.map_err(|absent| ExpressionError::from(absent).message)?);
                Ok(())
            }
            _ => names::check(node).and_then(|()| kinds(node)),
        }
    }
}

fn children(node: &mut Node) -> Vec<&mut Node> {
    match node {
        Node::Constant(_) | Node::Step(_) | Node::Operation => Vec::new(),
        Node::Member { of, key } => vec![of, key],
        Node::Slice { of, from, to } => {
            [Some(of), from.as_mut(), to.as_mut()].into_iter().flatten().map(|node| &mut **node).collect()
        }
        Node::List(items) => items.iter_mut().collect(),
        Node::Object(fields) => fields.iter_mut().map(|(_, value)| value).collect(),
        Node::Not(of) | Node::Negative(of) => vec![of],
        Node::Binary { left, right, .. } => vec![left, right],
        Node::If { condition, yes, no } => vec![condition, yes, no],
        Node::Filter { of, arguments, .. } | Node::Test { of, arguments, .. } => {
            std::iter::once(&mut **of).chain(arguments).collect()
        }
    }
}

pub(super) const TRUTH: &str = "a boolean";
const NUMBER: &str = "a number";
const TEXT: &str = "a string";

/// What a node yields whenever it yields anything, when that is known.
fn known(node: &Node) -> Option<&'static str> {
    match node {
        Node::Constant(value) => Some(kind(value)),
        Node::Not(_) | Node::Test { .. } => Some(TRUTH),
        Node::Negative(_) => Some(NUMBER),
        Node::List(_) => Some("a list"),
        Node::Object(_) | Node::Step(_) | Node::Operation => Some("an object"),
        Node::Binary { sign: Binary::Join, .. } => Some(TEXT),
        Node::Binary { sign: Binary::Add, left, right } => known(left).or_else(|| known(right)),
        Node::Binary { sign, .. } if is_arithmetic(*sign) => Some(NUMBER),
        Node::Binary { .. } => Some(TRUTH),
        Node::Member { .. } | Node::Slice { .. } | Node::If { .. } | Node::Filter { .. } => None,
    }
}

fn is_arithmetic(sign: Binary) -> bool {
    use Binary::{Divide, DivideWhole, Multiply, Remainder, Subtract};
    matches!(sign, Subtract | Multiply | Divide | DivideWhole | Remainder)
}

/// Refuses operands of kinds with which the node can never have a value.
fn kinds(node: &Node) -> Result<(), String> {
    let needs = |what: &str, of: &Node, wanted: &[&str]| match known(of) {
        Some(found) if !wanted.contains(&found) => {
            Err(format!("{what} needs {}, not {found}: this can never run", wanted.join(" or ")))
        }
        _ => Ok(()),
    };
    match node {
        Node::Not(of) => needs("not", of, &[TRUTH]),
        Node::Negative(of) => needs("a minus", of, &[NUMBER]),
        Node::If { condition, .. } => needs("if", condition, &[TRUTH]),
        Node::Binary { sign: sign @ (Binary::And | Binary::Or), left, right } => {
            needs(sign.sign(), left, &[TRUTH])?;
            needs(sign.sign(), right, &[TRUTH])
        }
        Node::Binary { sign: Binary::Equal | Binary::Unequal | Binary::In | Binary::Join, .. } => Ok(()),
        Node::Binary { sign, left, right } => {
            let wanted: &[&str] = match sign {
                Binary::Add => &[NUMBER, TEXT, "a list"],
                sign if is_arithmetic(*sign) => &[NUMBER],
                _ => &[NUMBER, TEXT],
            };
            needs(sign.sign(), left, wanted)?;
            needs(sign.sign(), right, wanted)?;
            match (known(left), known(right)) {
                (Some(left), Some(right)) if left != right => Err(format!(
                    "{} needs two values of one kind, not {left} and {right}: this can never run",
                    sign.sign()
                )),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
