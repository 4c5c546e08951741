//! What the kernel program and userspace must agree on, written once.
//!
//! - [`layout`]: the values of the maps, with their sizes and offsets asserted at compile time.
//! - `dimensions`: direction, address family and fault.
//! - [`drop_places`]: what the name of a kernel's function says about a drop in it.
//! - [`tally`]: packets and bytes, and the one rule for adding and subtracting them.
//! - [`wire`]: how many packets and bytes a socket buffer becomes on the wire.
//! - [`gso`]: the kernel's segmentation types, and where in an `sk_buff` to read them.
//! - [`lookup`]: the column of a peer in the lines of a class table.
//! - `bench`: the maps of the benchmark's variants of the program; only with the feature of that name.
//!
//! Nothing here allocates or calls the kernel, so all of it is tested on the host.

#![cfg_attr(not(test), no_std)]

#[cfg(feature = "bench")]
pub mod bench;
mod dimensions;
pub mod drop_places;
pub mod gso;
pub mod layout;
pub mod lookup;
pub mod tally;
pub mod wire;

pub use dimensions::*;
pub use layout::*;
pub use tally::Tally;
