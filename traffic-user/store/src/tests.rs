//! Histories of a ledger that is shipped to a model of a store, and to a fake of ClickHouse, which fail at any call. A
//! seed gives one history.

mod bad_links;
mod fake;
mod histories;
mod model;
mod races;
mod tables;

/// Brings all rows of a part into one form and order, so that it can be compared.
fn sort(content: &mut traffic_ledger::Content) {
    content.rows = content.all_rows().map(|(table, row)| (table, row.into_owned())).collect();
    content.rows.sort_unstable();
    content.counted.clear();
}
