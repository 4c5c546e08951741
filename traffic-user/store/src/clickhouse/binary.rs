//! The rows of parts as `RowBinary`: all columns of a table one after the other, so that nothing has to be parsed.
//!
//! Whole numbers are little-endian. What may be null begins with a byte that says whether it is, texts begin with their
//! length, and an `Enum8` is the number of its value.

use traffic_ledger::{Cell, Kept, ShippedTable, TABLES};

use super::{
    engine::Versioned,
    schema::{self, Column, PART, columns_of_part, own_columns, stored_name},
    sql::{quoted, rows_of},
};
use crate::{digests::storable, store::StoreError};

/// The columns of all rows, in the order of their values.
const OF_ALL_ROWS: &str = "place, entity, part, part_number, version";

/// Their bytes.
const OF_EACH_ROW: usize = 26;

/// The columns of an insertion, in the order of their values.
pub(super) fn columns(units: bool) -> String {
    let own: String =
        schema::columns(units).iter().map(|column| format!(", {}", quoted(&column.name))).collect();
    format!("{OF_ALL_ROWS}{own}")
}

/// The rows of parts, with one for each part itself.
///
/// # Errors
/// When a name has no number in the tables.
pub(super) fn part_rows(place: u64, parts: &Versioned<'_>, units: bool) -> Result<Vec<u8>, StoreError> {
    let columns = schema::columns(units);
    let places: Vec<Vec<Option<usize>>> = TABLES.iter().map(|table| places(table, &columns)).collect();
    // Without room from the start, it would be copied while it grows, and take twice the memory.
    let mut all = Vec::with_capacity(rows_of(parts) * (OF_EACH_ROW + columns.len() * size_of::<i64>()));
    for (content, version) in parts {
        let part = schema::part_value(content.name)?;
        let begin = |entity: &str, all: &mut Vec<u8>| -> Result<(), StoreError> {
            all.extend(place.to_le_bytes());
            all.push(schema::entity_value(entity)?);
            all.push(part);
            all.extend(content.number.to_le_bytes());
            all.extend(version.to_le_bytes());
            Ok(())
        };
        begin(PART, &mut all)?;
        columns.iter().for_each(|column| write(column, &Cell::Null, &mut all));
        for (table, row) in &content.rows {
            begin(TABLES[*table].name, &mut all)?;
            for (column, place) in columns.iter().zip(&places[*table]) {
                write(column, place.and_then(|place| row.get(place)).unwrap_or(&Cell::Null), &mut all);
            }
        }
        for (table, numbers) in content.counted_rows() {
            begin(TABLES[table].name, &mut all)?;
            for (column, place) in columns.iter().zip(&places[table]) {
                match place.and_then(|place| numbers.get(place)) {
                    Some(number) if !column.is_nullable() => all.extend(number.to_le_bytes()),
                    Some(number) => write(column, &Cell::Integer(*number), &mut all),
                    None => write(column, &Cell::Null, &mut all),
                }
            }
        }
    }
    Ok(all)
}

/// Where a table's rows have the value of each column.
fn places(table: &ShippedTable, columns: &[Column]) -> Vec<Option<usize>> {
    let of_part = columns_of_part(table);
    let names: Vec<String> = own_columns(table).map(|column| stored_name(table, column)).collect();
    let place = |column: &Column| Some(names.iter().position(|name| *name == column.name)? + of_part);
    columns.iter().map(place).collect()
}

/// Writes a value. What is not there is null, or else 0 or empty.
fn write(column: &Column, cell: &Cell, into: &mut Vec<u8>) {
    if column.is_nullable() {
        let is_null = *cell == Cell::Null;
        into.push(u8::from(is_null));
        if is_null {
            return;
        }
    }
    match (column.kept, cell) {
        (Kept::Integer, Cell::Integer(number)) => into.extend(number.to_le_bytes()),
        (Kept::Integer, _) => into.extend(0_i64.to_le_bytes()),
        (_, Cell::Text(text)) => write_text(&storable(text), into),
        (_, Cell::Bytes(bytes)) => {
            write_text(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), into);
        }
        (..) => write_text("", into),
    }
}

fn write_text(text: &str, into: &mut Vec<u8>) {
    let mut length = text.len();
    while length >= 0x80 {
        into.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    into.push(length.to_le_bytes()[0]);
    into.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use traffic_ledger::Content;

    use super::*;

    /// The columns of one row with their values, without those that have none.
    fn read(bytes: &mut &[u8], units: bool) -> Vec<(String, String)> {
        let mut take = |count: usize| {
            let (taken, rest) = bytes.split_at(count);
            *bytes = rest;
            taken.to_vec()
        };
        let mut found = Vec::new();
        for (name, width) in OF_ALL_ROWS.split(", ").zip([8, 1, 1, 8, 8]) {
            let mut number = take(width);
            number.resize(8, 0);
            found.push((name.to_owned(), u64::from_le_bytes(number.try_into().unwrap()).to_string()));
        }
        for column in schema::columns(units) {
            if column.is_nullable() && take(1) == [1] {
                continue;
            }
            let value = if column.kept == Kept::Integer {
                i64::from_le_bytes(take(8).try_into().unwrap()).to_string()
            } else {
                let mut length = 0;
                for shift in (0..).step_by(7) {
                    let byte = take(1)[0];
                    length |= usize::from(byte & 0x7f) << shift;
                    if byte < 0x80 {
                        break;
                    }
                }
                String::from_utf8(take(length)).unwrap()
            };
            if !matches!(value.as_str(), "0" | "") {
                found.push((column.name, value));
            }
        }
        found
    }

    fn named(row: &[(&str, &str)]) -> Vec<(String, String)> {
        row.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_part_is_one_row_more_than_its_rows() {
        let unit = [Cell::Integer(0), Cell::Integer(300), Cell::Integer(600), Cell::Null, Cell::Null];
        let mut content = Content::new("5min", 300, 4);
        content.rows.push((0, unit.to_vec()));
        content.counted.push((1, vec![0, 300, 7, 1, 0, 2, 10, -11, 12, 13]));
        let bytes = part_rows(9, &[(&content, 262_144)], true).unwrap();
        let mut left = &bytes[..];
        let of = |entity| {
            [("place", "9"), ("entity", entity), ("part", "0"), ("part_number", "300"), ("version", "262144")]
        };
        assert_eq!(read(&mut left, true), named(&of("0")));
        assert_eq!(read(&mut left, true), named(&[&of("1")[..], &[("end", "600")]].concat()));
        let counted = [
            ("container", "7"),
            ("class", "1"),
            ("series", "2"),
            ("in_packets", "10"),
            ("in_bytes", "-11"),
            ("out_packets", "12"),
            ("out_bytes", "13"),
        ];
        let mut row = read(&mut left, true);
        let mut expected = named(&[&of("2")[..], &counted].concat());
        row.sort();
        expected.sort();
        assert_eq!(row, expected);
        assert!(left.is_empty());
    }

    #[test]
    fn a_name_without_a_number_is_refused() {
        let content = Content::new("weather", 5, 1);
        let error = part_rows(9, &[(&content, 65_536)], false).unwrap_err();
        assert!(error.to_string().contains("no number for \"weather\""), "{error}");
    }

    #[test]
    fn texts_may_have_any_length_and_content() {
        let text = "\n\u{0}é".repeat(40);
        let gap = |number: i64| {
            let mut row = vec![Cell::Null; 12];
            (row[0], row[4], row[11]) =
                (Cell::Integer(number), Cell::Text("attach".to_owned()), Cell::Text(text.clone()));
            row
        };
        let mut content = Content::new("gap", 5, 1);
        content.rows.push((9, gap(5)));
        let bytes = part_rows(9, &[(&content, 65_536)], false).unwrap();
        let mut left = &bytes[..];
        read(&mut left, false);
        let row = read(&mut left, false);
        assert!(left.is_empty());
        let value = |name: &str| row.iter().find(|column| column.0 == name).map(|column| column.1.clone());
        assert_eq!(value("detail"), Some(storable(&text).into_owned()));
        assert_eq!(value("reason"), Some("attach".to_owned()));
    }
}
