//! How a table differs from the one in force, in prefixes and in addresses that change their class.

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use serde::Serialize;

use super::summary::{as_networks64, networks64, rows};
use crate::{
    compile::ClassTable,
    parse::foreign::grouped,
    segments::{Row, both, spans},
};

/// Addresses that change their class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// The class in force.
    pub from: u8,
    /// The class in the other table.
    pub to: u8,
    /// The number of IPv4 addresses.
    pub addresses_v4: u64,
    /// The number of IPv6 networks of 64 bits, with fractions.
    pub networks64_v6: f64,
}

/// How a table differs from the one in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TableChange {
    /// Prefixes that only the other table has.
    pub added: usize,
    /// Prefixes that only the table in force has.
    pub removed: usize,
    /// Prefixes that have another class.
    pub changed: usize,
    /// Addresses that change their class, by the classes.
    pub moved: Vec<Moved>,
}

impl TableChange {
    /// Compares a table with the rows in force.
    pub fn new(table: &ClassTable, in_force: &[(IpNet, u8)]) -> Self {
        let before: BTreeMap<IpNet, u8> = in_force.iter().copied().collect();
        let (mut change, mut kept) = (Self::default(), 0);
        for entry in table.entries() {
            match before.get(&entry.prefix) {
                None => change.added += 1,
                Some(class) => {
                    kept += 1;
                    change.changed += usize::from(*class != entry.class);
                }
            }
        }
        change.removed = before.len() - kept;
        let mut moved: BTreeMap<(u8, u8), (u64, f64)> = BTreeMap::new();
        for is_v4 in [true, false] {
            let of_family = before.iter().filter(|(prefix, _)| prefix.addr().is_ipv4() == is_v4);
            let old = spans(of_family.map(|(&prefix, &class)| Row { prefix, class, line: 0 }), is_v4);
            let new = spans(rows(table, is_v4), is_v4);
            for (addresses, old, new) in both(&old, &new).filter(|(_, old, new)| old.class != new.class) {
                let (v4, v6) = moved.entry((old.class, new.class)).or_default();
                if is_v4 {
                    *v4 += u64::try_from(addresses).unwrap_or(u64::MAX);
                } else {
                    *v6 += as_networks64(addresses);
                }
            }
        }
        change.moved = moved
            .into_iter()
            .map(|((from, to), (addresses_v4, networks64_v6))| Moved {
                from,
                to,
                addresses_v4,
                networks64_v6,
            })
            .collect();
        change
    }

    /// Whether every address has the same class in both.
    pub fn is_none(&self) -> bool {
        self.moved.is_empty()
    }
}

/// Lines of text, each ended by a line feed.
impl fmt::Display for TableChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { added, removed, changed, moved } = self;
        if *added + *removed + *changed == 0 {
            return writeln!(f, "the same prefixes as in force");
        }
        writeln!(
            f,
            "compared with the table in force: {} prefixes added, {} removed, {} with another class",
            grouped(*added),
            grouped(*removed),
            grouped(*changed)
        )?;
        if moved.is_empty() {
            return writeln!(f, "no address changes its class");
        }
        for Moved { from, to, addresses_v4, networks64_v6 } in moved {
            writeln!(
                f,
                "from class {from} to {to}: {} IPv4 addresses, {} IPv6 networks of /64",
                grouped(usize::try_from(*addresses_v4).unwrap_or(usize::MAX)),
                networks64(*networks64_v6)
            )?;
        }
        Ok(())
    }
}
