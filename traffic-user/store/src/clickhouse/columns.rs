//! The columns of the tables that do not have the ledger's rows, and whether all tables have the columns that they were
//! made with. Somebody may have altered them by hand.

use super::{
    Http,
    cluster::LOCAL,
    http::text,
    schema::{self, TENANTS},
    sql::string,
};
use crate::{
    columns::{Expected, Found},
    store::StoreError,
};

/// The columns of `progress` with their types, besides `what`.
pub(super) const PROGRESS: [(&str, &str); 15] = [
    ("place", "UInt64"),
    ("machine", "String"),
    ("token", "String"),
    ("number", "UInt64"),
    ("ledger", "String"),
    ("node", "String"),
    ("trafctl", "String"),
    ("kernel", "String"),
    ("id_scope", "String"),
    ("zone", "String"),
    ("billing_day", "UInt8"),
    ("begun", "Int64"),
    ("ended", "Int64"),
    ("last_bucket", "Nullable(Int64)"),
    ("last_reading", "Nullable(Int64)"),
];
/// The columns of `adoption` with their types.
pub(super) const ADOPTION: [(&str, &str); 4] =
    [("ledger", "String"), ("turn", "UInt64"), ("place", "UInt64"), ("replaced_by", "String")];
/// The columns of `assignment` with their types.
pub(super) const ASSIGNMENT: [(&str, &str); 8] = [
    ("number", "Int64"),
    ("id", "UInt64"),
    ("removed", "UInt8"),
    ("tenant", "String"),
    ("container", "String"),
    ("node", "String"),
    ("begun", "Int64"),
    ("ended", "Nullable(Int64)"),
];

/// The columns of all tables of a version.
fn expected(version: u64) -> Vec<Expected> {
    let mut all = Vec::new();
    let mut add = |table: &str, columns: &[(&str, String)]| {
        // A cluster has each table twice. One that is not there is left out.
        for table in [table.to_owned(), format!("{table}{LOCAL}")] {
            // A migration leaves `records` as it is, which has no rows of what was added.
            let expected = |(name, kind): &(&str, String)| match *name {
                "entity" if table.starts_with("records") => {
                    Expected::new(&table, name, kind).or(&schema::entities(schema::OLDEST))
                }
                _ => Expected::new(&table, name, kind),
            };
            all.extend(columns.iter().map(expected));
        }
    };
    for units in [true, false] {
        let columns = schema::columns(units);
        let own: Vec<(&str, String)> =
            columns.iter().map(|column| (column.name.as_str(), column.kind())).collect();
        add(schema::table_of(units), &[&schema::part_columns(version)[..], &own[..]].concat());
    }
    let of = |columns: &[(&'static str, &'static str)]| -> Vec<(&'static str, String)> {
        columns.iter().map(|(name, kind)| (*name, (*kind).to_owned())).collect()
    };
    let mut progress = of(&PROGRESS);
    progress.push(("what", schema::noted(version).to_owned()));
    add("progress", &progress);
    add("adoption", &of(&ADOPTION));
    add(TENANTS, &of(&ASSIGNMENT));
    add("store_version", &of(&[("version", "UInt64")]));
    all
}

/// What is wrong with the columns of a store: a sentence for each. Tables that are not there, or that this user may not
/// see, are left out.
pub(super) async fn problems(server: &Http, version: u64) -> Result<Vec<String>, StoreError> {
    let database = server.database();
    let sql = format!("SELECT table, name, type FROM system.columns WHERE database = {}", string(database));
    let mut found = Found::new();
    for row in server.ask(&sql).await? {
        let of_table = found.entry(text(&row, 0).to_owned()).or_default();
        of_table.insert(text(&row, 1).to_owned(), text(&row, 2).to_owned());
    }
    Ok(crate::columns::problems(database, &expected(version), &found))
}
