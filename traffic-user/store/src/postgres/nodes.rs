//! How far each node is.

use tokio_postgres::types::Type;
use traffic_ledger::GapReason;

use super::{Postgres, ask, setup};
use crate::store::{NodeState, StoreError};

/// The nodes, by name.
///
/// # Errors
/// When the store does not answer, or is of another version.
pub async fn nodes(store: &mut Postgres) -> Result<Vec<NodeState>, StoreError> {
    setup::require_version(store).await?;
    let reasons: Vec<&str> =
        GapReason::ALL.into_iter().filter(|reason| reason.loses_traffic()).map(GapReason::name).collect();
    let sql = "SELECT l.node, l.id, l.version, l.kernel,
            (SELECT max(p.number) FROM trafctl.part p WHERE p.ledger = l.number AND p.name = '5min'),
            l.last_reading / 1000,
            (SELECT count(*) FROM trafctl.gap g WHERE g.ledger = l.number AND g.reason = ANY($1) AND NOT EXISTS (
                SELECT 1 FROM trafctl.period p WHERE p.ledger = l.number AND p.start <= g.\"end\" AND p.\"end\" > g.\"end\"))
        FROM trafctl.ledger l WHERE l.node <> '' ORDER BY l.node, l.number";
    let rows = Postgres::call(ask(&mut store.client, sql, &[(&reasons, Type::TEXT_ARRAY)])).await?;
    let state = |row: &tokio_postgres::Row| NodeState {
        node: row.get(0),
        ledger: row.get(1),
        version: row.get(2),
        kernel: row.get(3),
        last_bucket: row.get(4),
        last_reading: row.get(5),
        open_gaps: row.get(6),
    };
    Ok(rows.iter().map(state).collect())
}
