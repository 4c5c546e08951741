//! Statements, the rows that go with insertions, and the rows that come back.
//!
//! An alias never has the name of a column: ClickHouse would also put it into the conditions.

use std::fmt::Write as _;

use traffic_ledger::{Content, DROPPED_TABLE, Kept, ShippedTable, TABLES};

use super::{
    engine::{Adoption, Notes, Versions},
    schema::{self, PART, columns_of_part, own_columns, stored_name, table_of, tables},
    tenants::Entry,
};
use crate::digests::storable;

/// A name in a statement.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A text in a statement.
pub(super) fn string(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A number in a statement. The least one of all has no literal.
fn number(value: i64) -> String {
    if value == i64::MIN { format!("toInt64('{value}')") } else { value.to_string() }
}

/// The database of the store, and whether its tables are in front of many servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tables<'a> {
    pub database: &'a str,
    pub is_sharded: bool,
}

impl Tables<'_> {
    /// A table in a statement.
    pub fn table(self, name: &str) -> String {
        format!("{}.{name}", quoted(self.database))
    }

    /// `IN` before a query, which one server answers for all.
    pub fn is_in(self) -> &'static str {
        if self.is_sharded { "GLOBAL IN" } else { "IN" }
    }
}

/// The rows of a place that count: those of the version that their part has.
pub(super) fn counted(of: Tables<'_>, units: bool, filter: &str) -> String {
    let (table, is_in) = (of.table(table_of(units)), of.is_in());
    format!(
        "{table} FINAL WHERE entity != '{PART}' AND {filter} AND (place, part, part_number, version) {is_in} (SELECT place, \
         part, part_number, version FROM {table} FINAL WHERE entity = '{PART}' AND {filter})"
    )
}

/// The same of one entity and one kind of part, together with the rows of the parts themselves. `filter` names the kind
/// of part.
///
/// The statement reads the table twice, at two moments and perhaps in two replicas: the version of a part may be another one
/// the second time, and then nothing of the part is there, also not its own row.
///
/// Not `merged`, it takes half the time, and is exact if each part has one row of its own: then everything of the part is
/// in one piece of the table, where each row is there once. A repetition that is not merged yet brings another one.
pub(super) fn counted_with_parts(of: Tables<'_>, entity: &str, filter: &str, merged: bool) -> String {
    let (table, is_in) = (of.table(table_of(true)), of.is_in());
    format!(
        "{table}{} WHERE {filter} AND entity IN ('{PART}', {}) AND (place, part_number, version) {is_in} (SELECT place, \
         part_number, version FROM {table} FINAL WHERE entity = '{PART}' AND {filter})",
        if merged { " FINAL" } else { "" },
        string(entity)
    )
}

/// The value of a column that a table has in `part` or `part_number`.
pub(super) fn part_column(table: &ShippedTable, at: usize) -> &'static str {
    match (table.is_of_units(), at) {
        (true, 0) => "if(part = '5min', 0, 2)",
        _ => "part_number",
    }
}

/// A row as the line of which digests are made; the node writes the same.
fn line(table: &ShippedTable) -> String {
    let columns = schema::columns(table.is_of_units());
    let mut fields: Vec<String> =
        (0..columns_of_part(table)).map(|at| format!("toString({})", part_column(table, at))).collect();
    for column in own_columns(table) {
        let name = stored_name(table, column);
        let is_nullable = columns.iter().any(|known| known.name == name && known.is_nullable());
        let name = quoted(&name);
        let text = match column.1 {
            Kept::Integer => format!("toString({name})"),
            Kept::Text => format!("concat(toString(length({name})), ':', {name})"),
            Kept::Bytes => name,
        };
        fields.push(if is_nullable { format!("ifNull({text}, '-')") } else { text });
    }
    format!("concat({})", fields.join(", ' ', "))
}

/// The digests of the parts in a place: table, part, number, rows, hash.
pub(super) fn digests(of: Tables<'_>, place: u64, units: Option<(i64, i64)>, has_drops: bool) -> String {
    let filter = match units {
        Some((from, until)) => {
            format!("place = {place} AND part_number >= {} AND part_number < {}", number(from), number(until))
        }
        None => format!("place = {place}"),
    };
    let mut lines = String::new();
    let without = (!has_drops).then_some(TABLES[DROPPED_TABLE].name);
    for table in tables(units.is_some()).filter(|table| Some(table.name) != without) {
        // Writing to a string cannot fail.
        let _done = write!(lines, "entity = '{}', {}, ", table.name, line(table));
    }
    format!(
        "SELECT e, p, n, count(), lower(hex(SHA256(arrayStringConcat(arraySort(groupArray(l)), '\\n')))) FROM (SELECT \
         toString(entity) AS e, toString(part) AS p, part_number AS n, multiIf({lines}'') AS l FROM {}) GROUP BY e, p, n",
        counted(of, units.is_some(), &filter)
    )
}

/// The versions of parts: part, number, that of the part or 0, the highest.
pub(super) fn versions(database: &str, place: u64, parts: &[(&str, i64)]) -> String {
    let units = parts.iter().all(|part| matches!(part.0, "5min" | "day"));
    let list: Vec<String> =
        parts.iter().map(|(part, of)| format!("({}, {})", string(part), number(*of))).collect();
    format!(
        "SELECT toString(part) AS p, part_number AS n, max(if(entity = '{PART}', version, 0)), max(version) FROM {}.{} \
         WHERE place = {place} AND (p, n) IN ({}) GROUP BY p, n",
        quoted(database),
        table_of(units),
        list.join(", ")
    )
}

/// The versions of parts alone: part, number, version. Only their own rows are read.
pub(super) fn part_versions(database: &str, place: u64, parts: &Versions<'_>) -> String {
    let units = parts.iter().all(|part| super::is_of_unit(part.0));
    let list: Vec<String> =
        parts.iter().map(|part| format!("({}, {})", string(part.0), number(part.1))).collect();
    format!(
        "SELECT toString(part) AS p, part_number AS n, max(version) FROM {}.{} WHERE place = {place} AND entity = '{PART}' AND \
         (p, n) IN ({}) GROUP BY p, n",
        quoted(database),
        table_of(units),
        list.join(", ")
    )
}

/// Copies five minutes to another place, as the oldest version.
pub(super) fn copy(of: Tables<'_>, (from, to): (u64, u64), before: i64) -> String {
    let columns: String =
        schema::columns(true).iter().map(|column| format!(", {}", quoted(&column.name))).collect();
    let (table, is_in) = (of.table("units"), of.is_in());
    let filter = format!("place = {from} AND part = '5min' AND part_number < {}", number(before));
    // Also the rows of the parts themselves, which have the version of their parts.
    format!(
        "INSERT INTO {table} (place, entity, part, part_number, version{columns}) SELECT {to}, entity, part, part_number, \
         1{columns} FROM {table} FINAL WHERE {filter} AND (part, part_number, version) {is_in} (SELECT part, part_number, version \
         FROM {table} FINAL WHERE entity = '{PART}' AND {filter})"
    )
}

pub(super) fn adoptions(database: &str, ledger: &str) -> String {
    format!(
        "SELECT ledger, turn, place, replaced_by FROM {}.adoption WHERE ledger = {}",
        quoted(database),
        string(ledger)
    )
}

/// What is noted about a place: kind, machine, token, number.
pub(super) fn progress(database: &str, place: u64) -> String {
    format!(
        "SELECT what, machine, token, number, ended FROM {}.progress FINAL WHERE place = {place}",
        quoted(database)
    )
}

/// A row for an insertion.
struct Row(String);

impl Row {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn key(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.write_text(name);
        self.0.push(':');
    }

    fn number(&mut self, name: &str, value: impl std::fmt::Display) {
        self.key(name);
        let _done = write!(self.0, "{value}");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.key(name);
        self.write_text(text);
    }

    fn write_text(&mut self, text: &str) {
        self.0.push('"');
        for character in text.chars() {
            match character {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                control if control.is_control() => {
                    let _done = write!(self.0, "\\u{:04x}", u32::from(control));
                }
                other => self.0.push(other),
            }
        }
        self.0.push('"');
    }

    fn end(self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.0.as_bytes());
        into.extend_from_slice(b"}\n");
    }
}

/// How many rows parts have, with those of the parts themselves.
pub(super) fn rows_of(parts: &[(&Content, u64)]) -> usize {
    parts.iter().map(|(content, _)| content.count() + 1).sum()
}

/// The rows of notes.
pub(super) fn note_rows(notes: Notes<'_>) -> Vec<u8> {
    let Notes { place, ledger, seen, done, has_drops, drops_kept_from, node, extent } = notes;
    let mut all = Vec::new();
    let mut row = Row::new();
    row.number("place", place);
    row.text("what", "seen");
    row.text("machine", &storable(seen.machine.as_deref().unwrap_or_default()));
    row.text("token", &storable(seen.token.as_deref().unwrap_or_default()));
    row.number("number", seen.changes.max(0));
    row.text("ledger", &storable(ledger));
    row.text("node", &storable(&node.name));
    row.text("trafctl", &storable(&node.version));
    row.text("kernel", &storable(&node.kernel));
    row.text("id_scope", if node.has_cluster_ids { "cluster" } else { "node" });
    row.text("zone", &storable(&extent.zone));
    row.number("billing_day", extent.billing_day);
    row.number("begun", extent.recorded.0);
    row.number("ended", extent.recorded.1);
    if let Some(bucket) = extent.last_bucket {
        row.number("last_bucket", bucket);
    }
    if let Some(reading) = extent.last_reading_ms {
        row.number("last_reading", reading);
    }
    row.end(&mut all);
    if let Some(done) = done {
        let mut row = Row::new();
        row.number("place", place);
        row.text("what", "done");
        row.number("number", done.max(0));
        row.text("ledger", &storable(ledger));
        row.end(&mut all);
    }
    if has_drops {
        let mut row = Row::new();
        row.number("place", place);
        row.text("what", "drops");
        row.number("number", seen.changes.max(0));
        row.text("ledger", &storable(ledger));
        // Since when there are any.
        row.number("begun", extent.drops_from.unwrap_or(0));
        // Before when five minutes may lack theirs.
        row.number("ended", drops_kept_from.unwrap_or(0));
        row.end(&mut all);
    }
    all
}

pub(super) fn adoption_rows(adoptions: &[Adoption]) -> Vec<u8> {
    let mut all = Vec::new();
    for Adoption { ledger, turn, place, replaced_by } in adoptions {
        let mut row = Row::new();
        row.text("ledger", &storable(ledger));
        row.number("turn", turn);
        row.number("place", place);
        row.text("replaced_by", &storable(replaced_by.as_deref().unwrap_or_default()));
        row.end(&mut all);
    }
    all
}

/// The row of an assignment.
pub(super) fn assignment_row(entry: &Entry) -> Vec<u8> {
    let Entry { assignment: of, id, is_removed } = entry;
    let mut row = Row::new();
    row.number("number", of.number);
    row.number("id", id);
    row.number("removed", u8::from(*is_removed));
    row.text("tenant", &storable(&of.tenant));
    row.text("container", &storable(&of.container));
    row.text("node", &storable(of.node.as_deref().unwrap_or_default()));
    row.number("begun", of.from);
    if let Some(until) = of.until {
        row.number("ended", until);
    }
    let mut all = Vec::new();
    row.end(&mut all);
    all
}

/// The rows of an answer. `None` for what is null.
pub(super) fn rows(answer: &[u8]) -> Vec<Vec<Option<String>>> {
    let text = String::from_utf8_lossy(answer);
    text.lines().map(|line| line.split('\t').map(field).collect()).collect()
}

fn field(text: &str) -> Option<String> {
    if text == "\\N" {
        return None;
    }
    let mut field = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            field.push(character);
            continue;
        }
        match characters.next() {
            Some('t') => field.push('\t'),
            Some('n') => field.push('\n'),
            Some('r') => field.push('\r'),
            Some('b') => field.push('\u{8}'),
            Some('f') => field.push('\u{c}'),
            Some('0') => field.push('\0'),
            other => field.extend(other),
        }
    }
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let answer = b"seen\ta\\tb\\\\c\t\\N\t5\ndone\t\t\\'\t\\n\n";
        let row = |fields: [Option<&str>; 4]| fields.map(|field| field.map(str::to_owned)).to_vec();
        assert_eq!(
            rows(answer),
            [
                row([Some("seen"), Some("a\tb\\c"), None, Some("5")]),
                row([Some("done"), Some(""), Some("'"), Some("\n")])
            ]
        );
        assert!(rows(b"").is_empty());
    }

    #[test]
    fn texts_cannot_leave_their_place() {
        assert_eq!(string("a'b\\"), "'a\\'b\\\\'");
        assert_eq!(quoted("a`b"), "`a\\`b`");
        let mut row = Row::new();
        row.text("label", "\"},{\n\u{7f}é\\");
        row.number("n", -5);
        let mut all = Vec::new();
        row.end(&mut all);
        assert_eq!(String::from_utf8(all).unwrap(), "{\"label\":\"\\\"},{\\u000a\\u007fé\\\\\",\"n\":-5}\n");
    }
}
