//! Makes a veth: a cable between two network namespaces.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::{
    decode::{IFINFOMSG, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, RTM_NEWLINK},
    message::{self, Request, append_attribute},
    netlink::{Netlink, Until},
};

const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const VETH_INFO_PEER: u16 = 1;
/// `AF_INET6`, `IFLA_INET6_ADDR_GEN_MODE` and its value for no addresses.
const AF_INET6: u16 = 10;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const NO_ADDRESSES: u8 = 1;
const IFF_UP: u32 = 1;

impl Netlink {
    /// Makes a veth: one end of this name in this network namespace, the other end of that name in that one.
    ///
    /// # Errors
    /// As the kernel reports them; EEXIST where a name is taken.
    pub fn add_cable(&self, name: &str, (other, namespace): (&str, BorrowedFd<'_>)) -> io::Result<()> {
        let mut peer = vec![0; IFINFOMSG];
        append_attribute(&mut peer, IFLA_IFNAME, &terminated(other));
        append_attribute(&mut peer, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        let mut data = Vec::new();
        append_attribute(&mut data, VETH_INFO_PEER, &peer);
        let flags = message::ACK | message::CREATE | message::EXCLUSIVE;
        let request = Request::new(RTM_NEWLINK, flags, &[0; IFINFOMSG])
            .attribute(IFLA_IFNAME, &terminated(name))
            .nested(IFLA_LINKINFO, &[(IFLA_INFO_KIND, b"veth"), (IFLA_INFO_DATA, &data)]);
        self.transact(&request, Until::Done, |_| {}).map(drop)
    }

    /// Brings an interface up without an address, so that the kernel sends nothing by itself.
    ///
    /// # Errors
    /// As the kernel reports them.
    pub fn bring_up_quietly(&self, ifindex: u32) -> io::Result<()> {
        let mut family = Vec::new();
        append_attribute(&mut family, IFLA_INET6_ADDR_GEN_MODE, &[NO_ADDRESSES]);
        let quiet = Request::new(RTM_NEWLINK, message::ACK, &change(ifindex, 0))
            .nested(IFLA_AF_SPEC, &[(AF_INET6, &family)]);
        match self.transact(&quiet, Until::Done, |_| {}) {
            // A kernel without IPv6 gives no addresses anyway.
            Err(error) if error.raw_os_error() != Some(libc::EAFNOSUPPORT) => return Err(error),
            _ => {}
        }
        let up = Request::new(RTM_NEWLINK, message::ACK, &change(ifindex, IFF_UP));
        self.transact(&up, Until::Done, |_| {}).map(drop)
    }
}

/// `struct ifinfomsg`: sets these flags of an interface.
fn change(ifindex: u32, flags: u32) -> [u8; IFINFOMSG] {
    let mut body = [0; IFINFOMSG];
    for (at, value) in [(4, ifindex), (8, flags), (12, flags)] {
        body[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    body
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}
