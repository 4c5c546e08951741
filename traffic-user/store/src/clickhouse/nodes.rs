//! How far each node is.

use traffic_ledger::GapReason;

use super::{
    ClickHouse,
    http::{number, text},
    sql::{quoted, string},
};
use crate::store::{NodeState, StoreError};

/// The nodes, by name.
///
/// # Errors
/// When the store does not answer.
pub async fn nodes(store: &ClickHouse) -> Result<Vec<NodeState>, StoreError> {
    let server = &store.engine;
    let db = quoted(server.database());
    let reasons: Vec<String> = GapReason::ALL
        .into_iter()
        .filter(|reason| reason.loses_traffic())
        .map(|reason| string(reason.name()))
        .collect();
    let sql = format!(
        "SELECT place, node, ledger, version, kernel, last_reading FROM {db}.nodes WHERE node != '' ORDER BY node, ledger"
    );
    let known = server.ask(&sql).await?;
    // Each of them small: a row for each node.
    let last = format!(
        "SELECT place, max(part_number) FROM {db}.units WHERE entity = 'part' AND part = '5min' GROUP BY place"
    );
    let last = server.ask(&last).await?;
    let gaps = format!(
        "SELECT place, ifNull(`end`, 0) FROM {db}.gap WHERE ifNull(reason, '') IN ({})",
        reasons.join(", ")
    );
    let gaps = server.ask(&gaps).await?;
    let periods = format!("SELECT place, ifNull(start, 0), ifNull(`end`, 0) FROM {db}.period");
    let periods = server.ask(&periods).await?;
    let of = |rows: &[Vec<Option<String>>], place: &str| -> Vec<Vec<Option<String>>> {
        rows.iter().filter(|row| text(row, 0) == place).cloned().collect()
    };
    let mut nodes = Vec::with_capacity(known.len());
    for row in &known {
        let place = text(row, 0);
        let mut closed = Vec::new();
        for period in of(&periods, place) {
            closed.push((number::<i64>(&period, 1)?, number::<i64>(&period, 2)?));
        }
        let mut open_gaps = 0;
        for gap in of(&gaps, place) {
            let end: i64 = number(&gap, 1)?;
            open_gaps += i64::from(!closed.iter().any(|period| period.0 <= end && end < period.1));
        }
        let last_bucket = of(&last, place).first().map(|last| number(last, 1)).transpose()?;
        let reading = row.get(5).and_then(Option::as_ref).map(|_| number::<i64>(row, 5)).transpose()?;
        nodes.push(NodeState {
            node: text(row, 1).to_owned(),
            ledger: text(row, 2).to_owned(),
            version: text(row, 3).to_owned(),
            kernel: text(row, 4).to_owned(),
            last_bucket,
            last_reading: reading.map(|milliseconds| milliseconds / 1000),
            open_gaps,
        });
    }
    Ok(nodes)
}
