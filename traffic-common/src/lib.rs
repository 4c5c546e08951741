//! What the kernel program and userspace must agree on, written once.
//!
//! - [`layout`]: the values of the maps, with their sizes and offsets asserted at compile time.
//! - [`wire`]: how many packets and bytes a socket buffer becomes on the wire.
//! - [`gso`]: the kernel's names for the kinds of segmentation, and where in an `sk_buff` to read them.
//! - `bench`: what the benchmark's variants of the program read; only with the feature of that name.
//!
//! Nothing here allocates or calls the kernel, so all of it is tested on the host.

#![cfg_attr(not(test), no_std)]

#[cfg(feature = "bench")]
pub mod bench;
pub mod gso;
pub mod layout;
pub mod wire;

pub use layout::*;
