//! Tables and views for PVA: the views that queries written for PVA read, and what was imported from PVA.

use traffic_model::calendar::Level;

use crate::{days::views, schema::TRAFFIC};

/// What was imported of each PVA counter. Before version 5, the first import created this table.
pub const PVA_RANGES: &str = "
CREATE TABLE IF NOT EXISTS pva_range (
    node TEXT NOT NULL,
    eid TEXT NOT NULL,
    class INTEGER NOT NULL, -- -1: all classes together
    value INTEGER NOT NULL, -- 0 packets in, 1 bytes in, 2 packets out, 3 bytes out
    first INTEGER NOT NULL, -- start of the first sample of an unbroken stretch, seconds since the Unix epoch
    last INTEGER NOT NULL, -- start of its last one
    PRIMARY KEY (node, eid, class, value, first)
) STRICT, WITHOUT ROWID;
";

/// The counters and views in the form of PVA's database.
pub const PVA: &str = "
CREATE TABLE pva_counter (
    id INTEGER PRIMARY KEY,
    container INTEGER NOT NULL,
    class INTEGER, -- null: all classes but 0
    value INTEGER NOT NULL, -- 0 bytes in, 1 bytes out, 2 packets in, 3 packets out
    counter TEXT NOT NULL
) STRICT;
CREATE INDEX pva_counter_of ON pva_counter (container, class);
CREATE TABLE class_use (container INTEGER, class INTEGER, PRIMARY KEY (container, class)) STRICT,
    WITHOUT ROWID;
CREATE TRIGGER pva_container AFTER INSERT ON container BEGIN
    INSERT INTO pva_counter (container, class, value, counter) VALUES
        (new.id, NULL, 0, 'counter_net_incoming_bytes'), (new.id, NULL, 1, 'counter_net_outgoing_bytes'),
        (new.id, NULL, 2, 'counter_net_incoming_packets'), (new.id, NULL, 3, 'counter_net_outgoing_packets');
END;
CREATE TRIGGER pva_class AFTER INSERT ON class_use BEGIN
    INSERT INTO pva_counter (container, class, value, counter) VALUES
        (new.container, new.class, 0, 'counter_net_incoming_bytes'),
        (new.container, new.class, 1, 'counter_net_outgoing_bytes'),
        (new.container, new.class, 2, 'counter_net_incoming_packets'),
        (new.container, new.class, 3, 'counter_net_outgoing_packets');
END;
CREATE VIEW log_def AS
SELECT p.id AS id, c.label AS eid,
    CASE c.kind WHEN 'vm' THEN 'counters_vzp_net' ELSE 'counters_vz_net' END AS lclass,
    CASE WHEN p.class IS NULL THEN '' ELSE CAST(p.class AS TEXT) END AS instance,
    p.counter AS counter
FROM pva_counter p JOIN container c ON c.id = p.container;
";

/// The samples of all counters. Which table has them depends on the unit.
pub fn log_data() -> String {
    const OF: &str = "t.start = u.start AND t.container = p.container
            AND CASE WHEN p.class IS NULL THEN t.class <> 0 ELSE t.class = p.class END";
    let value = |of: &str| {
        format!(
            "CASE p.value WHEN 0 THEN {of}.in_bytes WHEN 1 THEN {of}.out_bytes
             WHEN 2 THEN {of}.in_packets ELSE {of}.out_packets END"
        )
    };
    let both_forms = |level: Level| {
        format!(
            "SELECT sum(amount) FROM (
            SELECT {} AS amount FROM {} t WHERE {OF}
            UNION ALL SELECT {} FROM {} t WHERE {OF})",
            value("t"),
            TRAFFIC.rows_table(level),
            views::value(&value("t")),
            views::bytes_view(&TRAFFIC, level),
        )
    };
    format!(
        "CREATE VIEW log_data AS
SELECT p.id AS id, u.start AS startTime,
    CASE u.level
    WHEN 0 THEN ({})
    WHEN 1 THEN ({})
    WHEN 2 THEN (SELECT sum({}) FROM {} t WHERE {OF})
    END AS avg
FROM pva_counter p CROSS JOIN unit u
WHERE u.finest AND avg IS NOT NULL;
",
        both_forms(Level::FiveMinutes),
        both_forms(Level::Hour),
        value("t"),
        TRAFFIC.table(Level::Day),
    )
}
