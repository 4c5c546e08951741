//! The ways of counting that are compared.

use super::{node::CONTAINERS, rivals};

/// What is attached to the interfaces of the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing.
    Nothing,
    /// A program that returns at once.
    Null,
    /// The shipped program.
    Trafctl,
    /// The shipped program, but with the trie for every packet.
    Trie,
    /// One nftables map for all interfaces.
    NftMap,
    /// A set for each class, and a rule for each container and class.
    Ipset,
    /// An nftables table for each container.
    NftTables,
}

impl Way {
    /// All ways that attach something.
    pub const ALL: [Self; 6] =
        [Self::Null, Self::Trafctl, Self::Trie, Self::NftMap, Self::Ipset, Self::NftTables];

    /// The name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Null => "null program",
            Self::Trafctl => "trafctl",
            Self::Trie => "trie",
            Self::NftMap => "nft map",
            Self::Ipset => "ipset",
            Self::NftTables => "nft table a container",
        }
    }

    /// The number of containers that send.
    pub const fn containers(self) -> usize {
        match self {
            Self::NftTables => rivals::OWN_TABLES,
            _ => CONTAINERS as usize,
        }
    }
}
