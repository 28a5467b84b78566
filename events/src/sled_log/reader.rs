//! Owns reading what is stored: a stream from its head backwards, the whole log page by page.
//! Must never run on an async thread: every page is fetched on a blocking one.

use std::io;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, TryStreamExt, future, stream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::journal::record::Names;
use crate::live::{History, Page};
use crate::log::{BoxFuture, EventStream, ReadError, Since};
use crate::record::Recorded;
use crate::sled_log::shared::Shared;
use crate::stream::{Position, StreamId, Version};

/// How many bytes of a stream are held at once; a reader that waits for its own reader holds them too.
const STREAM_PAGE_BYTES: usize = 128 << 10;

impl History for Shared {
    fn page(&self, after: Position, bytes: u64) -> BoxFuture<'static, Result<Page, ReadError>> {
        let generations = self.generations_after(after);
        off_thread(&self.page_reads, move || {
            let mut pages = generations.iter().map(|generation| generation.page(after, bytes));
            pages.find(|page| !matches!(page, Ok(page) if page.is_empty())).unwrap_or(Ok(Page::new()))
        })
    }
}

/// The events of a stream since a place, oldest first.
pub(crate) fn read(shared: Arc<Shared>, stream: &StreamId, since: Since) -> EventStream {
    // The head is taken now: what is appended later belongs to later reads.
    let head = shared.heads.read().get(stream.as_str());
    let Some(head) = head.filter(|head| since.is_before(head.version, head.position)) else {
        return stream::empty().boxed();
    };
    let reads = Arc::clone(&shared.stream_reads);
    let walk = Walk { shared, stream: stream.clone(), since, names: Names::default() };
    let begin = move |mut walk: Walk| walk.back_from(head.version, head.position).map(|left| (walk, left));
    stream::once(off_thread(&reads, move || begin(walk)))
        .map_ok(|(walk, left)| stream::try_unfold((walk, left), |(walk, left)| next_page(walk, left)))
        .try_flatten()
        .map_ok(|page| stream::iter(page.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

/// What is still to be given out of a stream.
struct Left {
    /// Where the older events are, newest first.
    older: Vec<Position>,
    /// The newest events, newest first, as many as may be held.
    newest: Page,
}

async fn next_page(mut walk: Walk, mut left: Left) -> Result<Option<(Page, (Walk, Left))>, ReadError> {
    if left.older.is_empty() {
        let mut page = std::mem::take(&mut left.newest);
        page.reverse();
        return Ok((!page.is_empty()).then_some((page, (walk, left))));
    }
    let reads = Arc::clone(&walk.shared.stream_reads);
    let fetch = move || {
        let page = walk.forward(&mut left.older)?;
        Ok((page, (walk, left)))
    };
    off_thread(&reads, fetch).await.map(Some)
}

/// A walk along the records of one stream.
struct Walk {
    shared: Arc<Shared>,
    stream: StreamId,
    since: Since,
    names: Names,
}

impl Walk {
    /// Follows the stream from its head backwards, and keeps what it meets first.
    fn back_from(&mut self, mut version: Version, mut position: Position) -> Result<Left, ReadError> {
        let mut left = Left { older: Vec::new(), newest: Page::new() };
        let mut bytes = 0;
        while version > Version::NONE && self.since.is_before(version, position) {
            let (event, previous) = self.event(position, version)?;
            bytes += size_of::<Recorded>() + event.metadata.len() + event.body.len();
            if bytes <= STREAM_PAGE_BYTES || left.newest.is_empty() {
                left.newest.push(Arc::new(event));
            } else {
                left.older.push(position);
            }
            (version, position) = (Version::new(version.get() - 1), previous);
        }
        Ok(left)
    }

    /// Reads the oldest of the positions that are left, and takes them off.
    fn forward(&mut self, older: &mut Vec<Position>) -> Result<Page, ReadError> {
        let mut page = Page::new();
        let mut bytes = 0;
        while bytes < STREAM_PAGE_BYTES
            && let Some(position) = older.pop()
        {
            let generation = self.shared.generation_after(before(position))?;
            let event = generation.record(position, &mut self.names)?.event;
            bytes += size_of::<Recorded>() + event.metadata.len() + event.body.len();
            page.push(Arc::new(event));
        }
        Ok(page)
    }

    fn event(&mut self, position: Position, version: Version) -> Result<(Recorded, Position), ReadError> {
        let generation = self.shared.generation_after(before(position))?;
        let found = generation.record(position, &mut self.names)?;
        if found.event.stream != self.stream || found.event.version != version || found.previous >= position {
            return Err(generation.damage(0, position, "a record is not where its stream says"));
        }
        Ok((found.event, found.previous))
    }
}

fn before(position: Position) -> Position {
    Position::new(position.get().saturating_sub(1))
}

/// Starts work that may wait for the disk: on a blocking thread if there is a runtime, else here and now. A
/// turn is waited for without a thread, so that many readers take few of the threads that all requests share.
fn off_thread<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> BoxFuture<'static, Result<T, ReadError>> {
    match Handle::try_current() {
        Ok(runtime) => {
            let turn = Arc::clone(turns).acquire_owned();
            let working = turn.then(move |turn| {
                runtime.spawn_blocking(move || {
                    let _turn = turn;
                    work()
                })
            });
            working.map(|done| done.unwrap_or_else(|lost| Err(io::Error::other(lost).into()))).boxed()
        }
        Err(_) => future::ready(work()).boxed(),
    }
}
