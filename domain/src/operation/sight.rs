//! What the expressions of one decision can see. Each value is made once, however many expressions of
//! however many steps read it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::json;

use crate::operation::Operation;
use crate::operation::event::StepError;
use crate::operation::expression::{self, Fault, Scope, Seen};
use crate::{Json, OperationId};

/// How a step stands by the decision that is being made; the run does not know of it yet.
#[derive(Clone, Debug)]
pub(crate) struct Now {
    pub(crate) status: &'static str,
    pub(crate) result: Option<Json>,
    pub(crate) error: Option<StepError>,
}

/// The state, and what this decision has added to it.
pub(crate) struct Sight<'o> {
    id: &'o OperationId,
    operation: &'o Operation,
    now: BTreeMap<usize, Now>,
    seen_operation: Option<Seen>,
    seen: HashMap<usize, Seen>,
}

impl<'o> Sight<'o> {
    pub(crate) fn new(id: &'o OperationId, operation: &'o Operation) -> Self {
        Self { id, operation, now: BTreeMap::new(), seen_operation: None, seen: HashMap::new() }
    }

    /// The step at `position` is settled by this decision.
    pub(crate) fn settle(&mut self, position: usize, now: Now) {
        self.now.insert(position, now);
    }

    /// Whether this decision settles the step at `position`.
    pub(crate) fn settles(&self, position: usize) -> bool {
        self.now.contains_key(&position)
    }

    /// Positions that this decision settles.
    pub(crate) fn settled(&self) -> impl ExactSizeIterator<Item = usize> {
        self.now.keys().copied()
    }

    /// What an expression that reads these steps can see.
    pub(crate) fn scope(&mut self, read: &BTreeSet<u32>) -> Scope {
        let mut scope = Scope { operation: self.operation_seen(), ..Scope::default() };
        for number in read {
            if let Some(position) = self.operation.run.skeleton.position(*number) {
                scope.steps.insert(*number, self.step_seen(position, *number));
            }
        }
        scope
    }

    /// Inputs with every expression resolved, of at most `max` bytes.
    pub(crate) fn inputs(&mut self, asked: &Json, max: usize) -> Result<Json, Fault> {
        let inputs = if asked.as_str().contains("{{") {
            let asked = asked.value();
            let read = expression::references(&asked)?;
            Json::from(expression::render(&asked, &self.scope(&read))?)
        } else {
            asked.clone()
        };
        let bytes = inputs.len();
        if bytes > max {
            let message = format!("the resolved inputs have {bytes} bytes, at most {max} are allowed");
            return Err(Fault { code: "too_large", message });
        }
        Ok(inputs)
    }

    fn step_seen(&mut self, position: usize, number: u32) -> Seen {
        if let Some(seen) = self.seen.get(&position) {
            return seen.clone();
        }
        let run = &self.operation.run.steps[position];
        let (status, result, error) = match self.now.get(&position) {
            Some(now) => (now.status, now.result.as_ref(), now.error.as_ref()),
            None => (run.status.name(), self.operation.results.get(&number), run.error.as_deref()),
        };
        let error = error.map(|error| json!({"code": error.code, "message": error.message}));
        let shown = json!({"result": result.map(Json::value), "status": status, "error": error});
        let seen = Seen::from(&shown);
        self.seen.insert(position, seen.clone());
        seen
    }

    fn operation_seen(&mut self) -> Seen {
        let (id, definition) = (self.id, &self.operation.definition);
        let seen = self.seen_operation.get_or_insert_with(|| {
            let shown = json!({
                "id": id.to_string(),
                "name": definition.name,
                "metadata": definition.metadata.value(),
            });
            Seen::from(&shown)
        });
        seen.clone()
    }
}
