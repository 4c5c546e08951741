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
            let expected = |(name, kind): &(&str, String)| match *name {
                // A migration leaves `records` as it is, which has no rows of what was added.
                "entity" if table.starts_with("records") => {
                    let newest = schema::entities(schema::VERSION);
                    Expected::new(&table, name, newest).or(&schema::entities(schema::OLDEST))
                }
                // One that did not come to its end may have altered these before the version was written.
                "entity" => Expected::new(&table, name, kind).or(&schema::entities(schema::VERSION)),
                "what" => Expected::new(&table, name, kind).or(schema::noted(schema::VERSION)),
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
        of_table.insert(text(&row, 1).to_owned(), of_values(text(&row, 2)).to_owned());
    }
    Ok(crate::columns::problems(database, &expected(version), &found))
}

/// The type of a column's values. How they are kept makes no difference to statements.
fn of_values(kind: &str) -> &str {
    kind.strip_prefix("LowCardinality(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of a version, with another type of one column.
    fn tables(version: u64, (table, column, kind): (&str, &str, &str)) -> Found {
        let mut found = Found::new();
        for (table, name, kind) in expected(version).iter().map(Expected::parts) {
            let of_table = found.entry(table.to_owned()).or_default();
            of_table.insert(name.to_owned(), kind.to_owned());
        }
        let of_table = found.get_mut(table).unwrap();
        assert!(of_table.insert(column.to_owned(), of_values(kind).to_owned()).is_some());
        found
    }

    #[test]
    fn a_migration_that_did_not_come_to_its_end_may_be_repeated() {
        let problems =
            |version, altered| crate::columns::problems("d", &expected(version), &tables(version, altered));
        let (old, new) = (schema::entities(schema::OLDEST), schema::entities(schema::VERSION));
        let noted = schema::noted(schema::VERSION);
        for version in schema::OLDEST..=schema::VERSION {
            let migrated = [("units", "entity", &new[..]), ("progress", "what", noted)];
            let others = [("units_local", &new), ("records", &new), ("records", &old)];
            let others = others.map(|(table, kind)| (table, "entity", &kind[..]));
            for altered in migrated.into_iter().chain(others) {
                assert_eq!(problems(version, altered), [""; 0], "{version}: {altered:?}");
            }
        }
        // The other way round, drops would be lost.
        assert_eq!(problems(schema::VERSION, ("units", "entity", &old)).len(), 1);
        assert_eq!(problems(schema::OLDEST, ("units", "part", &new)).len(), 1);
    }

    #[test]
    fn columns_may_keep_their_values_in_a_dictionary() {
        let problems = |kind| {
            let altered = ("units", "day", kind);
            crate::columns::problems("d", &expected(schema::VERSION), &tables(schema::VERSION, altered))
        };
        assert_eq!(problems("LowCardinality(Nullable(String))"), [""; 0]);
        assert_eq!(problems("LowCardinality(String)").len(), 1);
    }
}
