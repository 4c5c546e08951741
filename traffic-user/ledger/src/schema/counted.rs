//! SQL of the tables that drains count into: names, last readings, control totals and units. The tables of the sums
//! themselves come from [`Kind`](super::Kind).

/// Names mapped to integers.
pub const NAMES: &str = "
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

/// Last readings.
pub const READINGS: &str = "
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

/// Since version 12: last readings of the counters of drops.
pub const DROP_READINGS: &str = "
CREATE TABLE drop_reading (
    life INTEGER NOT NULL, class INTEGER NOT NULL, family INTEGER NOT NULL, reason INTEGER NOT NULL,
    in_packets INTEGER NOT NULL, in_bytes INTEGER NOT NULL, out_packets INTEGER NOT NULL,
        out_bytes INTEGER NOT NULL,
    PRIMARY KEY (life, class, family, reason)
) STRICT, WITHOUT ROWID;
CREATE TABLE drop_set ( -- one row: the set of drop counters that was read last
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL,
    number INTEGER, -- names it within its boot; null if nobody knows what was recorded of the present one
    read INTEGER NOT NULL, -- when, seconds since the Unix epoch
    recorded INTEGER NOT NULL, -- since when drops are recorded in this ledger, seconds since the Unix epoch
    gap INTEGER -- its row in `gap` while no set can be read
) STRICT;
";

/// Which buckets exist on each level.
pub const UNITS: &str = "
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
