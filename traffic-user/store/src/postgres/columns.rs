//! Whether the tables have the columns that they were made with. Somebody may have altered them by hand.

use std::collections::BTreeMap;

use tokio_postgres::GenericClient;
use traffic_ledger::TABLES;

use super::{Postgres, schema};
use crate::{columns::Expected, store::StoreError};

/// The columns of the tables that do not have the ledger's rows, with their types as the server names them.
const OWN: [(&str, &[(&str, &str)]); 5] = [
    ("store_version", &[("version", "integer")]),
    (
        "ledger",
        &[
            ("number", "integer"),
            ("id", "text"),
            ("node", "text"),
            ("version", "text"),
            ("kernel", "text"),
            ("machine", "text"),
            ("changes", "bigint"),
            ("token", "text"),
            ("done", "bigint"),
            ("zone", "text"),
            ("billing_day", "integer"),
            ("begun", "bigint"),
            ("ended", "bigint"),
            ("last_bucket", "bigint"),
            ("last_reading", "bigint"),
            ("id_scope", "text"),
            ("drops_from", "bigint"),
            ("without_drops", "bigint"),
            ("drops_kept_from", "bigint"),
        ],
    ),
    ("replaced", &[("id", "text"), ("by", "text")]),
    ("part", &[("ledger", "integer"), ("name", "text"), ("number", "bigint"), ("rev", "bigint")]),
    (
        "assignment",
        &[
            ("number", "integer"),
            ("tenant", "text"),
            ("container", "text"),
            ("node", "text"),
            ("from", "bigint"),
            ("until", "bigint"),
        ],
    ),
];

/// The columns of all tables of this version.
fn expected() -> Vec<Expected> {
    let mut all: Vec<Expected> = OWN
        .iter()
        .flat_map(|(table, columns)| columns.iter().map(|(name, kind)| Expected::new(table, name, *kind)))
        .collect();
    for table in &TABLES {
        let own = [("ledger", "integer"), ("rev", "bigint")];
        let shipped = schema::columns(table).map(|(name, kept)| (name, schema::sql_type(name, kept, table)));
        all.extend(own.into_iter().chain(shipped).map(|(name, kind)| Expected::new(table.name, name, kind)));
    }
    all
}

/// What is wrong with the columns of a schema of this version: a sentence for each. Tables that are not there are left
/// out.
pub(super) async fn problems(client: &impl GenericClient) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
               FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'trafctl' AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped";
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for row in Postgres::call(client.query_typed(sql, &[])).await? {
        found.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
    }
    Ok(crate::columns::problems(schema::SCHEMA, &expected(), &found))
}
