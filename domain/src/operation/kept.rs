//! An operation as a snapshot holds it: without what follows from the definition, and without a definition
//! twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Operation;
use super::definition::Definition;
use super::step::{Run, Skeleton};
use crate::{Json, Timestamp};

/// An operation's state, to be stored. Turns into the operation again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    definition: Definition,
    /// None when it was never updated.
    asked: Option<Definition>,
    run: Run,
    results: BTreeMap<u32, Json>,
    results_bytes: usize,
    checkpoints: BTreeMap<u32, Json>,
    inputs: BTreeMap<u32, Json>,
    titles: BTreeMap<u32, String>,
    status_reason: Option<String>,
    errors: Vec<String>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
}

impl From<&Operation> for Kept {
    fn from(operation: &Operation) -> Self {
        let Operation { definition, asked, run, results, results_bytes, checkpoints, inputs, titles, .. } =
            operation.clone();
        let updated = asked != definition;
        Self {
            definition: (*definition).clone(),
            asked: updated.then(|| (*asked).clone()),
            run,
            results,
            results_bytes,
            checkpoints,
            inputs,
            titles,
            status_reason: operation.status_reason.clone(),
            errors: operation.errors.clone(),
            created_at: operation.created_at,
            started_at: operation.started_at,
            completed_at: operation.completed_at,
        }
    }
}

impl From<Kept> for Operation {
    fn from(kept: Kept) -> Self {
        let definition = Arc::new(kept.definition);
        let mut run = kept.run;
        run.skeleton = Arc::new(Skeleton::of(Arc::clone(&definition.workflow)));
        Self {
            asked: kept.asked.map_or_else(|| Arc::clone(&definition), Arc::new),
            definition,
            run,
            results: kept.results,
            results_bytes: kept.results_bytes,
            checkpoints: kept.checkpoints,
            inputs: kept.inputs,
            titles: kept.titles,
            status_reason: kept.status_reason,
            errors: kept.errors,
            created_at: kept.created_at,
            started_at: kept.started_at,
            completed_at: kept.completed_at,
        }
    }
}
