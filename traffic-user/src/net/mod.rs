//! Network interfaces and rtnetlink, the only code that speaks it.
//!
//! Messages are read leniently: of each one only the attributes that trafctl needs are looked at, so that an
//! attribute of another program or a later kernel cannot make an interface disappear. Every request has a
//! deadline.
//!
//! - [`interface`]: an interface, a change of one, and a filter on one, as the rest of trafctl sees them.
//! - `socket`: sending and receiving those bytes.
//! - `message`: the bytes of netlink messages; pure.
//! - `decode`: messages to interfaces, addresses, filters and events; pure.
//! - [`netlink`]: requests and their replies.
//! - [`events`]: the stream of changes to interfaces.

mod decode;
pub mod events;
pub mod interface;
mod message;
pub mod netlink;
mod socket;
