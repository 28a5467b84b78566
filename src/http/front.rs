//! Owns the way of a request to the API, which is not there before the log is open.
//! It must never know what a route does.

use std::future::{Ready, ready};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ::events::Progress;
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};

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

/// The API, as a handler gets it: a request that comes too early is refused with 503 `recovering`.
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
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let front = request.app_data::<web::Data<Front>>();
        let api = front.and_then(|front| front.api.get()).cloned();
        ready(api.map(Self).ok_or_else(|| ApiError::of(Code::Recovering)))
    }
}
