//! Owns the one thread that writes: takes what waits, decides, one frame, one sync, blocks, publish, answer.
//! Must never answer before the sync, and must never sync again after one failed.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::anchor::Anchor;
use crate::journal::frame::FRAME_HEADER_LEN;
use crate::journal::record::{Names, encode};
use crate::journal::{FrameBuffer, Journal, WriteError};
use crate::live::Page;
use crate::log::{Append, AppendError, Head, Refusal};
use crate::options::Options;
use crate::planted::Planted;
use crate::sled_log::block::{self, Blocks};
use crate::sled_log::fence::Fence;
use crate::sled_log::folder;
use crate::sled_log::generation::{Generation, Index};
use crate::sled_log::ledger::{Ledger, Verdict};
use crate::sled_log::queue::{Answer, Command, Taken};
use crate::sled_log::shared::Shared;
use crate::sled_log::space::Space;

/// How long readers may hold the blocks of a generation that is closed.
const READERS_WAIT: Duration = Duration::from_secs(5);

/// The writing thread's state.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    /// The newest generation.
    pub(crate) generation: Arc<Generation>,
    /// Its journal.
    pub(crate) journal: Journal,
    pub(crate) ledger: Ledger,
    pub(crate) options: Options,
    pub(crate) frame: FrameBuffer,
    pub(crate) names: Names,
    pub(crate) space: Space,
    /// Threads that put away the blocks of sealed generations.
    pub(crate) retiring: Vec<JoinHandle<()>>,
    /// Held for as long as the log is open.
    pub(crate) lock: File,
    /// Asked before each write, and again before it counts.
    pub(crate) fence: Fence,
    /// The data folder as it was opened.
    pub(crate) anchor: Anchor,
    /// Whether the folder was in its place when the last commit began.
    pub(crate) in_place: bool,
    /// Whether it was said that there is no space for a watermark.
    pub(crate) unnoted_told: bool,
}

/// So many times longer the writer waits to note what there was no space to note.
const FULL_PAUSES: u32 = 50;

/// One commit in the making.
#[derive(Default)]
struct Commit {
    answers: Vec<(Answer, Head)>,
    /// Answered after the commit too, since a conflict may be with something staged.
    refused: Vec<(Answer, AppendError)>,
    barriers: Vec<oneshot::Sender<()>>,
    events: Page,
}

impl Writer {
    /// Works until the queue is closed and empty, then ends the log.
    pub(crate) fn run(mut self) {
        let idle = Duration::from_millis(self.options.idle_ms);
        loop {
            let unnoted = !self.journal.is_noted() && !self.shared.has_failed();
            let pause = if self.unnoted_told { idle * FULL_PAUSES } else { idle };
            match self.shared.queue.take(unnoted.then_some(pause)) {
                Taken::Commands(commands) => {
                    self.options.faults.pass();
                    self.commit(commands);
                }
                Taken::Idle => self.note_durable(),
                Taken::Closed => break,
            }
        }
        self.finish();
    }

    fn commit(&mut self, commands: Vec<Command>) {
        let mut commit = Commit::default();
        self.check_place();
        self.check_files();
        for command in commands {
            match command {
                Command::Append { append, answer, .. } => self.stage(append, answer, &mut commit),
                Command::Barrier { answer } => commit.barriers.push(answer),
            }
        }
        let written = !self.frame.is_empty();
        if Planted::AnswerBeforeSync.is_asked_for() {
            let answers = std::mem::take(&mut commit.answers);
            Commit { answers, ..Commit::default() }.answer(&Ok(()));
        }
        let outcome = if written { self.write(std::mem::take(&mut commit.events)) } else { Ok(()) };
        if outcome.is_err() {
            self.ledger.discard();
        }
        self.frame.clear();
        commit.answer(&outcome);
        if let Err(WriteError::Failed(error)) = outcome {
            self.shared.fail(error);
        }
    }

    /// Makes an append part of the commit, or answers it. A caller that no longer listens is no concern here.
    fn stage(&mut self, append: Append, answer: Answer, commit: &mut Commit) {
        let refused = match self.ledger.judge(&append) {
            _ if self.shared.has_failed() => AppendError::Closed,
            Verdict::Repeated(head) => {
                let _ = answer.send(Ok(head));
                return;
            }
            Verdict::Staged(head) => {
                commit.answers.push((answer, head));
                return;
            }
            Verdict::No(error) => error,
            Verdict::New if !self.in_place || self.space.is_low(&self.shared.folder, &self.options) => {
                AppendError::Refused { reason: Refusal::StorageFull }
            }
            Verdict::New => {
                let Self { ledger, frame, names, .. } = self;
                let head = ledger.stage(append, names, |event, previous| {
                    frame.record(|bytes| encode(&event, previous, bytes));
                    commit.events.push(Arc::new(event));
                });
                commit.answers.push((answer, head));
                return;
            }
        };
        commit.refused.push((answer, refused));
    }

    /// Makes the frame durable, then visible.
    fn write(&mut self, events: Page) -> Result<(), WriteError> {
        if !self.journal.is_empty() && self.is_full(events.len()) {
            self.roll()?;
        }
        let offset = self.journal.end() + FRAME_HEADER_LEN as u64;
        self.journal.append(&mut self.frame)?;
        // Whoever took over since the write may not have read it.
        self.fence.holds().map_err(WriteError::Failed)?;
        self.space.wrote(self.frame.payload().len() as u64);
        let generation = &self.generation;
        if let Some(blocks) = generation.blocks()
            && let Err(error) = blocks.put(offset, self.frame.payload())
        {
            tracing::warn!(%error, "going on without blocks: reads of this generation use the journal");
            generation.set_blocks(None);
        }
        generation.extend(offset, self.frame.payload());
        self.ledger.commit();
        self.shared.feed.publish(events);
        Ok(())
    }

    /// Whether the generation has no room for the frame, which holds so many events.
    fn is_full(&self, events: usize) -> bool {
        let held = self.ledger.last().get() - self.generation.after.get();
        self.journal.end_with(&self.frame) > self.options.generation_bytes_max
            || held + events as u64 > self.options.generation_events_max
    }

    /// Seals the generation and begins the next.
    fn roll(&mut self) -> Result<(), WriteError> {
        let (number, after) = (self.generation.number + 1, self.ledger.last());
        let (chain, place) = (self.journal.chain(), self.journal.place());
        let (folder, faults) = (&self.shared.folder, &self.options.faults);
        self.journal = folder::create_generation(folder, number, after.get(), chain, faults, &self.fence)?;
        let path = folder::generation(&self.shared.folder, number);
        let (header, file) = (self.journal.header(), Arc::clone(self.journal.file()));
        let generation = Generation::new(path, header, file, Index::default());
        generation.set_blocks(create_blocks(&generation.folder).map(Arc::new));
        let sealed = std::mem::replace(&mut self.generation, Arc::new(generation));
        self.shared.push(Arc::clone(&self.generation));
        self.retiring.retain(|thread| !thread.is_finished());
        let shared = Arc::clone(&self.shared);
        self.retiring.push(thread::spawn(move || {
            shared.look_at_sealed(&sealed, place);
            retire(&sealed);
        }));
        tracing::info!(generation = number, "began a generation");
        Ok(())
    }

    /// What is written to a folder that was moved would not be found by the next start.
    fn check_place(&mut self) {
        let was_in_place = std::mem::replace(&mut self.in_place, self.anchor.is_in_place());
        match (was_in_place, self.in_place) {
            (true, false) => tracing::error!("the data folder is not in its place: nothing is stored"),
            (false, true) => tracing::info!("the data folder is in its place again"),
            _ => {}
        }
    }

    /// A log that somebody else has taken over, or whose journal is not whole, is not written to any more.
    fn check_files(&self) {
        if self.shared.has_failed() {
            return;
        }
        let journal = || if self.in_place { self.journal.holds(&self.generation.folder) } else { Ok(()) };
        if let Err(error) = self.fence.holds().and_then(|()| journal()) {
            self.shared.fail(error);
        }
    }

    /// Without this note a damaged last frame could pass for a torn tail.
    fn note_durable(&mut self) {
        self.check_files();
        if self.shared.has_failed() {
            return;
        }
        match self.journal.watermark() {
            Ok(()) => self.unnoted_told = false,
            Err(WriteError::Full) if self.unnoted_told => {}
            Err(WriteError::Full) => {
                self.unnoted_told = true;
                tracing::warn!("no space to note how far the journal is durable: it is tried again");
            }
            Err(WriteError::Failed(error)) => self.shared.fail(error),
        }
    }

    fn finish(mut self) {
        for thread in self.retiring.drain(..) {
            // It only deletes what opening the log would delete as well.
            let _ = thread.join();
        }
        let abandoned = self.options.faults.abandoned();
        if !self.journal.is_noted() && !abandoned {
            self.note_durable();
        }
        self.check_files();
        let complete = close_blocks(&self.generation) && !abandoned && !self.shared.has_failed();
        if complete && let Err(error) = folder::write_marker(&self.generation.folder, self.journal.end()) {
            tracing::warn!(%error, "cannot note the clean close: the next start rebuilds the blocks");
        }
        drop(self.lock);
        self.shared.end();
    }
}

impl Commit {
    fn answer(self, outcome: &Result<(), WriteError>) {
        for (answer, head) in self.answers {
            let heard = match outcome {
                Ok(()) => Ok(head),
                Err(WriteError::Full) => Err(AppendError::Refused { reason: Refusal::StorageFull }),
                Err(WriteError::Failed(_)) => Err(AppendError::OutcomeUnknown),
            };
            let _ = answer.send(heard);
        }
        for (answer, error) in self.refused {
            let _ = answer.send(Err(error));
        }
        for barrier in self.barriers {
            let _ = barrier.send(());
        }
    }
}

/// Empty blocks for a generation, or none if sled does not work.
pub(crate) fn create_blocks(generation: &Path) -> Option<Blocks> {
    Blocks::create(generation)
        .inspect_err(|error| tracing::warn!(%error, "no blocks: reads of this generation use the journal"))
        .ok()
}

/// Takes the blocks of a sealed generation away, since its journal has everything.
fn retire(sealed: &Generation) {
    if let Some(blocks) = sealed.set_blocks(None) {
        drop(block::last_handle(blocks, Instant::now() + READERS_WAIT));
    }
    if let Err(error) = Blocks::remove(&sealed.folder) {
        tracing::warn!(%error, generation = sealed.number, "cannot delete sealed blocks");
    }
}

/// Whether the blocks are complete on the disk.
fn close_blocks(newest: &Generation) -> bool {
    let Some(blocks) = newest.set_blocks(None) else { return false };
    let Some(blocks) = block::last_handle(blocks, Instant::now() + READERS_WAIT) else { return false };
    blocks.close().inspect_err(|error| tracing::warn!(%error, "cannot close the blocks")).is_ok()
}
