//! The kernel memory that a class table needs, computed before it is loaded.

use std::{fmt, net::Ipv4Addr, net::Ipv6Addr};

use serde::Serialize;
use traffic_common::{
    INDEX_V4_BLOCK_BYTES, INDEX_V4_BLOCKS, INDEX_V6_BLOCK_ENTRIES, INDEX_V6_BLOCKS, RangeNode,
};

use crate::{
    ClassTable,
    index::{self, IndexV6},
};

/// Kernel memory of a table's parts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KernelMemory {
    /// The two tries.
    pub tries: u64,
    /// The two indexes in front of them.
    pub indexes: u64,
}

/// Bytes that the kernel allocates for a node of an IPv4 trie: `struct lpm_trie_node` (40 bytes), address,
/// value and the allocator's word, rounded up to the allocator's next size.
const NODE_V4: u64 = 64;
/// The same for IPv6.
const NODE_V6: u64 = 96;

impl KernelMemory {
    /// The memory for a table.
    pub fn of(table: &ClassTable) -> Self {
        // Columns are assigned when a table is loaded. Classes distinguish ranges just as well, since class
        // 255 (the index's escape value) does not exist.
        let rows: Vec<_> = table.v6.iter().map(|row| (row.prefix, row.class)).collect();
        Self::with_index(table, &index::v6(&rows))
    }

    /// The memory for a table and the IPv6 index built for it.
    pub fn with_index(table: &ClassTable, index: &IndexV6) -> Self {
        let v4 = table.v4.iter().map(|row| {
            (
                u128::from(row.prefix.network().to_bits()) << (u128::BITS - Ipv4Addr::BITS),
                row.prefix.prefix_len(),
            )
        });
        let v6 = table.v6.iter().map(|row| (row.prefix.network().to_bits(), row.prefix.prefix_len()));
        const { assert!(Ipv6Addr::BITS == u128::BITS) };
        let blocks_v4 = INDEX_V4_BLOCKS as usize * INDEX_V4_BLOCK_BYTES;
        let blocks_v6 = INDEX_V6_BLOCKS as usize * INDEX_V6_BLOCK_ENTRIES * size_of::<u32>();
        let nodes_v6 = index.nodes.len() * size_of::<RangeNode>();
        Self {
            tries: trie_nodes(v4) * NODE_V4 + trie_nodes(v6) * NODE_V6,
            indexes: (blocks_v4 + blocks_v6 + nodes_v6) as u64,
        }
    }

    /// The sum of the parts. While a table is replaced, the old one exists as well.
    pub fn total(&self) -> u64 {
        self.tries + self.indexes
    }
}

impl fmt::Display for KernelMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        write!(
            f,
            "{} MiB of kernel memory (tries {}, indexes {})",
            self.total().div_ceil(MIB),
            self.tries.div_ceil(MIB),
            self.indexes.div_ceil(MIB)
        )
    }
}

/// Number of nodes in the kernel's trie of these prefixes, which are sorted by (network, length) and
/// left-aligned: one for each prefix, and one for each branch that has no prefix of its own.
fn trie_nodes(prefixes: impl Iterator<Item = (u128, u8)>) -> u64 {
    let mut nodes = 0;
    // Lengths of the nodes from the root to the last prefix.
    let mut path: Vec<u32> = Vec::new();
    let mut last: Option<(u128, u32)> = None;
    for (network, len) in prefixes {
        let len = u32::from(len);
        if let Some((last_network, last_len)) = last {
            let common = (network ^ last_network).leading_zeros().min(last_len).min(len);
            while path.last().is_some_and(|&node| node > common) {
                path.pop();
            }
            if path.last() != Some(&common) {
                nodes += 1;
                path.push(common);
            }
        }
        nodes += 1;
        path.push(len);
        last = Some((network, len));
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trie_has_a_node_for_each_prefix_and_each_branch() {
        let nodes =
            |prefixes: &[(u128, u8)]| trie_nodes(prefixes.iter().map(|&(bits, len)| (bits << 120, len)));
        assert_eq!(nodes(&[]), 0);
        assert_eq!(nodes(&[(0b1010_0000, 4)]), 1);
        // Nested: no extra node for a branch.
        assert_eq!(nodes(&[(0b1010_0000, 4), (0b1010_1000, 6)]), 2);
        // Side by side: one node for the branch.
        assert_eq!(nodes(&[(0b1010_0000, 4), (0b1011_0000, 4)]), 3);
        // A third one branches off higher up; a fourth one branches off at the same place.
        assert_eq!(nodes(&[(0b1010_0000, 4), (0b1011_0000, 4), (0b1100_0000, 3)]), 5);
        assert_eq!(nodes(&[(0b1000_0000, 3), (0b1010_0000, 4), (0b1011_0000, 4), (0b1100_0000, 3)]), 7);
    }

    #[test]
    fn text_rounds_up_to_mebibytes() {
        let memory = KernelMemory { tries: 3 << 20, indexes: (32 << 20) + 1 };
        assert_eq!(memory.to_string(), "36 MiB of kernel memory (tries 3, indexes 33)");
    }
}
