//! Owns the way of a request to the API, which is not there before the log is open.
//! It must never know what a route does.

use std::future::{Ready, ready};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ::events::{Position, Progress};
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::future::{Either, LocalBoxFuture};

use super::Api;
use super::error::{ApiError, Code};
use super::guard::ServiceState;

/// What answers from the first moment on. Registered as `web::Data<Front>`.
pub struct Front {
    /// When the process began.
    pub started: Instant,
    /// Whether requests are taken.
    pub state: Arc<ServiceState>,
    /// How far the opening of the log is.
    pub progress: Arc<Progress>,
    api: OnceLock<web::Data<Api>>,
}

impl Front {
    /// Of a log that is about to be opened.
    #[must_use]
    pub fn of(progress: Arc<Progress>) -> Self {
        let (state, api) = (Arc::default(), OnceLock::new());
        Self { started: Instant::now(), state, progress, api }
    }

    /// Lets requests through to this API, for good.
    pub fn open(&self, api: web::Data<Api>) {
        self.api.get_or_init(|| api);
    }

    /// What is behind it, once the log is open.
    #[must_use]
    pub fn api(&self) -> Option<&Api> {
        self.api.get().map(web::Data::get_ref)
    }
}

/// The API, as a handler gets it once the views show everything that was answered before the request
/// arrived: a request that comes before the log is open is refused with 503 `recovering`, and with 503
/// `overloaded` when the views lag for too long.
#[derive(Clone)]
pub struct Reach(web::Data<Api>);

impl Deref for Reach {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.0
    }
}

impl FromRequest for Reach {
    type Error = ApiError;
    type Future = Either<Ready<Result<Self, ApiError>>, LocalBoxFuture<'static, Result<Self, ApiError>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        match ReachAtOnce::of(request) {
            Err(refusal) => Either::Left(ready(Err(refusal))),
            Ok(early) if early.is_shown() => Either::Left(ready(Ok(Self(early.api)))),
            Ok(early) => Either::Right(Box::pin(early.shown())),
        }
    }
}

/// The API before the views have caught up: for requests that do not look at them, or not at once.
pub struct ReachAtOnce {
    api: web::Data<Api>,
    /// The highest position that anything answered before the request arrived rests on.
    answered: Position,
}

impl ReachAtOnce {
    fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let front = request.app_data::<web::Data<Front>>();
        let api = front.and_then(|front| front.api.get()).cloned();
        let api = api.ok_or_else(|| ApiError::of(Code::Recovering))?;
        let answered = api.core.projected.answered();
        Ok(Self { api, answered })
    }

    fn is_shown(&self) -> bool {
        self.api.core.projected.position() >= self.answered
    }

    /// Waits until the views show everything that was answered before the request arrived.
    ///
    /// # Errors
    /// 503 when they do not in time.
    pub async fn shown(self) -> Result<Reach, ApiError> {
        if self.api.core.projected.shows(self.answered).await {
            return Ok(Reach(self.api));
        }
        Err(lagging(self.answered))
    }

    /// For a request that looks at nothing that the views show.
    #[must_use]
    pub fn unseen(self) -> Reach {
        Reach(self.api)
    }
}

impl Deref for ReachAtOnce {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl FromRequest for ReachAtOnce {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of(request))
    }
}

/// The views have not reached a position in time.
#[must_use]
pub fn lagging(position: Position) -> ApiError {
    let message = format!("The server has not reached position {position} yet; try again in a moment.");
    ApiError::new(Code::Overloaded, message)
}
