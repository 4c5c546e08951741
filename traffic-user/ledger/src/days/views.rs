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

/// SQL for the number of the bucket of a unit `u` in a day `d`.
const BUCKET: &str = "(u.start - d.start) / 300";
/// SQL for the day of a unit `u`.
pub(crate) const DAY: &str =
    "(SELECT b.start FROM border b WHERE b.level = 2 AND b.start <= u.start ORDER BY b.start DESC LIMIT 1)";

/// SQL for the place of the bucket in the columns, counted from 0; less than 0 if it is not listed.
fn place() -> String {
    format!(
        "CASE WHEN d.buckets IS NULL THEN ({BUCKET} - d.first) / d.step
             ELSE instr(d.buckets, char({BUCKET} + {FIRST_CHARACTER})) - 1 END"
    )
}

/// SQL for the bytes of a value.
fn bytes(column: &str) -> String {
    let width = format!("length({column}) / d.count");
    format!("substr({column}, ({}) * ({width}) + 1, {width})", place())
}

/// SQL for a value.
pub(crate) fn value(column: &str) -> String {
    let digit =
        |at: u32| format!("(instr('123456789ABCDEF', substr(v.digits, {}, 1)) << {})", at + 1, 60 - 4 * at);
    let digits: Vec<String> = (0..16).map(digit).collect();
    // The offset keeps SQLite from computing the digits again for each of them.
    format!(
        "(SELECT {} FROM (SELECT substr('0000000000000000' || hex({}), -16) AS digits LIMIT 1 OFFSET 0) v)",
        digits.join(" | "),
        bytes(column),
    )
}

/// SQL that is true if the day `d` has a row for the bucket.
pub(crate) fn has_row(kind: &Kind) -> String {
    let all: Vec<String> =
        kind.values.iter().map(|value| format!("hex({})", bytes(&format!("d.{value}")))).collect();
    format!(
        "CASE WHEN d.buckets IS NULL THEN
             {BUCKET} >= d.first AND ({BUCKET} - d.first) % d.step = 0
             AND ({BUCKET} - d.first) / d.step < d.count AND trim({}, '0') <> ''
         ELSE instr(d.buckets, char({BUCKET} + {FIRST_CHARACTER})) > 0 END",
        all.join(" || "),
    )
}

/// Creates the view that has the rows of a level in both forms.
pub(crate) fn view(kind: &Kind, level: Level) -> String {
    let Some(days) = kind.days_table(level) else { return String::new() };
    let columns = kind.keys.iter().chain(kind.values).copied().collect::<Vec<_>>().join(", ");
    let keys: String = kind.keys.iter().map(|key| format!(", d.{key}")).collect();
    let values: String =
        kind.values.iter().map(|name| format!(",\n    {} AS {name}", value(&format!("d.{name}")))).collect();
    format!(
        "CREATE VIEW {} AS
SELECT start, {columns} FROM {}
UNION ALL
SELECT u.start{keys}{values}
FROM unit u CROSS JOIN {days} d ON d.start = {DAY}
WHERE u.level = {} AND {};\n",
        kind.table(level),
        kind.rows_table(level),
        level as u8,
        has_row(kind),
    )
}
