//! Finished days as columns.
//!
//! Rows of five minutes and of hours have two forms. A new value is a row of `KIND_LEVEL_rows`. Once a day is
//! over, maintenance packs each of its series (the key of a row without its start) into one row of
//! `KIND_LEVEL_days`, which holds one column of numbers for each value. A value may have a part in either
//! form: their sum counts. So late traffic is written as a row like any other, and the next maintenance adds
//! it to the column. Readers get both forms from [`read`], users from the view `KIND_LEVEL`.
//!
//! - [`columns`]: the encoding. - [`pack`]: rows to columns. - [`take_out`]: columns to rows, or to nothing.
//! - [`read`]: both forms together. - [`views`]: the same in SQL, for any program that opens the file.

pub(crate) mod columns;
pub(crate) mod pack;
pub(crate) mod read;
pub(crate) mod take_out;
pub(crate) mod views;

use crate::schema::Kind;

/// Key columns of a series; unused ones at the end are 0.
pub(crate) type Series = [i64; 5];

/// SQL for the placeholders of a row.
fn places(count: usize) -> String {
    vec!["?"; count].join(", ")
}

/// The columns of a packed day, in the order of [`columns::Packed::parameters`].
fn packed_columns(kind: &Kind) -> String {
    let fixed = ["form", "first", "step", "count", "buckets"];
    fixed.iter().chain(kind.values).copied().collect::<Vec<_>>().join(", ")
}
