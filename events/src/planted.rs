//! Owns the faults that are planted on purpose, so that the harness can show that it finds them. Must never
//! do anything unless `PHOTON_PLANTED` names the fault, nor be there without the feature `testing`.

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// The journal is not synced.
    SyncRemoved,
    /// Folders are not synced.
    FolderSyncRemoved,
    /// The answer is given before the journal is synced.
    AnswerBeforeSync,
    /// What was durable is cut off like a torn tail, and a torn tail is damage.
    TornTailRuleReversed,
    /// A tail begins one event too late.
    ResumeOffByOne,
    /// The queue takes whatever comes.
    BufferUnbounded,
}

impl Planted {
    /// Whether this fault was asked for.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn is_asked_for(self) -> bool {
        static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let asked = NAME.get_or_init(|| std::env::var("PHOTON_PLANTED").ok());
        let name = match self {
            Self::SyncRemoved => "sync_removed",
            Self::FolderSyncRemoved => "folder_sync_removed",
            Self::AnswerBeforeSync => "answer_before_sync",
            Self::TornTailRuleReversed => "torn_tail_rule_reversed",
            Self::ResumeOffByOne => "resume_off_by_one",
            Self::BufferUnbounded => "buffer_unbounded",
        };
        asked.as_deref() == Some(name)
    }

    /// Never.
    #[cfg(not(any(test, feature = "testing")))]
    pub(crate) const fn is_asked_for(self) -> bool {
        false
    }
}
