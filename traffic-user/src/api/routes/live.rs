//! Documents made from the live counters: `/metrics`, `counters`, `status`, `interfaces`.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde::Serialize;

use super::{Asked, parsed};
use crate::{
    api::{
        DaemonHealth, Source,
        answers::{JSON, document, error_answer},
        metrics, query,
        reader::refused,
    },
    health::Component,
    node::status::Unaccounted,
    quota_actions::LastLooks,
    render::{dump, json, status},
    shipping::ShipState,
};
use traffic_model::Snapshot;

/// How old the state of the interfaces may be. Finding it out lists all interfaces and their hooks.
const MOST_AGE: Duration = Duration::from_secs(5);

pub(super) async fn get_metrics(State(source): State<Source>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = metrics::Format::for_accept(accept);
    let (lives, node, quotas) = (Arc::clone(&source.lives), source.known_state(), source.known_quotas());
    let (ledger, drops) = (source.reader.clone(), Arc::clone(&source.drops));
    let state_dir = source.quota_files.as_ref().map(|files| files.state_dir.clone());
    source
        .answer(format.content_type(), move |snapshot, health| {
            let facts = metrics::Facts {
                shown: lives.follow(snapshot),
                drops: drops(),
                tables: node.as_ref().map(|node| node.status.tables.as_slice()),
                not_watched: node.as_ref().map(|node| node.status.not_watched.len()),
                ledger_bytes: ledger.and_then(|ledger| ledger.file_bytes()),
                quotas: quotas.as_deref(),
                last_looks: state_dir.as_deref().map_or_else(LastLooks::default, LastLooks::read),
                // A damaged file is a problem of `trafctl status`.
                shipped: state_dir.and_then(|dir| ShipState::read(&dir).ok()),
            };
            Ok(metrics::render_with(snapshot, health, &facts, format))
        })
        .await
}

/// The document of `trafctl dump --format json`, with the same filter.
pub(super) async fn get_counters(State(source): State<Source>, asked: Asked) -> Response {
    let (mut wanted, _) = match parsed(asked, query::parse) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    let resolve = Arc::clone(&source.resolve);
    source
        .answer(JSON, move |snapshot, health| {
            wanted.containers = resolve(&wanted.containers, snapshot)?;
            let shown = dump::Filter { wanted, zeros: false }.apply(snapshot.clone());
            dump::json(&shown, &health.class_names)
        })
        .await
}

pub(super) async fn get_status(State(source): State<Source>, asked: Asked) -> Response {
    if let Err(refusal) = parsed(asked, query::none) {
        return *refusal;
    }
    source.answer(JSON, |snapshot, health| json::document(&Health::new(snapshot, health))).await
}

/// The document of `trafctl status --format json`, and what passed each interface.
pub(super) async fn get_interfaces(State(source): State<Source>, asked: Asked) -> Response {
    if let Err(refusal) = parsed(asked, query::none) {
        return *refusal;
    }
    let Some(node) = &source.node else {
        return error_answer(StatusCode::NOT_FOUND, source.without_live_figures());
    };
    let text =
        node.get(MOST_AGE).await.and_then(|node| status::with_interfaces(&node.status, &node.snapshot));
    match text {
        Ok(text) => document(JSON, text, None),
        Err(error) => refused(&error),
    }
}

/// The daemon's health.
#[derive(Debug, Serialize)]
struct Health<'a> {
    node: &'a str,
    time: String,
    trafctl_version: &'static str,
    class_table_hash: String,
    /// Passed - classes - faults.
    unaccounted: Unaccounted,
    /// `null` if no ledger is kept.
    ledger: Option<LedgerHealth>,
    /// The optional parts of the daemon.
    components: &'a [Component],
}

/// Draining since the daemon started.
#[derive(Debug, Serialize)]
struct LedgerHealth {
    last_drain: Option<String>,
    drain_failures: u64,
    gaps: u64,
}

impl<'a> Health<'a> {
    fn new(snapshot: &'a Snapshot, health: &'a DaemonHealth) -> Self {
        Self {
            node: &snapshot.node,
            time: snapshot.time.to_string(),
            trafctl_version: env!("CARGO_PKG_VERSION"),
            class_table_hash: snapshot.class_table.hash_hex(),
            unaccounted: Unaccounted::from(&snapshot.balance()),
            ledger: health.drains.as_ref().map(|drains| LedgerHealth {
                last_drain: drains.last_success.map(|time| time.to_string()),
                drain_failures: drains.failures,
                gaps: drains.gaps,
            }),
            components: &health.components,
        }
    }
}
