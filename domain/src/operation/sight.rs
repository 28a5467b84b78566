//! What the expressions of one decision can see. Each value is made once, however many expressions of
//! however many steps read it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::operation::Operation;
use crate::operation::definition::StepDefinition;
use crate::operation::event::StepError;
use crate::operation::expression::{self, ExpressionError, Scope};
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
    shown_operation: Option<Arc<Value>>,
    shown: HashMap<usize, Arc<Value>>,
}

impl<'o> Sight<'o> {
    pub(crate) fn new(id: &'o OperationId, operation: &'o Operation) -> Self {
        Self { id, operation, now: BTreeMap::new(), shown_operation: None, shown: HashMap::new() }
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
        let mut scope = Scope { operation: self.operation_shown(), ..Scope::default() };
        for number in read {
            if let Some(position) = self.operation.run.skeleton.position(*number) {
                scope.steps.insert(*number, self.step_shown(position, *number));
            }
        }
        scope
    }

    /// Inputs with every mark replaced by what it yields, of at most `max` bytes.
    pub(crate) fn inputs(&mut self, asked: &Json, max: usize) -> Result<Json, ExpressionError> {
        let inputs = if expression::may_hold_mark(asked.as_str()) {
            let asked = asked.value();
            let read = expression::outlook(&asked)?.steps();
            let inputs = Json::from(expression::render(&asked, &self.scope(&read))?);
            if let Some(why) = inputs.unstorable() {
                let message = format!("the resolved inputs {why}");
                return Err(ExpressionError { code: "invalid_inputs", message });
            }
            inputs
        } else {
            asked.clone()
        };
        let bytes = inputs.len();
        if bytes > max {
            let message = format!("the resolved inputs have {bytes} bytes, at most {max} are allowed");
            return Err(ExpressionError { code: "too_large", message });
        }
        Ok(inputs)
    }

    /// Whether a condition holds.
    pub(crate) fn holds(&mut self, condition: &str) -> Result<bool, ExpressionError> {
        let read = expression::condition_steps(condition)?;
        expression::holds(condition, &self.scope(&read))
    }

    /// The title of a step that has one, as far as it can be resolved.
    pub(crate) fn title(&mut self, step: &StepDefinition) -> Option<String> {
        let title = step.title.as_deref()?;
        let read = expression::title_steps(title).unwrap_or_default();
        Some(expression::title(title, &self.scope(&read)))
    }

    fn step_shown(&mut self, position: usize, number: u32) -> Arc<Value> {
        if let Some(shown) = self.shown.get(&position) {
            return Arc::clone(shown);
        }
        let run = &self.operation.run.steps[position];
        let (status, result, error) = match self.now.get(&position) {
            Some(now) => (now.status, now.result.as_ref(), now.error.as_ref()),
            None => (run.status.name(), self.operation.results.get(&number), run.error.as_deref()),
        };
        let error = error.map(|error| json!({"code": error.code, "message": error.message}));
        let shown = json!({"result": result.map(Json::value), "status": status, "error": error});
        let shown = Arc::new(shown);
        self.shown.insert(position, Arc::clone(&shown));
        shown
    }

    fn operation_shown(&mut self) -> Arc<Value> {
        let (id, definition) = (self.id, &self.operation.definition);
        let shown = self.shown_operation.get_or_insert_with(|| {
            Arc::new(json!({
                "id": id.to_string(),
                "name": definition.name,
                "metadata": definition.metadata.value(),
            }))
        });
        Arc::clone(shown)
    }
}
