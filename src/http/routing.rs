//! Owns what one line of the route table means: a path, its methods, and a proper refusal of all others.
//! It must never name a route.

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{AppService, HttpServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, FromRequest, Handler, HttpRequest, HttpResponse, Responder, guard, web};

use super::error::ApiError;

/// One resource under construction: `resource("/api/v1/operations").get(list).post(create)`.
pub struct Resource {
    path: String,
    inner: actix_web::Resource,
    methods: Vec<Method>,
}

/// Begins a resource at a path pattern such as `/api/v1/operations/{id}`.
#[must_use]
pub fn resource(path: &str) -> Resource {
    Resource { path: path.to_owned(), inner: web::resource(path), methods: Vec::new() }
}

/// Drops the body of an answer to HEAD when it has no end of its own. Nobody would see it, and since nothing
/// of it is written, nothing would ever find out that the client has gone.
async fn without_stream(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let response = next.call(request).await?.map_into_boxed_body();
    Ok(match response.response().body().size() {
        BodySize::Stream => response.map_body(|_, _| BoxBody::new(())),
        BodySize::None | BodySize::Sized(_) => response,
    })
}

impl Resource {
    /// Answers GET, and HEAD with the same headers and no body.
    #[must_use]
    pub fn get<F, Args>(mut self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let head = web::route().guard(guard::Head()).to(handler.clone()).wrap(from_fn(without_stream));
        self.inner = self.inner.route(web::get().to(handler)).route(head);
        self.methods.extend([Method::GET, Method::HEAD]);
        self
    }

    /// Answers POST.
    #[must_use]
    pub fn post<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::POST, handler)
    }

    /// Answers PUT.
    #[must_use]
    pub fn put<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::PUT, handler)
    }

    /// Answers DELETE.
    #[must_use]
    pub fn delete<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::DELETE, handler)
    }

    /// The path pattern.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The methods, for comparing the router with its documentation.
    #[must_use]
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn on<F, Args>(mut self, method: Method, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.inner = self.inner.route(web::method(method.clone()).to(handler));
        self.methods.push(method);
        self
    }
}

impl HttpServiceFactory for Resource {
    fn register(self, config: &mut AppService) {
        let names: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        let allow = names.join(", ");
        let refuse = move |request: HttpRequest| {
            let refusal = ApiError::method_not_allowed(request.method().as_str(), &allow);
            async move { Err::<HttpResponse, _>(refusal) }
        };
        self.inner.default_service(web::to(refuse)).register(config);
    }
}

/// The answer for every path that is in no table: `App::default_service(web::to(routing::not_found))`.
///
/// # Errors
/// Always: 404.
pub async fn not_found() -> Result<HttpResponse, ApiError> {
    Err(ApiError::not_found("There is nothing at this path; GET /openapi.json lists every path."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::{StatusCode, header};
    use actix_web::{App, test};
    use serde_json::{Value, json};

    async fn answer(method: &str, path: &str) -> (StatusCode, Option<String>, Value) {
        let read = || async { "read" };
        let made = || async { "made" };
        let app = App::new()
            .service(resource("/things").get(read).post(made))
            .service(resource("/things/{id}").delete(made))
            .default_service(web::to(not_found));
        let app = test::init_service(app).await;
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = test::TestRequest::default().method(method).uri(path).to_request();
        let response = test::call_service(&app, request).await;
        let allow = response.headers().get(header::ALLOW).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        (status, allow, serde_json::from_slice(&test::read_body(response).await).unwrap_or_default())
    }

    #[actix_web::test]
    async fn the_methods_of_the_table_are_answered() {
        for (method, path) in
            [("GET", "/things"), ("HEAD", "/things"), ("POST", "/things"), ("DELETE", "/things/1")]
        {
            assert_eq!(answer(method, path).await.0, StatusCode::OK, "{method} {path}");
        }
    }

    #[actix_web::test]
    async fn other_methods_get_405_with_allow() {
        for method in ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "BREW"] {
            let (status, allow, body) = answer(method, "/things").await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(allow.unwrap(), "GET, HEAD, POST");
            assert_eq!(body["code"], json!("method_not_allowed"));
        }
        assert_eq!(answer("GET", "/things/1").await.1.unwrap(), "DELETE");
    }

    #[actix_web::test]
    async fn an_unknown_path_is_404_in_the_envelope() {
        let (status, _, body) = answer("GET", "/thing").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(body["code"], json!("not_found"));
    }
}
