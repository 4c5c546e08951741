//! The tables of the ledger, and which columns identify a row.
//!
//! **Names** are mapped to integers once, which keeps the many rows small: `node`; `epoch` (one set of kernel
//! maps: boot id, random number) with its last reading; `class_table` (hash and text); `stream` (a series:
//! node, epoch, class table); `container` (an id; a retired container keeps its rows under a new label);
//! `interface` (a name and its container; 0 for a shared interface).
//!
//! **Last readings**: `container_life` and `interface_life` name one life of a counter (epoch, owner,
//! generation). `class_reading`, `fault_reading` and `passed_reading` hold its last values, as u64 stored in
//! SQLite's i64. `booked` holds the control totals of an epoch: the sum of everything its drains wrote.
//! `accounted_reading` holds how much of the kernel's own interface statistics is already in sums or gaps.
//!
//! **Sums**: three kinds of rows (`traffic`, `fault`, `passed`) on four levels (`_5min`, `_hour`, `_day`,
//! `_month`) make twelve tables of one shape: start of the bucket (seconds since the Unix epoch), the key of
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
//! **Gaps**: `gap`. **Closed periods**: `period`, `closed_row`, `closed_rate`, `adjustment` and `chain`; the hash of each
//! entry of the chain covers the entry before it.
//!
//! **PVA**: `pva_counter` and the views `log_def` and `log_data`. SQLite would materialise a view over a
//! union of levels for each query; choosing the level by `unit` in a subquery lets it seek one container's
//! rows. `pva_range` records what was imported from PVA's own database.

mod pva;

use jiff::Timestamp;
use rusqlite::Row;
use traffic_model::calendar::Level;

use crate::days;

pub use pva::{PVA_RANGES, log_data};

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
/// All kinds.
pub const KINDS: [Kind; 3] = [TRAFFIC, FAULT, PASSED];
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

/// The tables of packed days, and the views over both forms. Since version 6.
pub fn packed_days() -> String {
    let mut sql = String::new();
    for kind in KINDS {
        for level in PACKED_LEVELS {
            sql.push_str(&days::views::table(&kind, level));
            sql.push_str(&days::views::view(&kind, level));
        }
    }
    sql
}

/// The whole schema in its current version.
pub fn create() -> String {
    let mut sql = NAMES.to_owned();
    sql.push_str(READINGS);
    sql.push_str(ACCOUNTED);
    sql.push_str(CONTROL_TOTALS);
    for kind in KINDS {
        for level in Level::ALL {
            sql.push_str(&kind.create(level));
        }
    }
    sql.push_str(UNITS);
    sql.push_str(TIME);
    sql.push_str(RECORDS);
    sql.push_str(ATTRIBUTION);
    sql.push_str(NAMES_AND_OWNERS);
    sql.push_str(OUTBOX);
    sql.push_str(&packed_days());
    sql.push_str(pva::PVA);
    sql.push_str(&log_data());
    sql.push_str(PVA_RANGES);
    sql
}

const NAMES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
CREATE TABLE node (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE class_table (
    id INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    loaded INTEGER NOT NULL, -- seconds since the Unix epoch
    prefixes INTEGER NOT NULL,
    content BLOB -- the table in the form its owner gave it, null until given
) STRICT;
CREATE TABLE epoch (
    id INTEGER PRIMARY KEY,
    boot_id TEXT NOT NULL,
    epoch TEXT NOT NULL, -- 16 hexadecimal digits
    created INTEGER NOT NULL, -- seconds since the Unix epoch
    drains INTEGER NOT NULL DEFAULT 0, -- number of its last drain, counted over the whole ledger
    last_wall_ms INTEGER, -- wall clock of the last reading, milliseconds since the Unix epoch
    last_boottime_ns INTEGER, -- the same on CLOCK_BOOTTIME
    last_bucket INTEGER, -- the bucket it was assigned to
    last_class_table INTEGER,
    UNIQUE (boot_id, epoch)
) STRICT;
CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    class_table INTEGER NOT NULL,
    UNIQUE (node, epoch, class_table)
) STRICT;
CREATE TABLE container (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL, -- the id as the node knows it
    label TEXT NOT NULL UNIQUE, -- the id, with the time of retirement behind it once retired
    kind TEXT NOT NULL CHECK (kind IN ('ct', 'vm')),
    since INTEGER NOT NULL, -- first seen, seconds since the Unix epoch
    retired INTEGER
) STRICT;
CREATE UNIQUE INDEX container_active ON container (name) WHERE retired IS NULL;
CREATE TABLE interface (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    container INTEGER NOT NULL, -- 0: shared by many
    UNIQUE (name, container)
) STRICT;
";

const READINGS: &str = "
CREATE TABLE container_life (
    id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    container INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    gone INTEGER, -- since when no reading had it, seconds since the Unix epoch
    UNIQUE (epoch, container, generation)
) STRICT;
CREATE TABLE interface_life (
    id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    gone INTEGER, -- as above
    UNIQUE (epoch, name, generation)
) STRICT;
CREATE TABLE class_reading (
    life INTEGER NOT NULL, class INTEGER NOT NULL, family INTEGER NOT NULL,
    in_packets INTEGER NOT NULL, in_bytes INTEGER NOT NULL, out_packets INTEGER NOT NULL,
        out_bytes INTEGER NOT NULL,
    PRIMARY KEY (life, class, family)
) STRICT, WITHOUT ROWID;
CREATE TABLE fault_reading (
    life INTEGER NOT NULL, fault INTEGER NOT NULL,
    in_packets INTEGER NOT NULL, in_bytes INTEGER NOT NULL, out_packets INTEGER NOT NULL,
        out_bytes INTEGER NOT NULL,
    PRIMARY KEY (life, fault)
) STRICT, WITHOUT ROWID;
CREATE TABLE unseen_reading ( -- totals that passed while the program was not attached, as last read
    epoch INTEGER NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL,
    in_skbs INTEGER NOT NULL, in_skb_bytes INTEGER NOT NULL, out_skbs INTEGER NOT NULL,
        out_skb_bytes INTEGER NOT NULL,
    PRIMARY KEY (epoch, name, generation)
) STRICT, WITHOUT ROWID;
CREATE TABLE passed_reading (
    life INTEGER PRIMARY KEY,
    in_packets INTEGER NOT NULL, in_bytes INTEGER NOT NULL, in_skbs INTEGER NOT NULL,
        in_skb_bytes INTEGER NOT NULL,
    in_estimated_packets INTEGER NOT NULL, in_estimated_bytes INTEGER NOT NULL,
    out_packets INTEGER NOT NULL, out_bytes INTEGER NOT NULL, out_skbs INTEGER NOT NULL,
        out_skb_bytes INTEGER NOT NULL,
    out_estimated_packets INTEGER NOT NULL, out_estimated_bytes INTEGER NOT NULL
) STRICT;
";

/// Bridges the epochs of one boot. Before version 5, the table was created whenever a ledger was opened.
pub const ACCOUNTED: &str = "
CREATE TABLE IF NOT EXISTS accounted_reading ( -- part of the interface statistics that is in sums or gaps
    boot_id TEXT NOT NULL, ifindex INTEGER NOT NULL,
    epoch INTEGER NOT NULL, -- the last that had it
    in_skbs INTEGER NOT NULL, in_skb_bytes INTEGER NOT NULL, out_skbs INTEGER NOT NULL,
        out_skb_bytes INTEGER NOT NULL,
    PRIMARY KEY (boot_id, ifindex)
) STRICT, WITHOUT ROWID;
";

/// Since version 2.
pub const CONTROL_TOTALS: &str = "
CREATE TABLE booked ( -- control totals: what all drains of an epoch wrote
    epoch INTEGER NOT NULL,
    kind INTEGER NOT NULL, -- 0 classes, 1 faults, 2 passed
    in_packets INTEGER NOT NULL DEFAULT 0, in_bytes INTEGER NOT NULL DEFAULT 0,
    out_packets INTEGER NOT NULL DEFAULT 0, out_bytes INTEGER NOT NULL DEFAULT 0,
    last_in_packets INTEGER NOT NULL DEFAULT 0, last_in_bytes INTEGER NOT NULL DEFAULT 0, -- by the last drain
    last_out_packets INTEGER NOT NULL DEFAULT 0, last_out_bytes INTEGER NOT NULL DEFAULT 0,
    -- of owners that were gone before the first drain
    former_in_packets INTEGER NOT NULL, former_in_bytes INTEGER NOT NULL,
    former_out_packets INTEGER NOT NULL, former_out_bytes INTEGER NOT NULL,
    losses INTEGER NOT NULL DEFAULT 0, -- counters that fell
    PRIMARY KEY (epoch, kind)
) STRICT, WITHOUT ROWID;
";

/// Since version 3: which container a correction belongs to. For older corrections it is the container with
/// the frozen rows, or else the one that had the id when the correction was made, or the retired container
/// with that label.
pub const ADJUSTMENT_NUMBER: &str = "
ALTER TABLE adjustment ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE adjustment SET number = coalesce(
    (SELECT r.number FROM closed_row r
     WHERE r.period = adjustment.period AND r.container = adjustment.container LIMIT 1),
    (SELECT c.id FROM container c WHERE c.label = adjustment.container AND c.retired IS NOT NULL),
    (SELECT c.id FROM container c
     WHERE c.name = adjustment.container AND (c.retired IS NULL OR c.retired >= adjustment.made)
     ORDER BY c.retired IS NULL, c.retired LIMIT 1),
    0);
";

/// Since version 4: the borders of days and months as they were booked, the clock that traffic is booked by,
/// and the percentiles that closing froze.
pub const TIME: &str = "
CREATE TABLE border (
    level INTEGER NOT NULL, -- 2: day, 3: month
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    name TEXT NOT NULL, -- the date of the day, or the first date of the month
    PRIMARY KEY (level, start)
) STRICT, WITHOUT ROWID;
CREATE TABLE clock ( -- one row, about the boot of the last reading; see time/clock_line.rs
    id INTEGER PRIMARY KEY CHECK (id = 1),
    boot_id TEXT NOT NULL,
    boot_ms INTEGER NOT NULL, -- CLOCK_BOOTTIME of the last reading
    offset_ms INTEGER NOT NULL, -- booked time minus CLOCK_BOOTTIME
    trial INTEGER NOT NULL, -- 0 trusted, 1 the first start, 2 a jump that nothing confirms yet
    since_ms INTEGER NOT NULL, -- booked time since which it is so
    distrusted_ms INTEGER, -- the wall clock minus CLOCK_BOOTTIME, while it is not followed
    distrusted_since_ms INTEGER, -- CLOCK_BOOTTIME
    trusted_ms INTEGER -- booked time of the last reading with a trusted clock
) STRICT;
CREATE TABLE closed_rate ( -- bits per second at the 95th percentile
    period INTEGER NOT NULL,
    number INTEGER NOT NULL, -- the container's
    class INTEGER NOT NULL, -- -1: all billed classes together
    basis INTEGER NOT NULL, -- 3, 2 or 1
    in_bits INTEGER NOT NULL, out_bits INTEGER NOT NULL, total_bits INTEGER NOT NULL,
    buckets INTEGER NOT NULL,
    spread_buckets INTEGER NOT NULL,
    PRIMARY KEY (period, number, class, basis)
) STRICT, WITHOUT ROWID;
";

/// Since version 7: which container an owner turned out to be that was pending when it was counted.
pub const ATTRIBUTION: &str = "
CREATE TABLE attribution (
    pending INTEGER PRIMARY KEY, -- the container under whose number it was counted until then
    owner INTEGER NOT NULL, -- the container whose figures these are since then
    made INTEGER NOT NULL, -- seconds since the Unix epoch
    source TEXT NOT NULL CHECK (source IN ('counters', 'hand')),
    reason TEXT, -- as given by hand
    in_packets INTEGER NOT NULL, in_bytes INTEGER NOT NULL, out_packets INTEGER NOT NULL,
        out_bytes INTEGER NOT NULL -- what had been recorded by then, corrections of closed months included
) STRICT;
";

/// Since version 8: what people called the containers, and for whom each interface was counted.
pub const NAMES_AND_OWNERS: &str = "
CREATE TABLE container_name (
    id INTEGER PRIMARY KEY,
    container INTEGER NOT NULL, -- its number here
    since INTEGER NOT NULL, -- when a drain first saw the name, seconds since the Unix epoch
    until INTEGER, -- when a drain saw another one, or the container was retired; null while it has it
    name TEXT NOT NULL
) STRICT;
CREATE INDEX container_name_now ON container_name (container) WHERE until IS NULL;
CREATE TABLE interface_owner ( -- the interfaces that existed at the last drain
    boot_id TEXT NOT NULL, ifindex INTEGER NOT NULL,
    name TEXT NOT NULL,
    container INTEGER NOT NULL, -- 0: shared by many
    PRIMARY KEY (boot_id, ifindex)
) STRICT, WITHOUT ROWID;
CREATE TABLE owner_change (
    id INTEGER PRIMARY KEY,
    made INTEGER NOT NULL, -- seconds since the Unix epoch
    interface TEXT NOT NULL,
    former INTEGER NOT NULL, -- the container's number here, 0: shared by many
    owner INTEGER NOT NULL
) STRICT;
";

/// Since version 9: what changed last when, see [`crate::outbox`].
pub const OUTBOX: &str = "
CREATE TABLE outbox (
    name TEXT NOT NULL, -- '5min' or 'day', or a table
    part INTEGER NOT NULL, -- start of the unit, or number of the row
    rev INTEGER NOT NULL, -- change number of the transaction that changed it last
    PRIMARY KEY (name, part)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_rev ON outbox (rev);
CREATE TABLE changes ( -- one row
    id INTEGER PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL -- the last change number
) STRICT;
INSERT INTO changes VALUES (1, 0);
CREATE TABLE lineage (
    since INTEGER PRIMARY KEY, -- change number
    token TEXT NOT NULL -- random, of the connection that wrote from there on
) STRICT;
";

const UNITS: &str = "
CREATE TABLE unit (
    level INTEGER NOT NULL, -- 0: 5min, 1: hour, 2: day, 3: month
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    dirty INTEGER NOT NULL,
    finest INTEGER NOT NULL,
    PRIMARY KEY (level, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX unit_dirty ON unit (level, start, end) WHERE dirty;
CREATE TABLE span (
    bucket INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    start INTEGER NOT NULL, -- the traffic of the bucket passed from here ...
    end INTEGER NOT NULL, -- ... to here, seconds since the Unix epoch
    PRIMARY KEY (bucket, stream)
) STRICT, WITHOUT ROWID;
";

const RECORDS: &str = "
CREATE TABLE gap (
    id INTEGER PRIMARY KEY,
    recorded INTEGER NOT NULL,
    start INTEGER, -- null if unknown
    end INTEGER NOT NULL,
    reason TEXT NOT NULL,
    interface TEXT,
    container INTEGER,
    in_skbs INTEGER, in_skb_bytes INTEGER, out_skbs INTEGER, out_skb_bytes INTEGER,
    detail TEXT,
    once TEXT UNIQUE -- names what must be recorded once only
) STRICT;
CREATE INDEX gap_end ON gap (end);
CREATE TABLE period (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    closed INTEGER NOT NULL
) STRICT;
CREATE TABLE closed_row (
    period INTEGER NOT NULL,
    node TEXT NOT NULL,
    container TEXT NOT NULL, -- its label when the period was closed
    number INTEGER NOT NULL, -- the container's number here, which no retirement changes
    class INTEGER NOT NULL,
    family INTEGER NOT NULL,
    class_table TEXT NOT NULL,
    in_packets INTEGER NOT NULL, in_bytes INTEGER NOT NULL, out_packets INTEGER NOT NULL,
        out_bytes INTEGER NOT NULL,
    PRIMARY KEY (period, node, container, number, class, family, class_table)
) STRICT, WITHOUT ROWID;
CREATE TABLE adjustment (
    id INTEGER PRIMARY KEY,
    period INTEGER NOT NULL,
    made INTEGER NOT NULL,
    container TEXT NOT NULL,
    class INTEGER NOT NULL,
    family INTEGER NOT NULL,
    in_packets INTEGER NOT NULL, in_bytes INTEGER NOT NULL, out_packets INTEGER NOT NULL,
        out_bytes INTEGER NOT NULL,
    reason TEXT NOT NULL,
    number INTEGER NOT NULL DEFAULT 0 -- the container's number here, which no retirement changes
) STRICT;
CREATE TABLE chain (
    seq INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('period', 'adjustment')),
    subject INTEGER NOT NULL, -- id of the period or the adjustment
    hash TEXT NOT NULL -- SHA-256 over the hash before and the subject's rows
) STRICT;
";

/// Reads a column of seconds since the Unix epoch.
pub(crate) fn time(row: &Row<'_>, at: usize) -> rusqlite::Result<Timestamp> {
    Timestamp::from_second(row.get(at)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Integer, Box::new(error))
    })
}
