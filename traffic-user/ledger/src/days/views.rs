//! The tables of packed days, and the views that show both forms as rows. They are plain SQL: whoever opens
//! the file with any SQLite sees every row.

use traffic_model::calendar::Level;

use crate::{days::columns::FIRST_CHARACTER, schema::Kind};

/// Creates the table of packed days.
pub(crate) fn table(kind: &Kind, level: Level) -> String {
    let Some(table) = kind.days_table(level) else { return String::new() };
    let keys: String = kind.keys.iter().map(|key| format!("{key} INTEGER NOT NULL, ")).collect();
    let values: String = kind.values.iter().map(|value| format!("{value} BLOB NOT NULL, ")).collect();
    format!(
        "CREATE TABLE {table} (
             start INTEGER NOT NULL, -- of the day
             {keys}
             form INTEGER NOT NULL, -- of the encoding: 1
             first INTEGER NOT NULL, -- the first bucket; its number is its start in five minutes from the day's
             step INTEGER NOT NULL, -- between two buckets, unless they are listed
             count INTEGER NOT NULL, -- of buckets
             buckets TEXT, -- a list of buckets: one character for each, U+0100 for bucket 0
             {values} -- big-endian numbers of equal width, one for each bucket
             UNIQUE (start, {})) STRICT;\n",
        kind.keys.join(", "),
    )
}

/// The places of the bytes of a number; 0 is the lowest. It is a view so that it has no rows that could change.
pub(crate) const BYTE_AT: &str =
    "CREATE VIEW byte_at (at) AS VALUES (0), (1), (2), (3), (4), (5), (6), (7);\n";

/// The day of a unit `u`.
const DAY: &str =
    "(SELECT b.start FROM border b WHERE b.level = 2 AND b.start <= u.start ORDER BY b.start DESC LIMIT 1)";

/// Name of the view that has each bucket of the packed days as a row, with the bytes of its values.
pub(crate) fn bytes_view(kind: &Kind, level: Level) -> String {
    format!("{}_bytes", kind.table(level))
}

/// SQL for a value of a row of a bytes view, whose alias is `t`.
///
/// SQLite reads the text of every view whenever it opens the file, so this is short. The offset keeps it from
/// cutting out the bytes again for each of them.
pub(crate) fn value(bytes: &str) -> String {
    format!(
        "(SELECT ifnull(sum(instr(t.every_byte, substr(b, -1 - at, 1)) - 1 << 8 * at), 0)
        FROM (SELECT {bytes} AS b LIMIT 1 OFFSET 0) CROSS JOIN byte_at ON at < length(b))"
    )
}

/// Creates the views of a level: of the bytes in packed days, and of the rows in both forms.
pub(crate) fn views(kind: &Kind, level: Level) -> String {
    let Some(days) = kind.days_table(level) else { return String::new() };
    let columns = kind.keys.iter().chain(kind.values).copied().collect::<Vec<_>>().join(", ");
    let keys: String = kind.keys.iter().map(|key| format!(", t.{key}")).collect();
    let values: String =
        kind.values.iter().map(|name| format!(",\n    {} AS {name}", value(&format!("t.{name}")))).collect();
    format!(
        "{}CREATE VIEW {} AS
SELECT start, {columns} FROM {}
UNION ALL
SELECT t.start{keys}{values}
FROM {} t;\n",
        create_bytes_view(kind, level, &days),
        kind.table(level),
        kind.rows_table(level),
        bytes_view(kind, level),
    )
}

/// Creates the view of the bytes. Unless a day lists its buckets, those whose values are all 0 are not there.
fn create_bytes_view(kind: &Kind, level: Level, days: &str) -> String {
    let keys = kind.keys.join(", ");
    let every_byte: String = (0..=u8::MAX).map(|byte| format!("{byte:02X}")).collect();
    let cut = |name: &&str| {
        format!(
            ",\n        substr({name}, place * length({name}) / count + 1, length({name}) / count) AS {name}"
        )
    };
    let bytes: String = kind.values.iter().map(cut).collect();
    let digits: Vec<String> = kind.values.iter().map(|name| format!("hex({name})")).collect();
    format!(
        "CREATE VIEW {} AS
SELECT * FROM (
    SELECT bucket_start AS start, {keys}, buckets, X'{every_byte}' AS every_byte{bytes}
    FROM (
        SELECT *, CASE
            WHEN buckets IS NOT NULL THEN nullif(instr(buckets, char(bucket + {FIRST_CHARACTER})), 0) - 1
            WHEN bucket >= first AND (bucket - first) % step = 0 AND (bucket - first) / step < count
                THEN (bucket - first) / step
            END AS place -- of the bucket in the columns, counted from 0
        FROM (
            SELECT u.start AS bucket_start, (u.start - d.start) / 300 AS bucket, d.*
            FROM unit u CROSS JOIN {days} d ON d.start = {DAY}
            WHERE u.level = {}))
    WHERE place IS NOT NULL)
WHERE buckets IS NOT NULL OR trim({}, '0') <> '';\n",
        bytes_view(kind, level),
        level as u8,
        digits.join(" || "),
    )
}
