//! What the guard lets through, turns away, and answers when a handler fails.

use super::*;
use crate::http::context;
use crate::http::routing;
use actix_web::middleware::from_fn;
use actix_web::test::{self, TestRequest};
use actix_web::{App, http::StatusCode};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

static PANICS: AtomicUsize = AtomicUsize::new(0);

async fn panics() -> &'static str {
    if PANICS.load(Ordering::SeqCst) < usize::MAX {
        panic!("secret detail");
    }
    ""
}

async fn stalls() -> &'static str {
    tokio::time::sleep(Duration::from_millis(200)).await;
    "late"
}

struct Answer {
    status: StatusCode,
    headers: header::HeaderMap,
    body: Value,
}

async fn answer_in(phase: Phase, request: TestRequest) -> Answer {
    let state = Arc::new(ServiceState::default());
    state.enter(phase);
    let guard = Guard::new(state, Hosts::loopback_and("photon.test"), Duration::from_millis(20))
        .exempt(|_, query| query.contains("wait="))
        .on_panic(|| {
            PANICS.fetch_add(1, Ordering::SeqCst);
        })
        .position(|| Some(42));
    let app = App::new()
        .app_data(web::Data::new(guard))
        .service(routing::resource("/ok").get(async || "ok"))
        .service(routing::resource("/health/ready").get(async || "ok"))
        .service(routing::resource("/panics").get(panics))
        .service(routing::resource("/stalls").get(stalls))
        .default_service(web::to(routing::not_found))
        .wrap(from_fn(protect))
        .wrap(from_fn(context::enter));
    let app = test::init_service(app).await;
    let (status, headers, body) = match test::try_call_service(&app, request.to_request()).await {
        Ok(response) => {
            let (status, headers) = (response.status(), response.headers().clone());
            (status, headers, test::read_body(response).await)
        }
        Err(failure) => {
            let response = failure.error_response();
            let (status, headers) = (response.status(), response.headers().clone());
            (status, headers, actix_web::body::to_bytes(response.into_body()).await.unwrap())
        }
    };
    Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() }
}

fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(path).insert_header((header::HOST, "127.0.0.1:8080"))
}

async fn answer(request: TestRequest) -> Answer {
    answer_in(Phase::Ready, request).await
}

#[actix_web::test]
async fn a_handler_that_panics_is_a_500_with_an_id_and_is_counted() {
    let before = PANICS.load(Ordering::SeqCst);
    let answer = answer(get("/panics").insert_header(("x-request-id", "r-1"))).await;
    assert_eq!(answer.status, 500);
    assert_eq!((&answer.body["code"], &answer.body["requestId"]), (&json!("internal"), &json!("r-1")));
    assert_eq!(answer.headers.get("x-request-id").unwrap(), "r-1");
    assert!(!answer.body.to_string().contains("secret"));
    assert_eq!(PANICS.load(Ordering::SeqCst), before + 1);
}

#[actix_web::test]
async fn a_handler_that_stalls_is_a_504_unless_it_is_a_long_poll() {
    let late = answer(get("/stalls").insert_header(("x-request-id", "r-2"))).await;
    assert_eq!((late.status, &late.body["requestId"]), (StatusCode::GATEWAY_TIMEOUT, &json!("r-2")));
    assert_eq!(late.headers.get(header::X_CONTENT_TYPE_OPTIONS).unwrap(), "nosniff");
    assert_eq!(answer(get("/stalls?wait=1s")).await.status, 200);
}

#[actix_web::test]
async fn only_our_own_names_are_answered() {
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "photon.test:80"] {
        let request = TestRequest::get().uri("/ok").insert_header((header::HOST, host));
        assert_eq!(answer(request).await.status, 200, "{host}");
    }
    let foreign = [
        "evil.test",
        "localhost.evil.test",
        "127.0.0.1.nip.io:8080",
        "localhost:x",
        "u@localhost",
        "",
        "127.1",
    ];
    for host in foreign {
        let request = TestRequest::get().uri("/ok").insert_header((header::HOST, host));
        let answer = answer(request).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (403, &json!("host_not_allowed")),
            "{host}"
        );
    }
    let absolute = TestRequest::get().uri("http://evil.test/ok").insert_header((header::HOST, "localhost"));
    assert_eq!(answer(absolute).await.status, 403);
}

#[actix_web::test]
async fn pages_of_other_origins_are_refused() {
    for origin in ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"] {
        let request = get("/ok").insert_header((header::ORIGIN, origin));
        assert_eq!(answer(request).await.status, 200, "{origin}");
    }
    let foreign = [
        "null",
        "",
        "http://evil.test",
        "http://127.0.0.1",
        "http://127.0.0.1:8081",
        "https://127.0.0.1:8080",
        "http://127.0.0.1:8080.evil.test",
        "http://localhost:8080@evil.test",
        "http://localhost:8080/",
        "file://",
    ];
    for origin in foreign {
        let answer = answer(get("/ok").insert_header((header::ORIGIN, origin))).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (403, &json!("origin_not_allowed")),
            "{origin}"
        );
    }
}

#[actix_web::test]
async fn what_another_site_makes_a_browser_ask_for_is_refused() {
    let sent = |path: &str, site: &str| get(path).insert_header((SEC_FETCH_SITE, site));
    for path in ["/api/v1/operations", "/metrics", "/metrics/dashboard"] {
        let refused = answer(sent(path, "cross-site")).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.body["code"]),
            (403, &json!("origin_not_allowed")),
            "{path}"
        );
        for site in ["same-origin", "same-site", "none"] {
            assert_eq!(answer(sent(path, site)).await.status, 404, "{path} {site}");
        }
    }
    for open in ["/ok", "/health/ready"] {
        assert_eq!(answer(sent(open, "cross-site")).await.status, 200, "{open}");
    }
}

#[actix_web::test]
async fn long_uris_and_large_headers_are_refused() {
    let long = format!("/ok?q={}", "x".repeat(URI_MAX_BYTES));
    assert_eq!(answer(get(&long)).await.body["code"], json!("uri_too_long"));
    let large = get("/ok").insert_header(("x-large", "x".repeat(HEADERS_MAX_BYTES)));
    assert_eq!(answer(large).await.body["code"], json!("headers_too_large"));
    let fitting = get("/ok").insert_header(("x-large", "x".repeat(HEADERS_MAX_BYTES - 100)));
    assert_eq!(answer(fitting).await.status, 200);
}

#[actix_web::test]
async fn until_it_is_ready_and_while_it_stops_only_health_is_answered() {
    for (phase, code) in [(Phase::Recovering, "recovering"), (Phase::Draining, "draining")] {
        let refused = answer_in(phase, get("/ok")).await;
        assert_eq!((refused.status.as_u16(), &refused.body["code"]), (503, &json!(code)));
        assert!(refused.headers.contains_key(header::RETRY_AFTER));
        assert_eq!(answer_in(phase, get("/health/ready")).await.status, 200);
        assert_eq!(answer_in(phase, get("/healthy")).await.status, 503);
    }
}

#[actix_web::test]
async fn every_answer_is_hardened_and_says_its_position() {
    for path in ["/ok", "/nothing", "/panics", "/stalls"] {
        let headers = answer(get(path)).await.headers;
        for name in ["x-content-type-options", "cache-control", "content-security-policy", "x-request-id"] {
            assert!(headers.contains_key(name), "{path} lacks {name}");
        }
        assert_eq!(headers.get("photon-position").unwrap(), "42");
    }
    let docs = answer(get("/docs/index.html")).await.headers;
    assert_eq!(docs.get(header::CONTENT_SECURITY_POLICY).unwrap(), DOCS_POLICY);
    assert!(!docs.contains_key(header::CACHE_CONTROL));
}

#[actix_web::test]
async fn without_a_guard_nothing_is_answered() {
    let app = App::new().service(routing::resource("/ok").get(async || "ok")).wrap(from_fn(protect));
    let app = test::init_service(app).await;
    let failure = test::try_call_service(&app, get("/ok").to_request()).await.unwrap_err();
    assert_eq!(failure.error_response().status(), 500);
}
