//! The prefixes and classes of the table in force, read from the kernel.

use std::collections::BTreeSet;

use anyhow::Context as _;
use ipnet::IpNet;
use traffic_classes::stored_rows;
use traffic_common::{CLASS_ZERO_COLUMN, Family};

use crate::kernel::maps::Maps;

/// Returns the prefixes in force with their classes, sorted, as the kernel holds them.
///
/// # Errors
/// When the maps cannot be read.
pub fn in_force(maps: &Maps) -> anyhow::Result<Vec<(IpNet, u8)>> {
    let (v4, v6) = rows_in_force(maps)?;
    let meta = maps.meta.get(0)?;
    let class = |column: u8| meta.column_class[usize::from(column)];
    let v4 = v4.into_iter().map(|(prefix, column)| (IpNet::from(prefix), class(column)));
    let v6 = v6.into_iter().map(|(prefix, column)| (IpNet::from(prefix), class(column)));
    Ok(v4.chain(v6).collect())
}

/// Returns the rows of the table in force, with their columns.
///
/// # Errors
/// When the maps cannot be read.
fn rows_in_force(maps: &Maps) -> anyhow::Result<stored_rows::Rows> {
    /// Tables that come into force while one is read.
    const ATTEMPTS: usize = 16;
    let mut attempt = 0;
    loop {
        let active = maps.active_table()?;
        let rows = maps.class_lines.rows(active.place());
        attempt += 1;
        // If another table came into force meanwhile, the place may have been emptied while it was read.
        if maps.active_table()? == active || attempt == ATTEMPTS {
            return stored_rows::decode(&rows?).context(
                "cannot read the prefixes of the class table in force; `trafctl classes load` stores them again",
            );
        }
    }
}

/// Returns the classes of the table in force, of one family or of both; class 0 is always among them.
///
/// # Errors
/// When the maps cannot be read.
pub fn classes_in_force(maps: &Maps, family: Option<Family>) -> anyhow::Result<BTreeSet<u8>> {
    let (v4, v6) = rows_in_force(maps)?;
    let meta = maps.meta.get(0)?;
    let v4 = v4.into_iter().map(|row| row.1).filter(|_| family != Some(Family::Ipv6));
    let v6 = v6.into_iter().map(|row| row.1).filter(|_| family != Some(Family::Ipv4));
    let mut used = [false; 256];
    used[CLASS_ZERO_COLUMN as usize] = true;
    v4.chain(v6).for_each(|column| used[usize::from(column)] = true);
    Ok(used.iter().zip(meta.column_class).filter(|(used, _)| **used).map(|(_, class)| class).collect())
}
