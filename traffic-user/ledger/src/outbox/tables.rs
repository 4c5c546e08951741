//! The tables that are shipped, and the SQL for their rows.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// [`crate::Cell::Integer`].
    Integer,
    /// [`crate::Cell::Text`].
    Text,
    /// [`crate::Cell::Bytes`].
    Bytes,
}

/// A table of the store. Its rows have a ledger and a change number beside these columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShippedTable {
    /// Its name.
    pub name: &'static str,
    /// Names of the parts whose rows it has.
    pub parts: &'static [&'static str],
    /// Columns that, with the ledger, identify a row. Of units, the first two are level and start; of all others,
    /// the first is the number of the part.
    pub keys: &'static [(&'static str, Kept)],
    /// Its other columns.
    pub values: &'static [(&'static str, Kept)],
    /// Whether the values are counters: a row of which all are 0 is the same as none.
    pub is_counted: bool,
}

impl ShippedTable {
    /// Whether its rows belong to units.
    pub fn is_of_units(&self) -> bool {
        self.parts == UNIT_PARTS
    }

    /// How many columns a row has.
    pub const fn columns(&self) -> usize {
        self.keys.len() + self.values.len()
    }
}

const UNIT_PARTS: &[&str] = &["5min", "day"];

macro_rules! integers {
    ($($name:literal),* $(,)?) => { &[$(($name, Kept::Integer)),*] };
}

/// The place of the rows of drops in [`TABLES`]. It is the last one: a store may be older than they are.
pub const DROPPED_TABLE: usize = 18;

/// All of them. The place of each never changes: a new one comes last.
pub const TABLES: [ShippedTable; 19] = {
    use Kept::{Bytes, Integer, Text};
    const fn units(
        name: &'static str,
        keys: &'static [(&'static str, Kept)],
        values: &'static [(&'static str, Kept)],
        is_counted: bool,
    ) -> ShippedTable {
        ShippedTable { name, parts: UNIT_PARTS, keys, values, is_counted }
    }
    const fn records(
        name: &'static str,
        parts: &'static [&'static str],
        keys: &'static [(&'static str, Kept)],
        values: &'static [(&'static str, Kept)],
    ) -> ShippedTable {
        ShippedTable { name, parts, keys, values, is_counted: false }
    }
    const NUMBER: &[(&str, Kept)] = integers!["number"];
    const FOUR: &[(&str, Kept)] = integers!["in_packets", "in_bytes", "out_packets", "out_bytes"];
    const TWELVE: &[(&str, Kept)] = integers![
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
    ];
    [
        units(
            "unit",
            integers!["level", "start"],
            &[("end", Integer), ("day", Text), ("month", Text)],
            false,
        ),
        units("traffic", integers!["level", "start", "container", "class", "family", "series"], FOUR, true),
        units("fault", integers!["level", "start", "interface", "fault", "series"], FOUR, true),
        units("passed", integers!["level", "start", "interface", "series"], TWELVE, true),
        units("span", integers!["level", "start", "series"], integers!["from", "until"], false),
        records(
            "container",
            &["container"],
            NUMBER,
            &[("name", Text), ("label", Text), ("kind", Text), ("since", Integer), ("retired", Integer)],
        ),
        records("interface", &["interface"], NUMBER, &[("name", Text), ("container", Integer)]),
        records(
            "series",
            &["stream"],
            NUMBER,
            &[("node", Text), ("boot_id", Text), ("epoch", Text), ("class_table", Text)],
        ),
        records(
            "class_table",
            &["class_table"],
            NUMBER,
            &[("hash", Text), ("loaded", Integer), ("prefixes", Integer), ("content", Bytes)],
        ),
        records(
            "gap",
            &["gap"],
            NUMBER,
            &[
                ("recorded", Integer),
                ("start", Integer),
                ("end", Integer),
                ("reason", Text),
                ("interface", Text),
                ("container", Integer),
                ("in_skbs", Integer),
                ("in_skb_bytes", Integer),
                ("out_skbs", Integer),
                ("out_skb_bytes", Integer),
                ("detail", Text),
            ],
        ),
        records(
            "period",
            &["period"],
            NUMBER,
            &[("name", Text), ("start", Integer), ("end", Integer), ("closed", Integer)],
        ),
        records(
            "closed_row",
            &["period"],
            &[
                ("period", Integer),
                ("node", Text),
                ("container", Text),
                ("number", Integer),
                ("class", Integer),
                ("family", Integer),
                ("class_table", Text),
            ],
            FOUR,
        ),
        records(
            "closed_rate",
            &["period"],
            integers!["period", "number", "class", "basis"],
            integers!["in_bits", "out_bits", "total_bits", "buckets", "spread_buckets"],
        ),
        records(
            "adjustment",
            &["adjustment"],
            NUMBER,
            &[
                ("period", Integer),
                ("made", Integer),
                ("container", Text),
                ("class", Integer),
                ("family", Integer),
                ("in_packets", Integer),
                ("in_bytes", Integer),
                ("out_packets", Integer),
                ("out_bytes", Integer),
                ("reason", Text),
                ("container_number", Integer),
            ],
        ),
        records("chain", &["chain"], NUMBER, &[("kind", Text), ("subject", Integer), ("hash", Text)]),
        records(
            "attribution",
            &["attribution"],
            NUMBER,
            &[
                ("owner", Integer),
                ("made", Integer),
                ("source", Text),
                ("reason", Text),
                ("in_packets", Integer),
                ("in_bytes", Integer),
                ("out_packets", Integer),
                ("out_bytes", Integer),
            ],
        ),
        records(
            "container_name",
            &["container_name"],
            NUMBER,
            &[("container", Integer), ("since", Integer), ("until", Integer), ("name", Text)],
        ),
        records(
            "owner_change",
            &["owner_change"],
            NUMBER,
            &[("made", Integer), ("interface", Text), ("former", Integer), ("owner", Integer)],
        ),
        units(
            "dropped",
            integers!["level", "start", "container", "class", "family", "reason", "series"],
            FOUR,
            true,
        ),
    ]
};

/// SQL for the rows of records, by number (`?1`). In the order of their columns.
pub(super) fn select(table: &str) -> &'static str {
    match table {
        "container" => "SELECT id, name, label, kind, since, retired FROM container WHERE id = ?1",
        "interface" => "SELECT id, name, container FROM interface WHERE id = ?1",
        "series" => {
            "SELECT s.id, n.name, e.boot_id, e.epoch, t.hash FROM stream s JOIN node n ON n.id = s.node
             JOIN epoch e ON e.id = s.epoch JOIN class_table t ON t.id = s.class_table WHERE s.id = ?1"
        }
        "class_table" => "SELECT id, hash, loaded, prefixes, content FROM class_table WHERE id = ?1",
        "gap" => {
            "SELECT id, recorded, start, end, reason, interface, container, in_skbs, in_skb_bytes, out_skbs,
             out_skb_bytes, detail FROM gap WHERE id = ?1"
        }
        "period" => "SELECT id, name, start, end, closed FROM period WHERE id = ?1",
        "closed_row" => {
            "SELECT period, node, container, number, class, family, class_table, in_packets, in_bytes,
             out_packets, out_bytes FROM closed_row WHERE period = ?1"
        }
        "closed_rate" => {
            "SELECT period, number, class, basis, in_bits, out_bits, total_bits, buckets, spread_buckets
             FROM closed_rate WHERE period = ?1"
        }
        "adjustment" => {
            "SELECT id, period, made, container, class, family, in_packets, in_bytes, out_packets, out_bytes,
             reason, number FROM adjustment WHERE id = ?1"
        }
        "container_name" => "SELECT id, container, since, until, name FROM container_name WHERE id = ?1",
        "owner_change" => "SELECT id, made, interface, former, owner FROM owner_change WHERE id = ?1",
        "chain" => "SELECT seq, kind, subject, hash FROM chain WHERE seq = ?1",
        _ => {
            "SELECT pending, owner, made, source, reason, in_packets, in_bytes, out_packets, out_bytes
             FROM attribution WHERE pending = ?1"
        }
    }
}
