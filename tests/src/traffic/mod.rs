//! Senders and receivers with counts of their own, so that a test need not trust one end of the wire.

mod load;
mod raw;
mod sockopt;
mod tcp;
mod udp;

pub use load::{Load, Sent};
pub use raw::{RawSocket, send_raw};
pub use tcp::{TcpCount, TcpSide, tcp_exchange, tcp_transfer};
pub use udp::{Superdatagrams, UdpCount, udp_send, udp_send_segmented};

use std::net::IpAddr;

/// The length in bytes of the plain IP header towards an address.
pub(crate) fn ip_header_bytes(address: IpAddr) -> u64 {
    if address.is_ipv4() { 20 } else { 40 }
}
