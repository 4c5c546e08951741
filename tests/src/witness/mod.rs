//! Counts by parts of the kernel that are independent of trafctl, for tests to compare with.
//!
//! | witness | where | packets | bytes |
//! |---|---|---|---|
//! | [`QdiscWitness`] | egress | on the wire | layer 2, on the wire |
//! | [`HtbWitness`] | egress, by mark | on the wire | layer 2, on the wire |
//! | [`InterfaceStatistics`] | both ways | buffers | layer 2, buffers |
//! | [`NftWitness`] | both ways | buffers | layer 3, buffers |
//! | [`Capture`] | both ways | buffers, one by one | layer 2, buffers |
//! | [`WireWitness`] | both ways | on the wire, by peer | layer 3, on the wire |
//! | [`InitWitness`] | interrupts of process 1 | buffers, one by one | none |

mod capture;
mod htb;
pub(crate) mod init;
mod interface;
mod nft;
mod qdisc;
mod wire;

pub use capture::{Capture, CapturedPacket, read_pcap};
pub use htb::{Filter, HtbWitness};
pub use init::InitWitness;
pub use interface::InterfaceStatistics;
pub use nft::{NftCount, NftCounter, NftDirection, NftWitness, StrayResets};
pub use qdisc::{QdiscCount, QdiscWitness};
pub use wire::{Peer, Side, WireCount, WireWitness};
