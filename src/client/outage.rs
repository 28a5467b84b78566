//! Owns how a caller waits through an outage of the server, such as a restart.
//! It must never end a wait by itself, nor repeat what would be done twice.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Backoff, Client, ClientError};
use crate::http::operation_view::OperationView;

/// One long poll.
const POLL: Duration = Duration::from_secs(50);
/// What the last answer may take beyond the wait that it ends.
const SLACK: Duration = Duration::from_secs(1);

/// An outage of the server that a caller waits through.
#[derive(Debug, Default)]
pub struct Outage {
    backoff: Backoff,
}

impl Outage {
    /// How long to wait before the next try, and a sentence to say when this is the first failure.
    ///
    /// # Errors
    /// The failure itself when waiting would not help.
    pub fn pause(&mut self, failure: ClientError) -> Result<(Duration, Option<String>), ClientError> {
        let Some(cause) = failure.outage() else { return Err(failure) };
        let sentence = format!("The server is away: {cause}. It is asked again until it answers.");
        let news = self.backoff.is_fresh().then_some(sentence);
        Ok((self.backoff.next(failure.retry_after()), news))
    }

    /// The server has answered. A sentence to say when it had been away.
    pub fn over(&mut self) -> Option<String> {
        let over = std::mem::take(&mut self.backoff);
        (!over.is_fresh()).then(|| "The server is back.".to_owned())
    }

    /// Waits after a failure, up to a moment, and tells what there is to tell.
    async fn wait(
        &mut self,
        failure: ClientError,
        until: Option<Instant>,
        told: &mut dyn FnMut(&str),
    ) -> Result<(), ClientError> {
        let (pause, news) = self.pause(failure)?;
        news.iter().for_each(|news| told(news));
        sleep(until.map_or(pause, |until| pause.min(until - Instant::now()))).await;
        Ok(())
    }
}

impl Client {
    /// An operation once it has ended or reached a revision, however often the server is away meanwhile; as
    /// it was seen last when the time is over before. `told` hears about outages.
    ///
    /// # Errors
    /// When the question is refused.
    pub async fn operation_in_time(
        &self,
        mut seen: OperationView,
        revision: Option<u64>,
        until: Option<Instant>,
        told: &mut dyn FnMut(&str),
    ) -> Result<OperationView, ClientError> {
        let mut outage = Outage::default();
        let id = seen.id.clone();
        while !seen.has_ended() && revision.is_none_or(|revision| seen.revision < revision) {
            let now = Instant::now();
            let left = until.map_or(POLL, |until| until - now).min(POLL);
            if left.is_zero() {
                break;
            }
            let poll = self.operation_after(&id, left, revision);
            let answer = match until {
                // Also a server that accepts connections and says nothing ends no later.
                Some(until) => match timeout_at(until + SLACK, poll).await {
                    Ok(answer) => answer,
                    Err(_) => break,
                },
                None => poll.await,
            };
            match answer {
                Ok(operation) => {
                    outage.over().iter().for_each(|news| told(news));
                    seen = operation;
                }
                Err(failure) => outage.wait(failure, until, told).await?,
            }
        }
        Ok(seen)
    }

    /// Creates an operation. When the answer is lost it is asked for again under the same key until it comes,
    /// up to a moment: the operation is created once. `told` hears about outages.
    ///
    /// # Errors
    /// When it is refused, the server is not reached at all, or the outcome is still unknown in the end.
    pub async fn create_operation_once(
        &self,
        definition: &Value,
        key: &str,
        until: Instant,
        told: &mut dyn FnMut(&str),
    ) -> Result<OperationView, ClientError> {
        let unknown = match self.create_operation(definition, Some(key)).await {
            Err(failure) if failure.is_unknown() => failure,
            answer => return answer,
        };
        let (mut outage, mut failure) = (Outage::default(), unknown.clone());
        while Instant::now() < until {
            outage.wait(failure, Some(until), told).await?;
            match self.create_operation(definition, Some(key)).await {
                Err(again) if again.outage().is_some() => failure = again,
                answer => {
                    outage.over().iter().for_each(|news| told(news));
                    return answer;
                }
            }
        }
        Err(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    /// A server that answers each connection with the next of these bodies; with an empty one not at all.
    fn server(answers: Vec<(u16, Value)>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for (status, data) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).unwrap();
                heard.lock().unwrap().push(String::from_utf8_lossy(&bytes[..read]).into_owned());
                if data.is_null() {
                    continue;
                }
                let body = json!({"success": status < 400, "data": data, "requestId": "r", "timestamp": "t",
                    "processingTime": 1.0, "code": "draining", "error": "It stops."});
                let body = body.to_string();
                let head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
                let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (client, asked)
    }

    fn operation(status: &str, revision: u64) -> Value {
        json!({"id": "op_1", "name": "n", "priority": "medium", "status": status, "agents": [],
            "platforms": [], "workflow": [], "createdAt": "2026-11-28T10:00:00.000Z", "progress": 0,
            "revision": revision, "results": {}, "errors": [], "metadata": {},
            "failurePolicy": "fail_fast", "paused": false, "blockedOn": []})
    }

    fn soon(within: Duration) -> Instant {
        Instant::now() + within
    }

    #[actix_web::test]
    async fn a_lost_answer_to_a_creation_is_asked_for_again_under_the_same_key() {
        let answers = vec![(0, Value::Null), (503, json!({})), (201, operation("pending", 1))];
        let (client, asked) = server(answers);
        let mut told = Vec::new();
        let until = soon(Duration::from_secs(30));
        let mut tell = |news: &str| told.push(news.to_owned());
        let made = client.create_operation_once(&json!({}), "key-1", until, &mut tell).await.unwrap();
        assert_eq!(made.id, "op_1");
        let asked = asked.lock().unwrap();
        assert!(asked.len() == 3 && asked.iter().all(|head| head.contains("idempotency-key: key-1")));
        assert!(told.len() == 2 && told[0].contains("is away") && told[1].contains("is back"), "{told:?}");
    }

    #[actix_web::test]
    async fn a_creation_that_nobody_heard_or_that_stays_unanswered_says_which_of_the_two() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let away = Client::new(&format!("http://127.0.0.1:{port}")).unwrap();
        let until = soon(Duration::from_millis(100));
        let failure = away.create_operation_once(&json!({}), "k", until, &mut |_| ()).await.unwrap_err();
        assert_eq!(failure.exit(), crate::exit::Exit::UNREACHABLE);
        // After its first connection nothing listens any more.
        let (gone, _) = server(vec![(0, Value::Null)]);
        let failure = gone.create_operation_once(&json!({}), "k", until, &mut |_| ()).await.unwrap_err();
        assert_eq!(failure.exit(), crate::exit::Exit::UNKNOWN);
    }

    #[actix_web::test]
    async fn a_wait_goes_on_through_an_outage_and_ends_with_its_time() {
        let started = || serde_json::from_value(operation("in_progress", 2)).unwrap();
        let answers = vec![(0, Value::Null), (503, json!({})), (200, operation("completed", 3))];
        let (client, _) = server(answers);
        let ended = client.operation_in_time(started(), None, None, &mut |_| ()).await.unwrap();
        assert_eq!((ended.status.as_str(), ended.revision), ("completed", 3));
        let (gone, _) = server(vec![]);
        let until = Some(soon(Duration::from_millis(100)));
        let seen = gone.operation_in_time(started(), None, until, &mut |_| ()).await.unwrap();
        assert_eq!((seen.status.as_str(), seen.revision), ("in_progress", 2));
    }
}
