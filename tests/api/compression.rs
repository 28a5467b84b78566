//! How answers travel over a real port: plain, as gzip, as zstd; with the same headers for HEAD, with
//! revisions that hold, and never as a surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::support;

use std::io::Read;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use support::{Photon, step};

/// What came over the wire.
struct Sent {
    status: u16,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Sent {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The body as its `Content-Encoding` says that it must be read.
    fn plain(&self) -> Vec<u8> {
        match self.header("content-encoding") {
            "" => self.bytes.clone(),
            "zstd" => zstd::decode_all(self.bytes.as_slice()).unwrap(),
            "gzip" => {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(self.bytes.as_slice()).read_to_end(&mut plain).unwrap();
                plain
            }
            other => panic!("nobody asked for {other}"),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.plain()).unwrap()
    }
}

async fn sent(request: reqwest::RequestBuilder, accepts: &str) -> Sent {
    let request = if accepts.is_empty() { request } else { request.header("accept-encoding", accepts) };
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Sent { status, headers, bytes: answer.bytes().await.unwrap().to_vec() }
}

/// A workflow whose operation takes some kilobytes to show.
fn wide() -> Value {
    let steps = (1..=40).map(|number| step(number, "work", &[], json!({"text": "the same words again"})));
    steps.collect()
}

#[tokio::test]
async fn an_answer_is_the_same_plain_as_gzip_and_as_zstd() {
    let photon = Photon::start().await;
    let id = photon.operation(wide()).await;
    for path in [format!("/api/v1/operations/{id}"), format!("/api/v1/operations/{id}/steps")] {
        let plain = sent(photon.request("GET", &path), "").await;
        assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "Accept-Encoding"));
        assert!(plain.bytes.len() > 1024);
        for coding in ["gzip", "zstd"] {
            let small = sent(photon.request("GET", &path), coding).await;
            assert_eq!((small.status, small.header("content-encoding")), (200, coding));
            assert_eq!(small.header("vary"), "Accept-Encoding");
            assert_eq!(small.header("content-type"), "application/json");
            assert_eq!(small.header("content-length"), small.bytes.len().to_string());
            assert_eq!(small.header("etag"), plain.header("etag"));
            assert!(small.bytes.len() * 3 < plain.bytes.len(), "{} {coding}", small.bytes.len());
            assert_eq!(small.json()["data"], plain.json()["data"]);
        }
    }
    // Larger than what is compressed in place.
    let bundle = photon.request("GET", "/docs/swagger-ui-bundle.js");
    let bundle = sent(bundle, "zstd").await;
    assert_eq!(bundle.header("content-encoding"), "zstd");
    let plain = sent(photon.request("GET", "/docs/swagger-ui-bundle.js"), "").await;
    assert!(plain.bytes.len() > 500_000 && bundle.plain() == plain.bytes);
}

#[tokio::test]
async fn what_is_small_travels_as_it_is() {
    let photon = Photon::start().await;
    let health = sent(photon.request("GET", "/health"), "gzip, zstd").await;
    assert!(health.bytes.len() <= 1024);
    assert_eq!((health.header("content-encoding"), health.header("vary")), ("", ""));
    assert_eq!(health.json()["success"], json!(true));
}

#[tokio::test]
async fn a_revision_holds_however_it_travelled() {
    let photon = Photon::start().await;
    let id = photon.operation(wide()).await;
    let path = format!("/api/v1/operations/{id}");
    let shown = sent(photon.request("GET", &path), "gzip").await;
    let etag = shown.header("etag").to_owned();
    for accepts in ["gzip", "zstd", ""] {
        let again = photon.request("GET", &path).header("if-none-match", &etag);
        let unchanged = sent(again, accepts).await;
        assert_eq!((unchanged.status, unchanged.bytes.len()), (304, 0));
        assert_eq!((unchanged.header("etag"), unchanged.header("vary")), (etag.as_str(), "Accept-Encoding"));
        assert_eq!(unchanged.header("content-encoding"), "");
    }
    let change = photon.request("PUT", &path).header("if-match", &etag).json(&json!({"name": "new"}));
    let changed = sent(change, "zstd").await;
    assert_eq!((changed.status, changed.header("content-encoding")), (200, "zstd"));
    assert_eq!(changed.json()["data"]["name"], json!("new"));
    let again = photon.request("GET", &path).header("if-none-match", &etag);
    assert_eq!(sent(again, "gzip").await.status, 200);
}

#[tokio::test]
async fn head_says_what_get_would_send() {
    let photon = Photon::start().await;
    for accepts in ["", "gzip", "zstd"] {
        let get = sent(photon.request("GET", "/openapi.json"), accepts).await;
        let head = sent(photon.request("HEAD", "/openapi.json"), accepts).await;
        assert_eq!((head.status, head.bytes.len()), (200, 0));
        for name in ["content-length", "content-encoding", "content-type", "vary"] {
            assert_eq!(head.header(name), get.header(name), "{accepts} {name}");
        }
        // What is compressed while it is sent has no length yet.
        if accepts.is_empty() {
            assert_eq!(get.header("content-length"), get.bytes.len().to_string());
        }
    }
}

#[tokio::test]
async fn creations_refusals_and_metrics_are_compressed_too() {
    let photon = Photon::start().await;
    let create = |workflow: Value| {
        photon.request("POST", "/api/v1/operations").json(&json!({"name": "n", "workflow": workflow}))
    };
    // Several on one connection: each ends where its length says.
    for coding in ["gzip", "zstd", "gzip"] {
        let created = sent(create(wide()), coding).await;
        assert_eq!((created.status, created.header("content-encoding")), (201, coding));
        assert_eq!(created.json()["data"]["workflow"].as_array().unwrap().len(), 40);
        let mut bad = wide();
        bad.as_array_mut().unwrap().iter_mut().for_each(|step| step["platform"] = json!("nowhere"));
        let refused = sent(create(bad), coding).await;
        assert_eq!((refused.status, refused.header("content-encoding")), (422, coding));
        assert_eq!(refused.json()["problem"]["errors"].as_array().unwrap().len(), 40);
    }
    let metrics = sent(photon.request("GET", "/metrics"), "gzip").await;
    assert_eq!(metrics.header("content-encoding"), "gzip");
    assert!(String::from_utf8(metrics.plain()).unwrap().contains("photon_uptime_seconds"));
}
