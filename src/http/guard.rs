//! Owns what happens before and around every handler: sizes, host, origin, phase, deadline, panics, headers.
//! It must never look into a body or know what a route does.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, ResponseError, web};
use domain::system::Offence;
use futures_util::FutureExt;
use tokio::time::timeout;

use super::context::RequestContext;
use super::envelope::POSITION;
use super::error::{self, ApiError, Code};

pub mod offences;
mod patient;
mod phase;
mod unread;

pub use phase::{Phase, ServiceState};
use unread::Unread;

const HEADERS_MAX_BYTES: usize = 16 * 1024;
const URI_MAX_BYTES: usize = 8 * 1024;

/// Paths that answer in every phase, with all that is below them.
const ALWAYS_OPEN: &[&str] = &["/health", "/metrics", "/openapi.json", "/asyncapi.json", "/docs"];

/// Paths that pages of other sites may not make a browser ask for, with all that is below them.
const GUARDED: &[&str] = &["/api", "/metrics"];
/// Where the page is from that makes a browser ask.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// Swagger UI sets styles from its script and draws its icons as `data:` images; its scripts are files.
const DOCS_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The names under which this server may be addressed. Guards against DNS rebinding.
#[derive(Clone, Debug)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// The loopback names and the configured host.
    #[must_use]
    pub fn loopback_and(configured: &str) -> Self {
        let bare = configured.to_ascii_lowercase();
        let configured =
            if bare.contains(':') && !bare.starts_with('[') { format!("[{bare}]") } else { bare };
        Self(vec!["localhost".into(), "127.0.0.1".into(), "[::1]".into(), configured])
    }

    fn allows(&self, authority: &str) -> bool {
        split_authority(authority).is_some_and(|(host, _)| self.has(host))
    }

    /// An origin is ours when a browser got the page from one of our names on the very port it now talks to.
    fn allows_origin(&self, origin: &str, authority: &str) -> bool {
        let ours = split_authority(authority).map(|(_, port)| port);
        let theirs = origin.strip_prefix("http://").and_then(split_authority);
        theirs.is_some_and(|(host, port)| self.has(host) && Some(port) == ours)
    }

    fn has(&self, host: &str) -> bool {
        !host.is_empty() && self.0.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Hears who is turned away, from where, and what it asked for.
type OnOffence = Box<dyn Fn(Offence, Option<IpAddr>, &str) + Send + Sync>;

/// What [`protect`] needs to know. Registered as `web::Data<Guard>`.
pub struct Guard {
    state: Arc<ServiceState>,
    hosts: Hosts,
    deadline: Duration,
    exempt: fn(&str, &str) -> bool,
    patient: fn(&str) -> bool,
    patience: Duration,
    on_panic: Box<dyn Fn() + Send + Sync>,
    on_offence: OnOffence,
    position: Box<dyn Fn() -> Option<u64> + Send + Sync>,
}

impl Guard {
    /// A guard that gives each request this long until its answer begins.
    #[must_use]
    pub fn new(state: Arc<ServiceState>, hosts: Hosts, deadline: Duration) -> Self {
        Self {
            state,
            hosts,
            deadline,
            exempt: |_, _| false,
            patient: |_| false,
            patience: Duration::ZERO,
            on_panic: Box::new(|| ()),
            on_offence: Box::new(|_, _, _| ()),
            position: Box::new(|| None),
        }
    }

    /// Which (path, query) have no deadline: long polls, which have one of their own.
    #[must_use]
    pub fn exempt(mut self, exempt: fn(&str, &str) -> bool) -> Self {
        self.exempt = exempt;
        self
    }

    /// Which paths are held for up to this long while the log is read, and answered while the process ends:
    /// their clients never come back after any status but 200.
    #[must_use]
    pub fn patient(mut self, patient: fn(&str) -> bool, patience: Duration) -> Self {
        (self.patient, self.patience) = (patient, patience);
        self
    }

    /// What else to do when a handler panics: count it.
    #[must_use]
    pub fn on_panic(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_panic = Box::new(hook);
        self
    }

    /// What else to do when a caller is turned away: count it. What it asked for comes as it was sent.
    #[must_use]
    pub fn on_offence(
        mut self,
        hook: impl Fn(Offence, Option<IpAddr>, &str) + Send + Sync + 'static,
    ) -> Self {
        self.on_offence = Box::new(hook);
        self
    }

    /// The log's head once it is known, for every answer that does not state a position of its own.
    #[must_use]
    pub fn position(mut self, head: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        self.position = Box::new(head);
        self
    }

    fn admit(&self, request: &ServiceRequest) -> Result<(), ApiError> {
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if target > URI_MAX_BYTES {
            return Err(ApiError::of(Code::UriTooLong));
        }
        // Four more bytes each for the colon, the space and the line's end.
        let headers = request.headers().iter();
        let total: usize = headers.map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if total > HEADERS_MAX_BYTES {
            return Err(ApiError::of(Code::HeadersTooLarge));
        }
        self.admit_caller(request)?;
        let path = request.path();
        match self.state.phase() {
            Phase::Ready => Ok(()),
            Phase::ReadOnly if phase::only_reads(request.method(), path) => Ok(()),
            _ if ALWAYS_OPEN.iter().any(|open| is_below(path, open)) => Ok(()),
            Phase::Draining if self.is_patient(request) => Ok(()),
            Phase::Recovering => Err(ApiError::of(Code::Recovering)),
            Phase::ReadOnly => Err(ApiError::of(Code::ReadOnly)),
            Phase::Draining => Err(ApiError::of(Code::Draining)),
        }
    }

    fn is_patient(&self, request: &ServiceRequest) -> bool {
        request.method() == Method::GET && (self.patient)(request.path())
    }

    fn admit_caller(&self, request: &ServiceRequest) -> Result<(), ApiError> {
        let host =
            request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // A request line with a whole URL carries a second host, and proxies would believe that one.
        let in_line = request.uri().authority().map_or(host, |authority| authority.as_str());
        let peer = || request.peer_addr().map(|address| address.ip());
        if let Some(foreign) = [host, in_line].into_iter().find(|name| !self.hosts.allows(name)) {
            (self.on_offence)(Offence::HostNotAllowed, peer(), foreign);
            return Err(ApiError::of(Code::HostNotAllowed));
        }
        let mut origins = request.headers().get_all(header::ORIGIN);
        let ours =
            |value: &HeaderValue| value.to_str().is_ok_and(|origin| self.hosts.allows_origin(origin, host));
        if let Some(foreign) = origins.find(|value| !ours(value)) {
            let foreign = String::from_utf8_lossy(foreign.as_bytes());
            (self.on_offence)(Offence::OriginNotAllowed, peer(), &foreign);
            return Err(ApiError::of(Code::OriginNotAllowed));
        }
        // A page that only embeds or opens something of ours sends no Origin.
        let cross_site = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"cross-site");
        let guarded = GUARDED.iter().any(|guarded| is_below(request.path(), guarded));
        if guarded && request.headers().get_all(SEC_FETCH_SITE).any(cross_site) {
            (self.on_offence)(Offence::OriginNotAllowed, peer(), "cross-site");
            return Err(ApiError::of(Code::OriginNotAllowed));
        }
        Ok(())
    }

    /// `seen` is where the log stood when a question was asked, for an answer that does not say it itself.
    fn finish(&self, response: &mut HttpResponse, path: &str, seen: Option<u64>) {
        let docs = is_below(path, "/docs");
        let policy = if docs { DOCS_POLICY } else { POLICY };
        let headers = response.headers_mut();
        let mut default = |name: HeaderName, value: &'static str| {
            if !headers.contains_key(&name) {
                headers.insert(name, HeaderValue::from_static(value));
            }
        };
        default(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        default(header::REFERRER_POLICY, "no-referrer");
        default(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
        default(header::CONTENT_SECURITY_POLICY, policy);
        if !docs {
            default(header::CACHE_CONTROL, "no-store");
        }
        if !headers.contains_key(POSITION)
            && let Some(head) = seen.or_else(|| (self.position)())
        {
            headers.insert(POSITION, HeaderValue::from(head));
        }
    }
}

/// The middleware around every handler: wrapped before [`super::context::enter`], so that it runs inside.
///
/// # Errors
/// Passes on what the inner service failed with, as a finished answer.
pub async fn protect(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(guard) = request.app_data::<web::Data<Guard>>().cloned() else {
        return Err(ApiError::internal("no guard is registered").into());
    };
    let path = request.path().to_owned();
    let unread = Unread::share(&mut request);
    let mut admitted = guard.admit(&request);
    if admitted.as_ref().is_err_and(|refusal| refusal.code == Code::Recovering) && guard.is_patient(&request)
    {
        if timeout(guard.patience, guard.state.recovered()).await.is_err() {
            return Ok(request.into_response(patient::unanswered()));
        }
        admitted = guard.admit(&request);
    }
    if let Err(refusal) = admitted {
        let mut response = refusal.error_response();
        guard.finish(&mut response, &path, None);
        return Ok(request.into_response(unread::held(response, unread)));
    }
    let deadline = if (guard.exempt)(&path, request.query_string()) { Duration::MAX } else { guard.deadline };
    let method = request.method().clone();
    // What happens while it is answered may be missing from the answer: who goes on from there must see it.
    let seen = if method.is_safe() { (guard.position)() } else { None };
    let handled = AssertUnwindSafe(async move { next.call(request).await }).catch_unwind();
    let failure = match timeout(deadline, handled).await {
        Ok(Ok(Ok(response))) => {
            let (request, response) = response.map_into_boxed_body().into_parts();
            let mut response = error::normalized(response);
            guard.finish(&mut response, &path, seen);
            return Ok(ServiceResponse::new(request, unread::held(response, unread)));
        }
        Ok(Ok(Err(failure))) => failure,
        Ok(Err(_)) => {
            (guard.on_panic)();
            let request_id = RequestContext::current().request_id;
            tracing::error!(%request_id, %method, path, "handler panicked");
            ApiError::of(Code::Internal).into()
        }
        Err(_) => ApiError::of(Code::Timeout).into(),
    };
    let mut response = error::normalized(HttpResponse::from_error(failure));
    guard.finish(&mut response, &path, seen);
    Err(error::finished(unread::held(response, unread)))
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Host and port, the port 80 when absent. Nothing for what is neither a name nor an address.
fn split_authority(authority: &str) -> Option<(&str, u16)> {
    let end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(end)?;
    let port = match rest.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        None if rest.is_empty() => 80,
        _ => return None,
    };
    Some((host, port))
}

#[cfg(test)]
mod tests;
