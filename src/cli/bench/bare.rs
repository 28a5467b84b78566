//! The ceiling of every durable creation on this machine: a bare actix-web that parses the same request and
//! answers the same JSON, but decides nothing and stores nothing. It must do nothing that Photon leaves out.

use std::io::Read;
use std::net::Ipv4Addr;

use actix_web::{App, HttpResponse, HttpServer, web};
use chrono::{SecondsFormat, Utc};
use domain::Timestamp;
use uuid::Uuid;

use super::fault::Fault;
use super::sample;
use crate::cli::output;
use crate::http::envelope::ApiResponse;
use crate::http::operation_request::CreateOperation;
use crate::http::operation_view::OperationView;

/// Serves until the standard input ends; the first line of standard output is the address.
pub(super) async fn serve() -> Result<(), Fault> {
    let now = Timestamp::from_micros(Utc::now().timestamp_micros());
    let id = sample::operation_id()?;
    let (operation, events) = sample::created(&id, now)?;
    let sample = web::Data::new(OperationView::of(&id, &operation, events.len() as u64, now));
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let server = HttpServer::new(move || {
        App::new().app_data(sample.clone()).route("/api/v1/operations", web::post().to(create))
    });
    let server = server.workers(workers).disable_signals().bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = server.addrs().first().copied();
    let address = address.ok_or_else(|| Fault::Process("nothing is listened on".into()))?;
    let running = server.run();
    let handle = running.handle();
    let _ = output::print(&address.to_string());
    actix_web::rt::spawn(async move {
        // Whoever started this process holds the other end, so that it cannot outlive him.
        let wait = || std::io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = actix_web::rt::task::spawn_blocking(wait).await;
        handle.stop(false).await;
    });
    Ok(running.await?)
}

async fn create(sample: web::Data<OperationView>, wish: web::Json<CreateOperation>) -> HttpResponse {
    let wish = wish.into_inner();
    let view = OperationView {
        id: format!("op_{}", Uuid::now_v7().simple()),
        name: wish.name,
        description: wish.description,
        metadata: wish.metadata,
        ..OperationView::clone(&sample)
    };
    HttpResponse::Created().json(ApiResponse {
        success: true,
        data: Some(view),
        error: None,
        code: None,
        problem: None,
        page: None,
        request_id: Uuid::now_v7().to_string(),
        timestamp: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        processing_time: 0.0,
    })
}
