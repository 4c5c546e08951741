//! Compiles the entries of a file into a table that is queried by longest prefix, whatever the order.

use std::{borrow::Cow, collections::BTreeSet, fmt, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    order::by_network,
    parse::{Entry, UNCLASSIFIED},
};

/// The version of the encoding that [`ClassTable::hash`] hashes. A change of the encoding changes this text.
const HASH_VERSION: &[u8] = b"trafctl class table 1\n";

/// Which of several matching networks decides. Of identical networks the last line counts, in every order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassOrder {
    /// A class-0 network wins regardless of its length; otherwise the longest prefix. The behaviour of
    /// `class_load -s`.
    #[default]
    Virtuozzo,
    /// The longest prefix.
    LongestPrefix,
    /// The last matching line, regardless of lengths.
    LastLine,
}

impl ClassOrder {
    /// All orders, with the default first.
    pub const ALL: [Self; 3] = [Self::Virtuozzo, Self::LongestPrefix, Self::LastLine];

    /// The name in configuration, on the command line and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Virtuozzo => "virtuozzo",
            Self::LongestPrefix => "longest-prefix",
            Self::LastLine => "last-line",
        }
    }
}

impl fmt::Display for ClassOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One row of a compiled table; `N` is [`Ipv4Net`] or [`Ipv6Net`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompiledPrefix<N> {
    /// The network, with host bits zero.
    pub prefix: N,
    /// Its class.
    pub class: u8,
    /// Its line in the file, from 1.
    pub line: u32,
}

impl<N: Copy + Into<IpNet>> CompiledPrefix<N> {
    pub(crate) fn to_entry(self) -> Entry {
        Entry { line: self.line, class: self.class, prefix: self.prefix.into() }
    }
}

/// A class table. The longest matching prefix decides, whatever order it was compiled under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassTable {
    /// The order it was compiled under.
    pub order: ClassOrder,
    /// IPv4 rows, each prefix once, sorted by (network address, prefix length). An enclosing prefix precedes
    /// those inside it.
    pub v4: Vec<CompiledPrefix<Ipv4Net>>,
    /// IPv6 rows, each prefix once, in the same order.
    pub v6: Vec<CompiledPrefix<Ipv6Net>>,
}

/// Compiles the entries of one file, whose lines are distinct, as [`parse`](crate::parse()) returns them.
///
/// One sort and one pass.
pub fn compile(entries: &[Entry], order: ClassOrder) -> ClassTable {
    let v4 = entries.iter().filter(|entry| entry.prefix.addr().is_ipv4()).count();
    let (v4, v6) = (Vec::with_capacity(v4), Vec::with_capacity(entries.len() - v4));
    let mut table = ClassTable { order, v4, v6 };
    for (Entry { line, class, prefix }, overridden_by) in overrides(&standing(entries), order) {
        match prefix {
            _ if overridden_by.is_some() => {}
            IpNet::V4(prefix) => table.v4.push(CompiledPrefix { prefix, class, line }),
            IpNet::V6(prefix) => table.v6.push(CompiledPrefix { prefix, class, line }),
        }
    }
    table
}

/// The entries sorted by network, IPv4 first. Of identical networks only the last line is kept.
pub(super) fn standing(entries: &[Entry]) -> Cow<'_, [Entry]> {
    match by_network(entries) {
        Cow::Owned(mut sorted) => {
            sorted.dedup_by_key(|entry| entry.prefix);
            Cow::Owned(sorted)
        }
        // Each prefix once, or they would have been sorted.
        sorted => sorted,
    }
}

/// Each remaining entry with the enclosing entry that overrides it, if any.
///
/// Sorted networks come in the order of a depth-first walk through the tree of prefixes. So the path to the
/// current one is a stack, and the top of that stack is enough to know what overrides it.
pub(super) fn overrides(
    standing: &[Entry],
    order: ClassOrder,
) -> impl Iterator<Item = (Entry, Option<Entry>)> {
    let rules = move |entry: &Entry| match order {
        ClassOrder::LongestPrefix => false,
        ClassOrder::Virtuozzo => entry.class == UNCLASSIFIED,
        ClassOrder::LastLine => true,
    };
    let none_rules = !standing.iter().any(rules);
    // Each enclosing network, with the entry that overrides others inside it, if the order allows that.
    let mut path: Vec<(IpNet, Option<Entry>)> = Vec::new();
    standing.iter().map(move |&entry| {
        if none_rules {
            return (entry, None);
        }
        while path.last().is_some_and(|(enclosing, _)| !enclosing.contains(&entry.prefix)) {
            path.pop();
        }
        let ruler = path.last().and_then(|&(_, ruler)| ruler);
        let overridden_by = match order {
            ClassOrder::LongestPrefix => None,
            ClassOrder::Virtuozzo => ruler,
            ClassOrder::LastLine => ruler.filter(|ruler| ruler.line > entry.line),
        };
        path.push((entry.prefix, overridden_by.or(rules(&entry).then_some(entry)).or(ruler)));
        (entry, overridden_by)
    })
}

impl ClassTable {
    /// SHA-256 of everything that affects a decision. Readings in the ledger carry it as the table's name.
    ///
    /// The input is the bytes `trafctl class table 1\n`, then each row, IPv4 first, each family sorted by
    /// (network address, prefix length): the family (4 or 6), the prefix length and the class, one byte each,
    /// and the network address, 4 or 16 bytes in network order. Lines and the order are not included, because
    /// equal rows decide equally.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(HASH_VERSION);
        for CompiledPrefix { prefix, class, .. } in &self.v4 {
            hasher.update([4, prefix.prefix_len(), *class]);
            hasher.update(prefix.network().octets());
        }
        for CompiledPrefix { prefix, class, .. } in &self.v6 {
            hasher.update([6, prefix.prefix_len(), *class]);
            hasher.update(prefix.network().octets());
        }
        hasher.finalize().into()
    }

    /// All rows, IPv4 first, as entries.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.v4.iter().map(|row| row.to_entry()).chain(self.v6.iter().map(|row| row.to_entry()))
    }

    /// Prefixes of both families.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether the table has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every address is class 0: there are no rows, or all of them are class 0.
    pub fn is_all_unclassified(&self) -> bool {
        self.v4.iter().all(|row| row.class == UNCLASSIFIED)
            && self.v6.iter().all(|row| row.class == UNCLASSIFIED)
    }

    /// The classes that a packet may get: those of the table, and always 0.
    pub fn classes_in_use(&self) -> BTreeSet<u8> {
        let mut used = [false; 256];
        used[usize::from(UNCLASSIFIED)] = true;
        let rows = self.v4.iter().map(|row| row.class).chain(self.v6.iter().map(|row| row.class));
        for class in rows {
            used[usize::from(class)] = true;
        }
        (0..=u8::MAX).filter(|&class| used[usize::from(class)]).collect()
    }

    /// The entry that decides an address's class; `None` is class 0. An IPv4-mapped IPv6 address counts as
    /// IPv6.
    ///
    /// One binary search for each prefix length: good for queries and tests, too slow for a packet path.
    pub fn lookup(&self, addr: IpAddr) -> Option<Entry> {
        match addr {
            IpAddr::V4(addr) => {
                longest(&self.v4, 32, |length| Some(Ipv4Net::new(addr, length).ok()?.trunc()))
            }
            IpAddr::V6(addr) => {
                longest(&self.v6, 128, |length| Some(Ipv6Net::new(addr, length).ok()?.trunc()))
            }
        }
    }

    /// The row that decides the addresses of a prefix, except where a longer row inside it does.
    pub(crate) fn enclosing(&self, prefix: IpNet) -> Option<Entry> {
        match prefix {
            IpNet::V4(net) => longest(&self.v4, net.prefix_len(), |length| {
                Some(Ipv4Net::new(net.network(), length).ok()?.trunc())
            }),
            IpNet::V6(net) => longest(&self.v6, net.prefix_len(), |length| {
                Some(Ipv6Net::new(net.network(), length).ok()?.trunc())
            }),
        }
    }

    /// The rows strictly inside a prefix, an enclosing one before those inside it.
    pub(crate) fn within(&self, prefix: IpNet) -> Vec<Entry> {
        match prefix {
            IpNet::V4(net) => inside(&self.v4, net, |row| net.contains(row)),
            IpNet::V6(net) => inside(&self.v6, net, |row| net.contains(row)),
        }
    }

    /// The class of an address.
    pub fn class_of(&self, addr: IpAddr) -> u8 {
        self.lookup(addr).map_or(UNCLASSIFIED, |entry| entry.class)
    }
}

/// The rows strictly inside a network. They are adjacent, because rows are sorted by (network address, prefix
/// length).
fn inside<N>(rows: &[CompiledPrefix<N>], net: N, contains: impl Fn(&N) -> bool) -> Vec<Entry>
where
    N: Copy + Ord + Into<IpNet>,
{
    let first = rows.partition_point(|row| row.prefix <= net);
    rows[first..].iter().take_while(|row| contains(&row.prefix)).map(|row| row.to_entry()).collect()
}

/// The row with the longest of the prefixes that `masked` derives from one address.
fn longest<N>(rows: &[CompiledPrefix<N>], max_length: u8, masked: impl Fn(u8) -> Option<N>) -> Option<Entry>
where
    N: Copy + Ord + Into<IpNet>,
{
    (0..=max_length).rev().find_map(|length| {
        let prefix = masked(length)?;
        let at = rows.binary_search_by_key(&prefix, |row| row.prefix).ok()?;
        Some(rows[at].to_entry())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn the_hash_covers_the_documented_bytes() {
        let table = compile(&parse(b"2 ::/0\n7 10.0.0.0/8\n1 0.0.0.0/0").entries, ClassOrder::LongestPrefix);
        let mut bytes = b"trafctl class table 1\n".to_vec();
        bytes.extend([4, 0, 1, 0, 0, 0, 0]);
        bytes.extend([4, 8, 7, 10, 0, 0, 0]);
        bytes.extend([6, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(table.hash(), <[u8; 32]>::from(Sha256::digest(bytes)));
    }

    #[test]
    fn orders_differ_where_they_should() {
        let file = parse(b"3 10.1.1.0/24\n0 10.1.0.0/16\n2 10.1.2.0/24\n1 0.0.0.0/0\n");
        for (order, addr, class, len) in [
            (ClassOrder::Virtuozzo, "10.1.1.1", 0, 2),
            (ClassOrder::Virtuozzo, "10.1.2.1", 0, 2),
            (ClassOrder::Virtuozzo, "10.2.0.1", 1, 2),
            (ClassOrder::LongestPrefix, "10.1.1.1", 3, 4),
            (ClassOrder::LongestPrefix, "10.1.3.1", 0, 4),
            (ClassOrder::LastLine, "10.1.2.1", 1, 1),
            (ClassOrder::LastLine, "::1", 0, 1),
        ] {
            let table = compile(&file.entries, order);
            assert_eq!(table.class_of(addr.parse().unwrap()), class, "{addr} under {order}");
            assert_eq!(table.len(), len, "{order}");
        }
    }

    #[test]
    fn an_empty_table_puts_all_traffic_into_class_0() {
        let table = compile(&[], ClassOrder::Virtuozzo);
        assert!(table.is_empty());
        assert_eq!(table.classes_in_use(), BTreeSet::from([0]));
        assert_eq!(table.lookup("192.0.2.1".parse().unwrap()), None);
    }

    #[test]
    fn an_order_has_one_name_everywhere() {
        for order in ClassOrder::ALL {
            let name = order.to_string();
            assert_eq!(serde_json::to_string(&order).unwrap(), format!("\"{name}\""));
        }
    }
}
