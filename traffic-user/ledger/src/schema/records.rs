//! SQL of the tables of records: time, gaps, closed periods, names, owners, and what changed last when.

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

/// Since version 10: what is used of quotas, and which thresholds were crossed when. See [`crate::write::quotas`].
pub const QUOTAS: &str = "
CREATE TABLE quota_track ( -- a quota of a container in a period
    id INTEGER PRIMARY KEY,
    quota TEXT NOT NULL, -- its name
    container INTEGER NOT NULL, -- its number here
    period INTEGER NOT NULL, -- start of the period; 0 if the period moves on with each day
    start INTEGER NOT NULL, end INTEGER NOT NULL, -- seconds since the Unix epoch
    label TEXT NOT NULL, -- the period in words
    direction TEXT NOT NULL,
    classes TEXT NOT NULL, -- numbers; empty for all that are billed
    is_rate INTEGER NOT NULL, -- whether it is a rate at a percentile, which no drain can add to
    allowance INTEGER, -- bytes or bits per second; null for no limit, or no quota any more
    thresholds TEXT NOT NULL, -- JSON: percents with the names of their actions
    ended INTEGER NOT NULL, -- whether the end of the period was noted
    UNIQUE (quota, container, period)
) STRICT;
CREATE INDEX quota_track_end ON quota_track (end);
CREATE TABLE quota_used ( -- apart from the rest, because each drain changes it
    track INTEGER PRIMARY KEY,
    in_bytes INTEGER NOT NULL, out_bytes INTEGER NOT NULL, -- or the rate, in the first
    next INTEGER -- the amount that reaches the next threshold; null if there is none
) STRICT;
CREATE TABLE quota_threshold (
    track INTEGER NOT NULL, percent INTEGER NOT NULL CHECK (percent BETWEEN 1 AND 1000),
    crossings INTEGER NOT NULL CHECK (crossings BETWEEN 0 AND 4294967295), -- how often it was reached
    is_crossed INTEGER NOT NULL,
    actions TEXT NOT NULL, -- JSON: names of the actions that were ordered when it was reached
    PRIMARY KEY (track, percent)
) STRICT, WITHOUT ROWID;
CREATE TABLE quota_crossing (
    id INTEGER PRIMARY KEY, -- in the order in which they were found
    name TEXT NOT NULL UNIQUE, -- the id that stays
    quota TEXT NOT NULL,
    container INTEGER NOT NULL, -- its number here
    start INTEGER NOT NULL, end INTEGER NOT NULL,
    label TEXT NOT NULL, -- the period in words
    percent INTEGER NOT NULL CHECK (percent BETWEEN 1 AND 1000),
    change TEXT NOT NULL CHECK (change IN ('reached', 'undone', 'ended')),
    is_rate INTEGER NOT NULL,
    used INTEGER NOT NULL, allowance INTEGER NOT NULL,
    made INTEGER NOT NULL, -- when it was found, seconds since the Unix epoch
    actions TEXT NOT NULL -- JSON: names of the actions to run for it
) STRICT;
";

/// Gaps, closed periods and their corrections.
pub const RECORDS: &str = "
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
";

/// Since version 13: known traffic that was sent to prove the counters right, and what was counted of it.
pub const CALIBRATIONS: &str = "
CREATE TABLE calibration (
    id INTEGER PRIMARY KEY,
    time INTEGER NOT NULL, -- when it was sent, seconds since the Unix epoch
    class_table TEXT NOT NULL, -- SHA-256 of the table in force
    program TEXT NOT NULL, -- SHA-256 of the kernel program
    sent_in_packets INTEGER NOT NULL, sent_in_bytes INTEGER NOT NULL, sent_out_packets INTEGER NOT NULL,
        sent_out_bytes INTEGER NOT NULL,
    in_packets INTEGER NOT NULL, in_bytes INTEGER NOT NULL, out_packets INTEGER NOT NULL,
        out_bytes INTEGER NOT NULL, -- what was counted
    differing INTEGER NOT NULL -- classes and families whose figures differ
) STRICT;
";

/// In this form since version 13: the chain of closed months, corrections and changes of the key of statements, and
/// those changes.
pub const CHAIN: &str = "
CREATE TABLE key_change (
    id INTEGER PRIMARY KEY,
    made INTEGER NOT NULL, -- seconds since the Unix epoch
    note TEXT NOT NULL -- what changes, signed; docs/statement.md describes it
) STRICT;
CREATE TABLE chain (
    seq INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('period', 'adjustment', 'key')),
    subject INTEGER NOT NULL, -- id of the period, the adjustment or the change of the key
    hash TEXT NOT NULL -- SHA-256 over the hash before and the subject's rows
) STRICT;
";
