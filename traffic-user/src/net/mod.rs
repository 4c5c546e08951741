//! Network interfaces and rtnetlink. No other code uses netlink.
//!
//! Messages are read leniently: of each one only the attributes that trafctl needs are looked at, so that an
//! attribute of another program or a later kernel cannot make an interface disappear. Every request has a
//! deadline.
//!
//! - [`interface`]: an interface, a change of one, and a filter on one, as the rest of trafctl sees them.
//! - `message`: the bytes of netlink messages; pure.
//! - `socket`: sending and receiving those bytes.
//! - `link_type`: which types of link can be counted; pure.
//! - `decode`: messages to interfaces, addresses, filters and events; pure.
//! - [`netlink`]: requests and their replies.
//! - `cables`: making a veth.
//! - `namespaces`: the ids of network namespaces, and the interface towards an address.
//! - [`events`]: changes of interfaces, as the kernel reports them.

mod cables;
mod decode;
pub mod events;
pub mod interface;
mod link_type;
mod message;
mod namespaces;
pub mod netlink;
mod socket;
