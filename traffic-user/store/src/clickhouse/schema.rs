//! The tables of the store in ClickHouse, made from the ledger's list of shipped tables.
//!
//! `units` has the rows of five minutes and days, `records` all others: one insertion of a part must be into one table.
//! Their columns are those of all tables whose rows they have. `entity` says which table a row is of, and `part`,
//! `part_number` and `version` which part. Each part also has a row of its own, with the entity `part`.
//!
//! The statements are understood by ClickHouse 18.16 and all later versions. What only later ones have (codecs, syncing
//! to the disk, roles) is left out where the server does not know it.

use std::fmt::Write as _;

use traffic_ledger::{DROPPED_TABLE, Kept, ShippedTable, TABLES};

use super::{
    cluster::LOCAL,
    columns,
    sql::{Tables, quoted, string},
    views,
};
use crate::store::StoreError;

/// The version of the tables, in `store_version`.
pub(super) const VERSION: u64 = 3;
/// The oldest version that can be shipped to and reported from. It has no tenants and no drops.
pub(super) const OLDEST: u64 = 1;
/// The oldest version with tenants.
pub(super) const WITH_TENANTS: u64 = 2;
/// The oldest version with drops.
pub(super) const WITH_DROPS: u64 = 3;
/// The role that may ship.
pub(super) const SHIP_ROLE: &str = "trafctl_ship";
/// The role that may read.
pub(super) const READ_ROLE: &str = "trafctl_read";
/// The entity of a part's own row.
pub(super) const PART: &str = "part";
/// Who has which container. A store of the oldest version has no such table.
pub(super) const TENANTS: &str = "assignment";
/// Everything else besides the views.
pub(super) const OWN_TABLES: [&str; 5] = ["units", "records", "progress", "adoption", "store_version"];
/// Views that are not those of the ledger's tables.
pub(super) const OWN_VIEWS: [&str; 4] = ["nodes", "traffic_5min", "traffic_day", "bill_month"];

/// The names of parts, in an order that never changes: a new one comes last.
pub(super) const PARTS: [&str; 13] = [
    "5min",
    "day",
    "container",
    "interface",
    "stream",
    "class_table",
    "gap",
    "period",
    "adjustment",
    "chain",
    "attribution",
    "container_name",
    "owner_change",
];

/// The names of tables, in an order that never changes.
const ENTITIES: [&str; 19] = [
    "unit",
    "traffic",
    "fault",
    "passed",
    "span",
    "container",
    "interface",
    "series",
    "class_table",
    "gap",
    "period",
    "closed_row",
    "closed_rate",
    "adjustment",
    "chain",
    "attribution",
    "container_name",
    "owner_change",
    "dropped",
];

/// What progress is noted, in an order that never changes.
const NOTED: &str = "Enum8('seen' = 1, 'done' = 2, 'drops' = 3)";

/// Where the tables are made: on one server, or on all of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Made<'a> {
    pub database: &'a str,
    pub cluster: Option<&'a str>,
    pub features: Features,
}

impl Made<'_> {
    /// What comes after a name that is created.
    fn on_cluster(self) -> String {
        self.cluster.map_or_else(String::new, |name| format!(" ON CLUSTER {}", quoted(name)))
    }

    fn tables(&self) -> Tables<'_> {
        Tables { database: self.database, is_sharded: self.cluster.is_some() }
    }

    /// The statements that alter a table that [`Self::table`] made, whose rows are shared out by their place. Each may be
    /// repeated.
    fn alter(self, name: &str, what: &str) -> Vec<String> {
        let (of, on) = (quoted(self.database), self.on_cluster());
        let Some(cluster) = self.cluster else { return vec![format!("ALTER TABLE {of}.{name} {what}")] };
        // A distributed table, which old servers cannot alter on a cluster, has no rows. There is always one of its name.
        vec![
            format!("ALTER TABLE {of}.{name}{LOCAL}{on} {what}"),
            format!("DROP TABLE IF EXISTS {of}.{name}_next{on}"),
            format!("DROP TABLE IF EXISTS {of}.{name}_former{on}"),
            format!("CREATE TABLE {of}.{name}_next{on} {}", self.in_front_of(name, "place", cluster)),
            format!("RENAME TABLE {of}.{name} TO {of}.{name}_former, {of}.{name}_next TO {of}.{name}{on}"),
            format!("DROP TABLE {of}.{name}_former{on}"),
        ]
    }

    /// The definition of a distributed table.
    fn in_front_of(self, name: &str, shard: &str, cluster: &str) -> String {
        let of = quoted(self.database);
        format!(
            "AS {of}.{name}{LOCAL} ENGINE = Distributed({}, {of}, {name}{LOCAL}, {shard})",
            quoted(cluster)
        )
    }

    /// The statements that make a table from its columns and the rest of its definition. `version` is the column that says
    /// which of two rows stays, and `shard` what the rows are shared out by.
    fn table(self, name: &str, columns: &str, (version, order): (&str, &str), shard: &str) -> Vec<String> {
        let (of, settings) = (quoted(self.database), settings(self.features));
        let kind = if version.is_empty() { "MergeTree" } else { "ReplacingMergeTree" };
        let Some(cluster) = self.cluster else {
            let version = if version.is_empty() { String::new() } else { format!("({version})") };
            return vec![format!(
                "CREATE TABLE IF NOT EXISTS {of}.{name} ({columns}) ENGINE = {kind}{version} {order}{settings}"
            )];
        };
        let (on, version) =
            (self.on_cluster(), if version.is_empty() { String::new() } else { format!(", {version}") });
        // A path of its own for each shard, and for each database in it.
        let path = string(&format!("/clickhouse/tables/{{shard}}/{}/{name}", self.database));
        let local = format!("{of}.{name}{LOCAL}");
        vec![
            format!(
                "CREATE TABLE IF NOT EXISTS {local}{on} ({columns}) ENGINE = Replicated{kind}({path}, '{{replica}}'{version}) \
                 {order}{settings}"
            ),
            format!("CREATE TABLE IF NOT EXISTS {of}.{name}{on} {}", self.in_front_of(name, shard, cluster)),
        ]
    }
}

/// Whether the server knows what came after 18.16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    pub has_codecs: bool,
    pub syncs: bool,
    pub has_roles: bool,
}

/// A column of `units` or `records`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    pub kept: Kept,
    /// Whether it identifies rows of some table, and so is never null.
    pub is_key: bool,
    pub is_counter: bool,
}

/// The table in which the rows of a shipped table are.
pub(super) fn table_of(units: bool) -> &'static str {
    if units { "units" } else { "records" }
}

/// The tables whose rows are in one of the two.
pub(super) fn tables(units: bool) -> impl Iterator<Item = &'static ShippedTable> {
    TABLES.iter().filter(move |table| table.is_of_units() == units)
}

/// How many columns of a table are in `part` and `part_number`: of units level and start, otherwise the number.
pub(super) fn columns_of_part(table: &ShippedTable) -> usize {
    if table.is_of_units() { 2 } else { 1 }
}

/// The name of a column. A text that has the name of another table's number is told apart.
pub(super) fn stored_name(table: &ShippedTable, (name, kept): (&'static str, Kept)) -> String {
    // By it rows are sorted, which an older store cannot change. It has a column that drops need not.
    if (table.name, name) == ("dropped", "reason") {
        return "fault".to_owned();
    }
    let is_number_elsewhere = kept != Kept::Integer
        && tables(table.is_of_units()).any(|other| {
            let own = other.keys.iter().skip(columns_of_part(other)).chain(other.values);
            own.copied().any(|column| column == (name, Kept::Integer))
        });
    if is_number_elsewhere { format!("{name}_text") } else { name.to_owned() }
}

/// The columns of a table that are stored as such, in their order.
pub(super) fn own_columns(table: &ShippedTable) -> impl Iterator<Item = (&'static str, Kept)> {
    table.keys.iter().chain(table.values).copied().skip(columns_of_part(table))
}

/// All columns of `units` or `records` besides those of all rows.
pub(super) fn columns(units: bool) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for table in tables(units) {
        let keys = table.keys.len().saturating_sub(columns_of_part(table));
        for (at, column) in own_columns(table).enumerate() {
            let (name, is_key) = (stored_name(table, column), at < keys);
            match columns.iter_mut().find(|known| known.name == name) {
                Some(known) => {
                    known.is_key |= is_key;
                    known.is_counter &= table.is_counted;
                }
                None => columns.push(Column {
                    name,
                    kept: column.1,
                    is_key,
                    is_counter: table.is_counted && !is_key,
                }),
            }
        }
    }
    columns
}

impl Column {
    /// Whether it may hold nothing.
    pub fn is_nullable(&self) -> bool {
        !self.is_key && !self.is_counter
    }

    /// Its type.
    pub fn kind(&self) -> String {
        let kind = match self.kept {
            Kept::Integer => "Int64",
            // Binary content is kept as hexadecimal text.
            Kept::Text | Kept::Bytes => "String",
        };
        if self.is_nullable() { format!("Nullable({kind})") } else { kind.to_owned() }
    }

    fn definition(&self, features: Features) -> String {
        let kind = self.kind();
        let codec = match self.kept {
            Kept::Integer => " CODEC(T64, ZSTD(1))",
            Kept::Text | Kept::Bytes => " CODEC(ZSTD(1))",
        };
        format!("{} {kind}{}", quoted(&self.name), if features.has_codecs { codec } else { "" })
    }
}

/// The number of an entity in its column.
pub(super) fn entity_value(entity: &str) -> Result<u8, StoreError> {
    value_of(std::iter::once(PART).chain(ENTITIES), entity)
}

/// The number of a part's name in its column.
pub(super) fn part_value(part: &str) -> Result<u8, StoreError> {
    value_of(PARTS.into_iter(), part)
}

/// The number of a name in an [`enumeration`]. All names of this version are in it, as a test makes sure. Another number
/// would be that of something else, or of nothing that could be read.
fn value_of(mut names: impl Iterator<Item = &'static str>, name: &str) -> Result<u8, StoreError> {
    let at = names.position(|known| known == name).and_then(|at| u8::try_from(at).ok());
    at.ok_or_else(|| {
        StoreError::Unusable(format!(
            "the tables of the store have no number for {name:?}; nothing of it was written; use a newer trafctl"
        ))
    })
}

fn enumeration(names: impl Iterator<Item = &'static str>) -> String {
    let values: Vec<String> = names.zip(0..).map(|(name, at)| format!("{} = {at}", string(name))).collect();
    format!("Enum8({})", values.join(", "))
}

/// The type of the column that says which table a row is of.
pub(super) fn entities(version: u64) -> String {
    let count = if version < WITH_DROPS { DROPPED_TABLE } else { ENTITIES.len() };
    enumeration(std::iter::once(PART).chain(ENTITIES.into_iter().take(count)))
}

/// The columns of all rows of parts with their types.
pub(super) fn part_columns(version: u64) -> [(&'static str, String); 5] {
    [
        ("place", "UInt64".to_owned()),
        ("entity", entities(version)),
        ("part", enumeration(PARTS.into_iter())),
        ("part_number", "Int64".to_owned()),
        ("version", "UInt64".to_owned()),
    ]
}

/// The type of the column that says what progress is noted.
pub(super) const fn noted(version: u64) -> &'static str {
    if version < WITH_DROPS { "Enum8('seen' = 1, 'done' = 2)" } else { NOTED }
}

/// A list of columns with their types, as it is in a definition.
fn defined(columns: &[(&str, &str)]) -> String {
    let columns: Vec<String> = columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
    columns.join(", ")
}

fn settings(features: Features) -> &'static str {
    // What was acknowledged must also survive a power loss: a note may not remain without its rows.
    if features.syncs { " SETTINGS fsync_after_insert = 1, fsync_part_directory = 1" } else { "" }
}

fn create_parts(made: Made<'_>, units: bool) -> Vec<String> {
    let features = made.features;
    let codecs = [" CODEC(ZSTD(1))", "", "", " CODEC(DoubleDelta, ZSTD(1))", " CODEC(T64, ZSTD(1))"];
    let of_all_rows = part_columns(VERSION).into_iter().zip(codecs).map(|((name, kind), codec)| {
        format!("{name} {kind}{}", if features.has_codecs { codec } else { "" })
    });
    let mut all = of_all_rows.collect::<Vec<_>>().join(", ");
    let columns = columns(units);
    for column in &columns {
        // Writing to a string cannot fail.
        let _done = write!(all, ", {}", column.definition(features));
    }
    let partition = if units { "PARTITION BY toYYYYMM(toDateTime(part_number, 'UTC')) " } else { "" };
    let keys: String = columns
        .iter()
        .filter(|column| column.is_key)
        .map(|column| format!(", {}", quoted(&column.name)))
        .collect();
    let order = format!("{partition}ORDER BY (place, entity, part, part_number{keys})");
    made.table(table_of(units), &all, ("version", &order), "place")
}

/// The statements that create everything, one by one. Each may be repeated.
pub(super) fn create(made: Made<'_>) -> Vec<String> {
    let (of, on) = (quoted(made.database), made.on_cluster());
    let mut all = vec![format!("CREATE DATABASE IF NOT EXISTS {of}{on}")];
    all.extend(made.table(
        "progress",
        &format!("what {NOTED}, {}", defined(&columns::PROGRESS)),
        ("number", "ORDER BY (place, what, machine, token)"),
        "place",
    ));
    all.extend(made.table(
        "adoption",
        &defined(&columns::ADOPTION),
        ("", "ORDER BY (ledger, turn, place)"),
        "0",
    ));
    all.extend(create_assignment(made));
    all.extend(made.table("store_version", "version UInt64", ("", "ORDER BY version"), "0"));
    all.extend(create_parts(made, true));
    all.extend(create_parts(made, false));
    all.extend(views::views(made.tables(), &on).into_iter().map(|(_, sql)| sql));
    // Last: a store has a version when everything is there.
    all.push(format!("INSERT INTO {of}.store_version (version) VALUES ({VERSION})"));
    all
}

fn create_assignment(made: Made<'_>) -> Vec<String> {
    made.table(TENANTS, &defined(&columns::ASSIGNMENT), ("", "ORDER BY (number, id)"), "0")
}

/// The statements that bring a store of an older version to this one. Each may be repeated.
pub(super) fn migrate(made: Made<'_>) -> Vec<String> {
    let mut all = create_assignment(made);
    // Without effect where it is so already.
    all.extend(made.alter("units", &format!("MODIFY COLUMN entity {}", entities(VERSION))));
    all.extend(made.alter("progress", &format!("MODIFY COLUMN what {NOTED}")));
    all.extend(views::view_of(made.tables(), &made.on_cluster(), "dropped"));
    all.push(format!("INSERT INTO {}.store_version (version) VALUES ({VERSION})", quoted(made.database)));
    all
}

/// The statements that create the roles. A shipper adds rows and compares them; it cannot remove or alter any.
pub(super) fn create_roles(made: Made<'_>) -> Vec<String> {
    let (of, on) = (quoted(made.database), made.on_cluster());
    let mut all: Vec<String> =
        [SHIP_ROLE, READ_ROLE].map(|role| format!("CREATE ROLE IF NOT EXISTS {role}{on}")).into();
    let mut grant =
        |what: &str, table: &str, role: &str| all.push(format!("GRANT{on} {what} ON {table} TO {role}"));
    // The servers of a cluster ask each other as the same user.
    let locals: &[&str] = if made.cluster.is_some() { &["", LOCAL] } else { &[""] };
    for end in locals {
        for table in ["units", "records", "progress"] {
            grant("INSERT", &format!("{of}.{table}{end}"), SHIP_ROLE);
        }
        for table in OWN_TABLES {
            grant("SELECT", &format!("{of}.{table}{end}"), SHIP_ROLE);
        }
    }
    grant("SELECT", &format!("{of}.*"), READ_ROLE);
    if made.cluster.is_some() {
        for role in [SHIP_ROLE, READ_ROLE] {
            grant("SELECT", "system.clusters", role);
        }
    }
    all
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
