//! The values of the maps that only the benchmark's programs have.

/// Addresses that the generator goes around in; a power of two.
pub const PEERS: u32 = 1 << 20;

/// Most lines that the linear scan has room for.
pub const LINEAR_LINES: u32 = 1 << 20;

/// Most counters found by hash.
pub const HASH_COUNTERS: u32 = 4096;

/// An address as four words, each as it stands in a packet. Of an IPv4 address only the first counts.
pub type Address = [u32; 4];

/// A line of the table for the linear scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LinearLine {
    /// The network.
    pub network: Address,
    /// Its mask.
    pub mask: Address,
    /// Where its class is counted.
    pub column: u32,
    /// None.
    pub padding: u32,
}

/// Where the generator is, and how much of the linear table is in use.
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

    // SAFETY: `repr(C)`, integers only, and no padding but a named field (the sizes are asserted above).
    unsafe impl aya::Pod for LinearLine {}
    // SAFETY: as above.
    unsafe impl aya::Pod for State {}
}
