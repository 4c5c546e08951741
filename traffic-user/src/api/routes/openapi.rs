//! The description of all documents.

use axum::response::Response;

use crate::api::answers::{JSON, document};

/// Written by hand. A test compares it with what the server answers.
const OPENAPI: &str = include_str!("../openapi.json");

pub(super) async fn get_openapi() -> Response {
    document(JSON, OPENAPI.replace("0.0.0-VERSION", env!("CARGO_PKG_VERSION")), None)
}
