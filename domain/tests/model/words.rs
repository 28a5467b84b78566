//! What the model can be asked about a step, by agents, by people and by time, and how a lease can end. Says
//! nothing of what becomes of it.

/// How an attempt fails by its agent's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Another attempt may help.
    Flaky,
    /// None does.
    Broken,
    /// None does, which says nothing of the agent.
    Invalid,
    /// Nobody knows whether it took effect.
    Unknown,
}

impl Failure {
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Flaky => "flaky",
            Self::Broken => "broken",
            Self::Invalid => "invalid",
            Self::Unknown => "unknown_outcome",
        }
    }
}

/// Why a lease is over without a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Ignored,
    Silent,
    Unregistered,
    Anew,
    Revoked,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Completed {
        ms: u64,
    },
    Failed,
    /// It failed in a way that says nothing of the agent.
    Excused,
    Lost,
    Untaken,
    /// In a way that says nothing of the agent's work.
    Nothing,
}

/// What can be asked about a step.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// Offer it to an agent, by the claim of one of its lives.
    Reserve {
        agent: usize,
        life: u64,
    },
    Acknowledge,
    Progress(u8),
    Complete(u32),
    Fail(Failure),
    /// Given back; the provider may have said when it takes calls again.
    Release {
        reset_ms: Option<u64>,
    },
    /// The lease is over.
    Lose(Why),
    ExpireOffer(Why),
    /// The agent has stopped what was cancelled, or has had its time for that.
    Close,
    TimeOut,
}

/// What a person can say of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Approve,
    Reject,
    Retry,
    Skip,
    Complete(u32),
    Fail,
}

/// What the step asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// It must not happen twice.
    Write,
    /// A person's yes.
    Human,
}
