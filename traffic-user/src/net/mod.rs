//! Network interfaces and netlink, the only code that speaks it.

pub mod interface;
pub mod netlink;
