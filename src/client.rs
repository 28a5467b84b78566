//! Owns how this program speaks to a Photon server: one client for every command, with a deadline on each
//! call. It repeats questions through an outage of the server. It must never decide what a command prints,
//! and never repeat what changes something, unless a key makes that harmless.

mod agents;
mod backoff;
mod error;
mod lanes;
mod leases;
mod operations;
mod outage;
mod platforms;
mod pools;
mod snapshots;
mod tail;

use std::time::Duration;

use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use backoff::Backoff;
pub use error::{ClientError, Refusal};
pub use outage::Outage;
pub use tail::{Frame, Tail};

use crate::http::envelope::ApiResponse;

/// Where a server is when nobody says otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for an answer that is not a long poll.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// What a long poll may take beyond the wait it asks for.
const LONG_POLL_SLACK: Duration = Duration::from_secs(10);
/// An operation with all its results is at most 8 MiB and its definition; more is not an answer of Photon.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Items on one page; the server gives out no more.
const PAGE_MAX: usize = 500;

/// A way to one server.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

/// One request under construction.
struct Call<'c> {
    method: Method,
    path: Vec<&'c str>,
    query: Vec<(&'c str, String)>,
    key: Option<&'c str>,
    body: Option<Value>,
    within: Duration,
    /// Whether it may change something; without an answer its outcome is then unknown.
    changes: bool,
}

impl<'c> Call<'c> {
    fn new(method: Method, path: &[&'c str]) -> Self {
        let changes = !method.is_safe();
        let (path, query) = (path.to_vec(), Vec::new());
        Self { method, path, query, key: None, body: None, within: ANSWER_WITHIN, changes }
    }

    fn get(path: &[&'c str]) -> Self {
        Self::new(Method::GET, path)
    }

    fn post(path: &[&'c str], body: &impl Serialize) -> Result<Self, ClientError> {
        let body = serde_json::to_value(body).map_err(|cause| ClientError::Usage(cause.to_string()))?;
        Ok(Self { body: Some(body), ..Self::new(Method::POST, path) })
    }

    /// A call that changes nothing although it has a body.
    fn question(mut self) -> Self {
        self.changes = false;
        self
    }

    fn query(mut self, name: &'c str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    fn key(mut self, key: Option<&'c str>) -> Self {
        self.key = key;
        self
    }

    /// A call that the server answers only after up to this wait.
    fn waits(mut self, wait: Duration) -> Self {
        self.within = wait + LONG_POLL_SLACK;
        self
    }

    fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }
}

impl Client {
    /// A client for the server at this address, such as `http://127.0.0.1:8080`. Nothing is sent yet.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn new(address: &str) -> Result<Self, ClientError> {
        let unusable = |reason: &str| {
            let example = DEFAULT_SERVER;
            ClientError::Usage(format!("The server address '{address}' {reason}; write it like {example}."))
        };
        let base = Url::parse(address).map_err(|_| unusable("is not a URL"))?;
        if base.scheme() != "http" {
            return Err(unusable("must begin with http://, since TLS is not built yet"));
        }
        // A proxy between a worker and its server would only cut long polls short.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .user_agent(concat!("photon/", env!("CARGO_PKG_VERSION")));
        let http = http.build().map_err(|_| unusable("cannot be used"))?;
        Ok(Self { http, base })
    }

    /// The server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Whether the server takes requests.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.data::<Value>(Call::get(&["health", "ready"]).within(CONNECT_WITHIN)).await.map(drop)
    }

    fn url(&self, path: &[&str]) -> Result<Url, ClientError> {
        let mut url = self.base.clone();
        // An empty or dotted segment would name another resource than the one that was meant.
        let odd = path.iter().find(|segment| matches!(**segment, "" | "." | ".."));
        if let Some(segment) = odd {
            return Err(ClientError::Usage(format!("'{segment}' cannot be an id.")));
        }
        let segments = url.path_segments_mut();
        let mut segments =
            segments.map_err(|()| ClientError::Usage("The server address has no path.".into()))?;
        segments.pop_if_empty().extend(path);
        drop(segments);
        Ok(url)
    }

    /// The data of a successful answer.
    async fn data<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ClientError> {
        let answer = self.send::<T>(call).await?;
        answer.data.ok_or_else(|| self.unreadable("it holds no data"))
    }

    /// A list, page by page, up to `most` items.
    async fn items<T: DeserializeOwned>(
        &self,
        path: &[&str],
        filters: &[(&str, String)],
        most: usize,
    ) -> Result<Vec<T>, ClientError> {
        let mut items: Vec<T> = Vec::new();
        let mut cursor: Option<String> = None;
        while items.len() < most {
            let mut call = Call::get(path).query("limit", (most - items.len()).min(PAGE_MAX).to_string());
            call.query.extend(filters.iter().cloned());
            call.query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let answer = self.send::<Vec<T>>(call).await?;
            items.extend(answer.data.unwrap_or_default());
            cursor = answer.page.and_then(|page| page.next_cursor);
            if cursor.is_none() {
                break;
            }
        }
        Ok(items)
    }

    async fn send<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<ApiResponse<T>, ClientError> {
        let changes = call.changes;
        let mut request = self.http.request(call.method, self.url(&call.path)?).timeout(call.within);
        if !call.query.is_empty() {
            request = request.query(&call.query);
        }
        if let Some(key) = call.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|cause| self.transport(&cause, changes))?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let bytes = self.read(response, changes && !status.is_client_error()).await?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|cause| self.unreadable(&cause.to_string()));
        }
        let refusal = Refusal::of(status.as_u16(), retry_after, &bytes);
        Err(ClientError::Refused(Box::new(if changes { refusal.of_a_change() } else { refusal })))
    }

    async fn read(&self, mut response: Response, changes: bool) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|cause| self.transport(&cause, changes))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.unreadable("it is too large"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn unreadable(&self, cause: &str) -> ClientError {
        ClientError::Unreadable { server: self.server().to_owned(), cause: cause.to_owned() }
    }

    /// Why there was no answer to a call, which perhaps changed something.
    fn transport(&self, cause: &reqwest::Error, changes: bool) -> ClientError {
        let server = self.server().to_owned();
        let late = cause.is_timeout();
        match (cause.is_connect(), changes) {
            (false, true) if late => ClientError::OutcomeUnknown { server, cause: error::LATE.to_owned() },
            (false, true) => ClientError::OutcomeUnknown { server, cause: error::root_of(cause) },
            (false, false) if late => ClientError::TimedOut { server },
            _ => ClientError::Unreachable { server, cause: error::root_of(cause) },
        }
    }
}

/// When a busy server wants to be asked again.
fn retry_after(response: &Response) -> Option<Duration> {
    let passing = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    let header = response.headers().get("retry-after").filter(|_| passing.contains(&response.status()))?;
    let seconds: u64 = header.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(60)))
}

/// A wait as the server reads it.
fn written(wait: Duration) -> String {
    format!("{}ms", wait.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn an_address_that_is_no_plain_url_is_refused_with_an_example() {
        for bad in ["", "localhost", "localhost:8080", "https://localhost", "ftp://a"] {
            let refusal = Client::new(bad).unwrap_err();
            assert_eq!(refusal.exit(), Exit::USAGE, "{bad}");
            assert!(refusal.to_string().contains(DEFAULT_SERVER), "{refusal}");
        }
    }

    #[test]
    fn an_id_stays_one_segment_of_the_path() {
        let client = Client::new("http://localhost:1/base/").unwrap();
        assert_eq!(client.server(), "http://localhost:1/base");
        let url = client.url(&["api", "a/b?c"]).unwrap();
        assert_eq!(url.as_str(), "http://localhost:1/base/api/a%2Fb%3Fc");
        assert!(["", ".", ".."].iter().all(|odd| client.url(&["api", odd]).is_err()));
    }

    #[actix_web::test]
    async fn a_server_that_is_away_is_unreachable() {
        // Nothing can listen on a port that was bound and let go a moment ago, as long as nobody takes it.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let failure = Client::new(&format!("http://127.0.0.1:{port}")).unwrap().ready().await.unwrap_err();
        assert_eq!(failure.exit(), Exit::UNREACHABLE);
        assert!(failure.is_passing() && failure.to_string().contains("refused"), "{failure}");
    }
}
