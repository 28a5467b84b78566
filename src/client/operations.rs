//! The calls about operations and their history.

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;

use super::{Call, Client, ClientError, written};
use crate::http::event_view::EventView;
use crate::http::operation_view::{OperationSummary, OperationView, StepView};
use crate::http::past::ReplayView;
use crate::http::planning::PlanView;

/// Longest wait for a replay: the server needs seconds for a million events.
const REPLAY_MAX: Duration = Duration::from_secs(60);
const OPERATIONS: [&str; 3] = ["api", "v1", "operations"];

/// The longest wait that the server grants a long poll.
const WAIT_MAX: Duration = Duration::from_secs(55);

impl Client {
    /// Creates an operation from any JSON, so that the server can name every fault of it.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn create_operation(
        &self,
        definition: &impl Serialize,
        key: Option<&str>,
    ) -> Result<OperationView, ClientError> {
        self.data(Call::post(&OPERATIONS, definition)?.key(key)).await
    }

    /// How an operation would run, checked as a creation would check it.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn plan_operation(&self, definition: &impl Serialize) -> Result<PlanView, ClientError> {
        self.data(Call::post(&OPERATIONS, definition)?.query("dryRun", "true").question()).await
    }

    /// Operations, newest first.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn operations(
        &self,
        filters: &[(&str, String)],
        most: usize,
    ) -> Result<Vec<OperationSummary>, ClientError> {
        self.items(&OPERATIONS, filters, most).await
    }

    /// One operation as it stands.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn operation(&self, id: &str) -> Result<OperationView, ClientError> {
        let [api, version, operations] = OPERATIONS;
        self.data(Call::get(&[api, version, operations, id])).await
    }

    /// One operation as it stood at a position or a time; as it stands when none is given.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn operation_at(&self, id: &str, at: Option<&str>) -> Result<OperationView, ClientError> {
        let [api, version, operations] = OPERATIONS;
        let mut call = Call::get(&[api, version, operations, id]);
        if let Some(at) = at {
            call = call.query("at", at);
        }
        self.data(call).await
    }

    /// What the log comes to when it is folded from its beginning.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn replay(&self, to: Option<&str>, check: bool) -> Result<ReplayView, ClientError> {
        let mut call = Call::get(&["api", "v1", "replay"]).within(REPLAY_MAX);
        if let Some(to) = to {
            call = call.query("to", to);
        }
        if check {
            call = call.query("check", "true");
        }
        self.data(call).await
    }

    /// One operation once it has ended or reached a revision, or as it stands after the wait.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn operation_after(
        &self,
        id: &str,
        wait: Duration,
        min_revision: Option<u64>,
    ) -> Result<OperationView, ClientError> {
        let [api, version, operations] = OPERATIONS;
        let wait = wait.min(WAIT_MAX);
        let mut call = Call::get(&[api, version, operations, id]).query("wait", written(wait)).waits(wait);
        if let Some(revision) = min_revision {
            call = call.query("minRevision", revision.to_string());
        }
        self.data(call).await
    }

    /// Cancels an operation.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn cancel_operation(&self, id: &str) -> Result<OperationView, ClientError> {
        let [api, version, operations] = OPERATIONS;
        self.data(Call::new(Method::DELETE, &[api, version, operations, id])).await
    }

    /// Says something about an operation: `pause`, `resume`.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn operation_word(
        &self,
        id: &str,
        word: &str,
        body: &impl Serialize,
    ) -> Result<OperationView, ClientError> {
        let [api, version, operations] = OPERATIONS;
        self.data(Call::post(&[api, version, operations, id, word], body)?).await
    }

    /// Says something about a step: `approve`, `reject`, `retry`, `skip` or `resolve`.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn step_word(
        &self,
        id: &str,
        step: u32,
        word: &str,
        body: &impl Serialize,
    ) -> Result<StepView, ClientError> {
        let [api, version, operations] = OPERATIONS;
        let step = step.to_string();
        self.data(Call::post(&[api, version, operations, id, "steps", &step, word], body)?).await
    }

    /// Events of the whole log or of one stream, as `filters` say.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn events(
        &self,
        filters: &[(&str, String)],
        most: usize,
    ) -> Result<Vec<EventView>, ClientError> {
        self.items(&["api", "v1", "events"], filters, most).await
    }
}
