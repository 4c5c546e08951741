//! The class table in force, and why an address has its class.

use axum::{extract::State, http::StatusCode, response::Response};
use clap::Args;
use ipnet::IpNet;
use tokio::task;
use traffic_model::notation::parse_network;

use super::{Asked, options, parsed};
use crate::api::{
    Source,
    answers::{JSON, document, error_answer},
    query,
    reader::refused,
};

/// The address to explain
#[derive(Debug, Args)]
struct ExplainOptions {
    /// Address or prefix of the remote side
    #[arg(long, value_name = "ADDRESS", required = true, value_parser = parse_network)]
    address: IpNet,
}

pub(super) async fn get_classes(State(source): State<Source>, asked: Asked) -> Response {
    if let Err(refusal) = parsed(asked, query::none) {
        return *refusal;
    }
    answer(source, |classes| classes.document()).await
}

pub(super) async fn get_explain(State(source): State<Source>, asked: Asked) -> Response {
    match options::<ExplainOptions>(&source, asked, &[]) {
        Ok((options, _)) => answer(source, move |classes| classes.explain(options.address)).await,
        Err(refusal) => *refusal,
    }
}

async fn answer(
    source: Source,
    ask: impl FnOnce(&dyn crate::api::Classes) -> anyhow::Result<String> + Send + 'static,
) -> Response {
    let Some(classes) = source.classes else {
        return error_answer(StatusCode::NOT_FOUND, "no class table is known here");
    };
    // One at a time: a large class file takes a second of CPU time and a hundred megabytes.
    let place = source.class_places.acquire_owned().await.ok();
    let work = task::spawn_blocking(move || {
        let _place = place;
        ask(&*classes)
    });
    match work.await.map_err(anyhow::Error::from).and_then(|result| result) {
        Ok(text) => document(JSON, text, None),
        Err(error) => refused(&error),
    }
}
