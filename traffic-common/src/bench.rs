//! Values of the maps that only the benchmark's programs use.

/// Addresses that the generator cycles through; a power of two.
pub const PEERS: u32 = 1 << 20;

/// Most lines that the linear scan can hold.
pub const LINEAR_LINES: u32 = 1 << 20;

/// Most prefixes of each family in the trie variant.
pub const TRIE_PREFIXES: u32 = 1 << 20;

/// Most counters in the hash variant.
pub const HASH_COUNTERS: u32 = 4096;

/// An address as four words in network byte order. An IPv4 address uses only the first.
pub type Address = [u32; 4];

/// One line of the linear scan's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LinearLine {
    /// The network.
    pub network: Address,
    /// Its mask.
    pub mask: Address,
    /// The column of its class.
    pub column: u32,
    /// Unused; keeps the size free of implicit padding.
    pub padding: u32,
}

/// The generator's position, and how much of the linear table is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct State {
    /// Addresses drawn so far.
    pub drawn: u64,
    /// Lines in use.
    pub linear_lines: u64,
}

const _: () = {
    assert!(PEERS.is_power_of_two());
    assert!(size_of::<LinearLine>() == 40);
    assert!(size_of::<State>() == 16);
};

#[cfg(feature = "user")]
mod pod {
    use super::{LinearLine, State};

    // SAFETY: `repr(C)`, integers only, and no padding except a named field (the sizes are asserted above).
    unsafe impl aya::Pod for LinearLine {}
    // SAFETY: as above.
    unsafe impl aya::Pod for State {}
}
