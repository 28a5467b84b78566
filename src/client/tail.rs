//! The stream of events, as server-sent events (WHATWG HTML, section 9.2; of it what Photon sends: one
//! `data` line a frame). It must never come back by itself: who reads decides when to try again.

use std::time::Duration;

use reqwest::Response;

use super::{Call, Client, ClientError, Refusal, retry_after};

/// Longest silence of a stream that lives: it says something every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Largest frame: an event with the largest body, escaped as JSON.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// One frame of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Where to resume; none for what only passes by.
    pub id: Option<String>,
    /// The event's type, `bookmark` or `bye`.
    pub name: String,
    /// JSON.
    pub data: String,
}

/// An open stream.
pub struct Tail {
    client: Client,
    response: Response,
    buffer: Vec<u8>,
    /// No frame ends before here.
    searched: usize,
    /// How soon the server wants to be asked again once the stream has ended, when it said so.
    retry: Option<Duration>,
}

impl Client {
    /// Opens the stream of events; `after` is the sequence that was seen last, of the
    /// history `epoch`.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn tail(
        &self,
        filters: &[(&'static str, String)],
        after: Option<&str>,
        epoch: Option<&str>,
    ) -> Result<Tail, ClientError> {
        let call = Call::get(&["api", "v1", "events", "stream"]);
        let mut request = self.http.request(call.method, self.url(&call.path)?).query(filters);
        if let Some(epoch) = epoch {
            request = request.query(&[("epoch", epoch)]);
        }
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let answer = tokio::time::timeout(call.within, request.send()).await;
        let response = answer.map_err(|_| self.silent())?.map_err(|cause| self.transport(&cause, false))?;
        if !response.status().is_success() {
            let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
            let bytes = self.read(response, false).await?;
            return Err(ClientError::Refused(Box::new(Refusal::of(status, retry_after, &bytes))));
        }
        Ok(Tail { client: self.clone(), response, buffer: Vec::new(), searched: 0, retry: None })
    }

    fn silent(&self) -> ClientError {
        ClientError::TimedOut { server: self.server().to_owned() }
    }
}

impl Tail {
    /// How soon the server wants to be asked again once the stream has ended, when it said so.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The next frame; none once the server has ended the stream.
    ///
    /// # Errors
    /// When the connection breaks or falls silent.
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            while let Some(block) = self.block() {
                let block = String::from_utf8_lossy(&block);
                self.retry = retry(&block).or(self.retry);
                if let Some(frame) = parsed(&block) {
                    return Ok(Some(frame));
                }
            }
            let chunk = tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await;
            let chunk = chunk.map_err(|_| self.client.silent())?;
            match chunk.map_err(|cause| self.client.transport(&cause, false))? {
                None => return Ok(None),
                Some(chunk) if self.buffer.len() + chunk.len() > FRAME_BYTES_MAX => {
                    return Err(self.client.unreadable("an event is too large"));
                }
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
            }
        }
    }

    /// Takes the lines up to the next empty one.
    fn block(&mut self) -> Option<Vec<u8>> {
        let found = self.buffer[self.searched..].windows(2).position(|pair| pair == b"\n\n");
        let Some(found) = found else {
            self.searched = self.buffer.len().saturating_sub(1);
            return None;
        };
        let end = self.searched + found + 2;
        self.searched = 0;
        Some(self.buffer.drain(..end).collect())
    }
}

/// What a block of lines says; nothing for comments and settings.
fn parsed(block: &str) -> Option<Frame> {
    let mut frame = Frame::default();
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => frame.id = Some(id.to_owned()),
            Some(("event", name)) => frame.name = name.to_owned(),
            Some(("data", data)) => frame.data = data.to_owned(),
            _ => {}
        }
    }
    (!frame.data.is_empty()).then_some(frame)
}

/// How soon to come back, if a block of lines says it.
fn retry(block: &str) -> Option<Duration> {
    let milliseconds = block.lines().find_map(|line| line.strip_prefix("retry: "))?;
    Some(Duration::from_millis(milliseconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_an_event_a_bookmark_or_nothing() {
        let frame = parsed("id: 7\nevent: operation.created\ndata: {\"a\": \"b: c\"}\n\n").unwrap();
        assert_eq!((frame.id.as_deref(), frame.name.as_str()), (Some("7"), "operation.created"));
        assert_eq!(frame.data, r#"{"a": "b: c"}"#);
        assert_eq!(parsed("event: agent.heartbeat\ndata: {}\n\n").unwrap().id, None);
        assert!(parsed(":\n\n").is_none() && parsed("retry: 2000\n\n").is_none());
    }

    #[test]
    fn a_server_without_room_says_when_to_come_back() {
        let full = "retry: 10000\n: 2 streams are open\n\n";
        assert_eq!((retry(full), parsed(full)), (Some(Duration::from_secs(10)), None));
        assert_eq!(retry("id: 7\ndata: retry: 5\n\n"), None);
    }
}
