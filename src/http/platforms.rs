//! The routes of platforms. So far the only one is `worker`: the agent's own process.

use actix_web::{HttpRequest, web};
use domain::PlatformName;
use platforms::Platform;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::envelope::Reply;
use super::error::ApiError;
use super::front::Reach;
use super::operations::Answer;
use super::query::Parameters;

/// A platform as clients see it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlatformView {
    /// Its name, as steps name it.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Who performs its steps: `agent` or `server`.
    pub performed_by: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Its actions; empty when it takes any.
    pub actions: Vec<String>,
}

impl PlatformView {
    fn of(name: &PlatformName, platform: &Platform) -> Self {
        Self {
            name: name.to_string(),
            description: platform.description.into(),
            performed_by: platform.performer.name().into(),
            capabilities: platform.capabilities.iter().map(ToString::to_string).collect(),
            actions: platform.actions.clone().unwrap_or_default(),
        }
    }
}

/// Lists platforms.
#[utoipa::path(get, path = "/api/v1/platforms", tag = "platforms",
    responses((status = 200, body = super::envelope::ApiResponse<Vec<PlatformView>>)))]
pub async fn list(api: Reach, request: HttpRequest) -> Answer<Vec<PlatformView>> {
    Parameters::of(&request, &[], &[])?;
    Ok(Reply::ok(api.platforms.iter().map(|(name, platform)| PlatformView::of(name, platform)).collect()))
}

/// Shows a platform.
#[utoipa::path(get, path = "/api/v1/platforms/{name}", tag = "platforms", params(("name" = String, Path)),
    responses((status = 200, body = super::envelope::ApiResponse<PlatformView>), (status = 404)))]
pub async fn get(api: Reach, request: HttpRequest, name: web::Path<String>) -> Answer<PlatformView> {
    Parameters::of(&request, &[], &[])?;
    let name: PlatformName = name.parse()?;
    let platform = api.platforms.get(&name).ok_or_else(|| {
        ApiError::not_found(format!("There is no platform {name}; GET /api/v1/platforms lists them."))
    })?;
    Ok(Reply::ok(PlatformView::of(&name, platform)))
}
