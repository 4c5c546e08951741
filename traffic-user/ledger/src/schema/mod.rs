//! The tables of the ledger, and which columns identify a row.
//!
//! **Names** are mapped to integers once, which keeps the many rows small: `node`; `epoch` (one set of kernel
//! maps: boot id, random number) with its last reading; `class_table` (hash and text); `stream` (a series:
//! node, epoch, class table); `container` (an id; a retired container keeps its rows under a new label);
//! `interface` (a name and its container; 0 for a shared interface).
//!
//! **Last readings**: `container_life` and `interface_life` name one life of a counter (epoch, owner,
//! generation). `class_reading`, `fault_reading`, `passed_reading` and `drop_reading` hold its last values, as u64
//! stored in SQLite's i64. `drop_set` names the set of drop counters that was read last. `booked` holds the control totals of an epoch: the sum of everything its drains wrote.
//! `accounted_reading` holds how much of the kernel's own interface statistics is already in sums or gaps.
//!
//! **Sums**: four kinds of rows (`traffic`, `fault`, `passed`, `dropped`) on four levels (`_5min`, `_hour`, `_day`,
//! `_month`) make sixteen tables of one shape: start of the bucket (seconds since the Unix epoch), the key of
//! the kind, and its values in both directions. They are clustered by start, then owner. A drain therefore
//! appends to a few pages at one end, which spares the node's flash; retention drops pages at the other end.
//!
//! Five-minute rows and hours have two forms, see [`crate::days`]: rows (`traffic_5min_rows`) while their day
//! is open, and one row of columns per series and day (`traffic_5min_days`) afterwards. `traffic_5min` is a
//! view of both.
//!
//! `unit` lists the buckets that exist on each level. `dirty` means that the unit above it must be summed
//! again; readers then use the finer rows, so a report never waits for a rollup. `finest` means that no finer
//! rows exist for this time, so that the sum over all such units counts every byte once. `span` lists the
//! mixed buckets, which also hold traffic from outside their own five minutes.
//!
//! `border` holds the borders of days and months, `clock` the clock that traffic is booked by.
//!
//! **Pending owners** are containers whose name begins with `pending:`. `attribution` says which container each
//! turned out to be. Its rows have moved there, except for those of closed months.
//!
//! **Names**: `container_name` says what people called a container, and when. `interface_owner` holds for whom the
//! interfaces that exist were counted at the last drain, and `owner_change` when that became another one.
//!
//! **Outbox**: `outbox`, `changes` and `lineage` say what changed last when, for a store that the ledger is shipped to.
//!
//! **Quotas**: `quota_track` and `quota_used` say what is used of each quota, `quota_threshold` which thresholds are
//! crossed now, and `quota_crossing` each crossing that was ever found.
//!
//! **Gaps**: `gap`. **Closed periods**: `period`, `closed_row`, `closed_rate`, `adjustment`, `key_change` (changes of the
//! key that signs statements) and `chain`; the hash of each entry of the chain covers the entry before it.
//!
//! **Calibrations**: `calibration` has what known traffic showed.
//!
//! **PVA**: `pva_counter` and the views `log_def` and `log_data`. SQLite would materialise a view over a
//! union of levels for each query; choosing the level by `unit` in a subquery lets it seek one container's
//! rows. `pva_range` records what was imported from PVA's own database.

mod counted;
mod pva;
mod records;

use jiff::Timestamp;
use rusqlite::Row;
use traffic_model::calendar::Level;

use crate::days;

use counted::{DROP_READINGS, NAMES, READINGS, UNITS};
use records::{CHAIN, RECORDS};

pub use records::CALIBRATIONS;

pub use counted::{ACCOUNTED, CONTROL_TOTALS};
pub use pva::PVA_RANGES;
use pva::log_data;
pub use records::{ADJUSTMENT_NUMBER, ATTRIBUTION, NAMES_AND_OWNERS, OUTBOX, QUOTAS, TIME};

/// Identifies the file as a ledger (`PRAGMA application_id`): "trfc".
pub const APPLICATION_ID: i64 = 0x7472_6663;

/// A kind of sums: its table name prefix, its key columns after `start`, and its value columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Prefix of the table names.
    pub name: &'static str,
    /// Key columns after `start`.
    pub keys: &'static [&'static str],
    /// Value columns, incoming first.
    pub values: &'static [&'static str],
}

/// Packets and bytes in both directions. Every kind has them.
pub const TALLY: [&str; 4] = ["in_packets", "in_bytes", "out_packets", "out_bytes"];

/// Packets on the wire and layer-3 bytes, by container, class and family.
pub const TRAFFIC: Kind =
    Kind { name: "traffic", keys: &["container", "class", "family", "stream"], values: &TALLY };
/// Packets that passed an interface but were not classified, by reason.
pub const FAULT: Kind = Kind { name: "fault", keys: &["interface", "fault", "stream"], values: &TALLY };
/// Everything that passed an interface.
pub const PASSED: Kind = Kind {
    name: "passed",
    keys: &["interface", "stream"],
    values: &[
        "in_packets",
        "in_bytes",
        "in_skbs",
        "in_skb_bytes",
        "in_estimated_packets",
        "in_estimated_bytes",
        "out_packets",
        "out_bytes",
        "out_skbs",
        "out_skb_bytes",
        "out_estimated_packets",
        "out_estimated_bytes",
    ],
};
/// Packets that were dropped behind the hook, by group of reasons. They are in [`TRAFFIC`] too.
pub const DROPPED: Kind =
    Kind { name: "dropped", keys: &["container", "class", "family", "reason", "stream"], values: &TALLY };
/// All kinds. The place of each is its number in `booked`, and never changes.
pub const KINDS: [Kind; 4] = [TRAFFIC, FAULT, PASSED, DROPPED];
/// The kinds of ledgers from before version 12.
pub const KINDS_BEFORE_12: [Kind; 3] = [TRAFFIC, FAULT, PASSED];
/// The levels whose finished days are packed.
pub const PACKED_LEVELS: [Level; 2] = [Level::FiveMinutes, Level::Hour];

impl Kind {
    /// The kind's table on a level, or the view of both forms.
    pub fn table(&self, level: Level) -> String {
        format!("{}_{}", self.name, level.name())
    }

    /// The table that rows of a level are written to.
    pub fn rows_table(&self, level: Level) -> String {
        let form = if PACKED_LEVELS.contains(&level) { "_rows" } else { "" };
        format!("{}{form}", self.table(level))
    }

    /// The table of packed days, on levels that have one.
    pub fn days_table(&self, level: Level) -> Option<String> {
        PACKED_LEVELS.contains(&level).then(|| format!("{}_days", self.table(level)))
    }

    fn create(&self, level: Level) -> String {
        let keys = self.keys.join(", ");
        let columns = self.keys.iter().chain(self.values);
        let columns: String = columns.map(|column| format!("{column} INTEGER NOT NULL, ")).collect();
        format!(
            "CREATE TABLE {} (start INTEGER NOT NULL, {columns}PRIMARY KEY (start, {keys})) STRICT,
             WITHOUT ROWID;\n",
            self.rows_table(level),
        )
    }

    /// SQL that adds to a row of the finest level or inserts it. Parameters: start, keys, values.
    pub fn upsert(&self) -> String {
        self.upsert_at(Level::FiveMinutes)
    }

    /// The same on another level.
    pub fn upsert_at(&self, level: Level) -> String {
        let places = vec!["?"; 1 + self.keys.len() + self.values.len()].join(", ");
        self.add_rows(level, &format!("VALUES ({places})"))
    }

    /// SQL that adds rows to those of a level or inserts them. `rows` is SQL for start, keys and values.
    pub fn add_rows(&self, level: Level, rows: &str) -> String {
        let columns: Vec<&str> = ["start"].iter().chain(self.keys).chain(self.values).copied().collect();
        let added: Vec<String> =
            self.values.iter().map(|value| format!("{value} = {value} + excluded.{value}")).collect();
        format!(
            "INSERT INTO {} ({}) {rows} ON CONFLICT (start, {}) DO UPDATE SET {}",
            self.rows_table(level),
            columns.join(", "),
            self.keys.join(", "),
            added.join(", "),
        )
    }
}

/// The tables of packed days. Since version 6.
pub fn packed_days(kinds: &[Kind]) -> String {
    packed_levels(kinds).map(|(kind, level)| days::views::table(&kind, level)).collect()
}

/// The views over packed days and rows, and those that PVA's queries read. In this form since version 11.
pub fn views(kinds: &[Kind]) -> String {
    days::views::BYTE_AT.to_owned() + &views_of(kinds) + &log_data()
}

fn views_of(kinds: &[Kind]) -> String {
    packed_levels(kinds).map(|(kind, level)| days::views::views(&kind, level)).collect()
}

/// SQL that removes the views of versions 6 to 11.
pub fn drop_views() -> String {
    let of_level = |(kind, level): (Kind, Level)| [kind.table(level), days::views::bytes_view(&kind, level)];
    let all =
        packed_levels(&KINDS_BEFORE_12).flat_map(of_level).chain(["log_data", "byte_at"].map(str::to_owned));
    all.map(|view| format!("DROP VIEW IF EXISTS {view};\n")).collect()
}

/// Each kind of sums with each level whose finished days are packed.
pub fn packed_levels(kinds: &[Kind]) -> impl Iterator<Item = (Kind, Level)> {
    kinds.iter().flat_map(|&kind| PACKED_LEVELS.map(|level| (kind, level)))
}

fn sums(kinds: &[Kind]) -> String {
    kinds.iter().flat_map(|kind| Level::ALL.map(|level| kind.create(level))).collect()
}

/// SQL that adds the drops to a ledger of version 11.
pub fn add_drops() -> String {
    let kinds = [DROPPED];
    DROP_READINGS.to_owned() + &sums(&kinds) + &packed_days(&kinds) + &views_of(&kinds)
}

/// SQL that makes room in the chain of a ledger of version 12 for changes of the key of statements.
pub fn chain_keys() -> String {
    // A table's checks cannot be changed.
    format!(
        "PRAGMA legacy_alter_table = ON; ALTER TABLE chain RENAME TO former_chain; {CHAIN}
         INSERT INTO chain SELECT seq, kind, subject, hash FROM former_chain; DROP TABLE former_chain;
         PRAGMA legacy_alter_table = OFF"
    )
}

/// The whole schema in its current version.
pub fn create() -> String {
    let mut sql = NAMES.to_owned();
    sql.push_str(READINGS);
    sql.push_str(ACCOUNTED);
    sql.push_str(CONTROL_TOTALS);
    sql.push_str(DROP_READINGS);
    sql.push_str(&sums(&KINDS));
    sql.push_str(UNITS);
    sql.push_str(TIME);
    sql.push_str(RECORDS);
    sql.push_str(CHAIN);
    sql.push_str(CALIBRATIONS);
    sql.push_str(ATTRIBUTION);
    sql.push_str(NAMES_AND_OWNERS);
    sql.push_str(OUTBOX);
    sql.push_str(QUOTAS);
    sql.push_str(&packed_days(&KINDS));
    sql.push_str(pva::PVA);
    sql.push_str(&views(&KINDS));
    sql.push_str(PVA_RANGES);
    sql
}

/// Reads a column of seconds since the Unix epoch.
pub(crate) fn time(row: &Row<'_>, at: usize) -> rusqlite::Result<Timestamp> {
    Timestamp::from_second(row.get(at)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Integer, Box::new(error))
    })
}
