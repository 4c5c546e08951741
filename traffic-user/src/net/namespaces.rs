//! Network namespaces as netlink names them, and the interface towards an address.
//!
//! The kernel gives each namespace that is related to this one an id, which is valid in this namespace only. It
//! is also in the description of a veth ([`NetInterface::peer_namespace`]), so that comparing the two finds the
//! processes behind an interface. Neither request needs a capability. Looking into another namespace needs
//! CAP_NET_ADMIN and an id, which a namespace without a veth to this one gets on request.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::{
    decode::{self, IFINFOMSG, RTM_GETLINK},
    interface::NetInterface,
    message::{self, Message, Request, attribute, u32_at},
    netlink::{Netlink, Until},
};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;

/// Bytes of `struct rtgenmsg`, to the next boundary.
const RTGENMSG: usize = 4;
const NETNSA_NSID: u16 = 1;
const NETNSA_PID: u16 = 2;
const NETNSA_FD: u16 = 3;
/// The kernel chooses.
const ANY_ID: i32 = -1;

const IFLA_EXT_MASK: u16 = 29;
/// The namespace that a request is about.
const IFLA_TARGET_NETNSID: u16 = 46;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// Bytes of `struct rtmsg`.
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
/// `AF_INET`, `AF_INET6`
const FAMILIES: [u8; 2] = [2, 10];

impl Netlink {
    /// The id of the network namespace of a process; `None` where that namespace has none, as the namespace of
    /// this process itself.
    ///
    /// # Errors
    /// When there is no such process, or the kernel does not answer in time.
    pub fn namespace_of_process(&self, pid: u32) -> io::Result<Option<i32>> {
        self.namespace_id(NETNSA_PID, &pid.to_ne_bytes())
    }

    /// The same for an open file of a namespace, such as one in `/run/netns`.
    ///
    /// # Errors
    /// When the file is not that of a network namespace, or the kernel does not answer in time.
    pub fn namespace_of_file(&self, file: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        self.namespace_id(NETNSA_FD, &file.as_raw_fd().to_ne_bytes())
    }

    fn namespace_id(&self, kind: u16, value: &[u8]) -> io::Result<Option<i32>> {
        let request = Request::new(RTM_GETNSID, 0, &[0; RTGENMSG]).attribute(kind, value);
        let mut found = None;
        self.transact(&request, Until::First, |message| found = namespace_id(message))?;
        Ok(found)
    }

    /// The same, but a namespace without an id gets one, which it keeps until it ends. This process's own has one
    /// as well then. Needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// When there is no such process, or the kernel refuses or does not answer in time.
    pub fn number_of_process(&self, pid: u32) -> io::Result<i32> {
        self.number(NETNSA_PID, &pid.to_ne_bytes())
    }

    /// The same for an open file of a namespace.
    ///
    /// # Errors
    /// When the file is not that of a network namespace, or the kernel refuses or does not answer in time.
    pub fn number_of_file(&self, file: BorrowedFd<'_>) -> io::Result<i32> {
        self.number(NETNSA_FD, &file.as_raw_fd().to_ne_bytes())
    }

    fn number(&self, kind: u16, value: &[u8]) -> io::Result<i32> {
        if let Some(id) = self.namespace_id(kind, value)? {
            return Ok(id);
        }
        let request = Request::new(RTM_NEWNSID, message::ACK, &[0; RTGENMSG])
            .attribute(NETNSA_NSID, &ANY_ID.to_ne_bytes())
            .attribute(kind, value);
        match self.transact(&request, Until::Done, |_| {}) {
            // Another process was faster.
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
            _ => {}
        }
        self.namespace_id(kind, value)?.ok_or_else(|| io::Error::other("the kernel gave the namespace no id"))
    }

    /// The interfaces in another network namespace, in the directions of whoever lives there. Needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// When the namespace is gone, or the kernel refuses or does not answer in time.
    pub fn interfaces_in_namespace(&self, namespace: i32) -> io::Result<Vec<NetInterface>> {
        let request = Request::new(RTM_GETLINK, message::DUMP, &[0; IFINFOMSG])
            .attribute(IFLA_TARGET_NETNSID, &namespace.to_ne_bytes());
        let mut found = Vec::new();
        self.dump(
            &request,
            |message| decode::interface(message).map(NetInterface::seen_from_inside),
            &mut found,
        )?;
        Ok(found)
    }

    /// The hardware address of an interface in another network namespace; `None` where it has none of six bytes.
    /// Needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// When the interface or the namespace is gone, or the kernel does not answer in time.
    pub fn address_in_namespace(&self, namespace: i32, index: u32) -> io::Result<Option<[u8; 6]>> {
        let without_statistics = RTEXT_FILTER_SKIP_STATS.to_ne_bytes();
        let request = in_namespace(namespace, index).attribute(IFLA_EXT_MASK, &without_statistics);
        let mut found = None;
        self.transact(&request, Until::First, |message| {
            found = decode::interface(message).and_then(|interface| interface.mac);
        })?;
        Ok(found)
    }

    /// An interface in another network namespace, in the directions of whoever lives there. Needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// As [`Self::address_in_namespace`], and when its description cannot be read.
    pub fn interface_in_namespace(&self, namespace: i32, index: u32) -> io::Result<NetInterface> {
        let mut found = None;
        self.transact(&in_namespace(namespace, index), Until::First, |message| {
            found = decode::interface(message).map(NetInterface::seen_from_inside);
        })?;
        found.ok_or_else(|| io::Error::other("its description cannot be read"))
    }

    /// Adds what the kernel counted only on the other end of an interface, in another namespace. Packets that
    /// `bpf_redirect_peer` puts there never passed this end (since Linux 6.7, the kernel counts them), nor those that a
    /// program on a netkit took to elsewhere. An end that cannot be asked adds nothing.
    pub fn add_other_ends(&self, interfaces: &mut [NetInterface], is_wanted: impl Fn(&NetInterface) -> bool) {
        for interface in interfaces.iter_mut().filter(|interface| is_wanted(interface)) {
            let (Some(namespace), Some(peer)) = (interface.peer_namespace, interface.peer) else { continue };
            if !interface.is_counted_on_the_other_end() {
                continue;
            }
            match self.interface_in_namespace(namespace, peer) {
                Ok(other) => interface.add_other_end(&other),
                // A kernel that does not answer is waited for once, not once for each interface.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return,
                Err(_) => {}
            }
        }
    }

    /// The index of the interface by which packets to an address leave; `None` without a route.
    ///
    /// # Errors
    /// When the kernel does not answer in time, or refuses for another reason than a missing route.
    pub fn route_to(&self, address: IpAddr) -> io::Result<Option<u32>> {
        let mut body = [0; RTMSG];
        let (v4, v6);
        let bytes: &[u8] = match address {
            IpAddr::V4(address) => {
                v4 = address.octets();
                &v4
            }
            IpAddr::V6(address) => {
                v6 = address.octets();
                &v6
            }
        };
        body[0] = FAMILIES[usize::from(address.is_ipv6())];
        // The length of the prefix, in bits: all of the address.
        body[1] = if address.is_ipv6() { 128 } else { 32 };
        let request = Request::new(RTM_GETROUTE, 0, &body).attribute(RTA_DST, bytes);
        let mut found = None;
        match self.transact(&request, Until::First, |message| found = outgoing_interface(message)) {
            Ok(_) => Ok(found),
            Err(error) if is_no_route(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A request for one interface in another namespace.
fn in_namespace(namespace: i32, index: u32) -> Request {
    let mut body = [0; IFINFOMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    Request::new(RTM_GETLINK, 0, &body).attribute(IFLA_TARGET_NETNSID, &namespace.to_ne_bytes())
}

/// What the kernel answers where there is no route, one that refuses packets, or no such family.
fn is_no_route(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EACCES
                | libc::EINVAL
                | libc::EAFNOSUPPORT
                | libc::EOPNOTSUPP
        )
    )
}

/// The id in an answer. `NETNSA_NSID_NOT_ASSIGNED` is -1.
fn namespace_id(message: &Message<'_>) -> Option<i32> {
    if message.kind != RTM_NEWNSID {
        return None;
    }
    let value = attribute(message.body.get(RTGENMSG..)?, NETNSA_NSID)?;
    u32_at(value, 0).map(u32::cast_signed).filter(|&id| id >= 0)
}

fn outgoing_interface(message: &Message<'_>) -> Option<u32> {
    if message.kind != RTM_NEWROUTE {
        return None;
    }
    u32_at(attribute(message.body.get(RTMSG..)?, RTA_OIF)?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::message::messages;

    fn decoded<T>(request: Request, decode: impl Fn(&Message<'_>) -> Option<T>) -> Option<T> {
        let bytes = request.finish(0).unwrap();
        messages(&bytes).next().and_then(|message| decode(&message))
    }

    #[test]
    fn a_namespace_without_an_id_has_none() {
        let answer = |id: i32| {
            decoded(
                Request::new(RTM_NEWNSID, 0, &[0; RTGENMSG]).attribute(NETNSA_NSID, &id.to_ne_bytes()),
                namespace_id,
            )
        };
        assert_eq!((answer(7), answer(0), answer(-1)), (Some(7), Some(0), None));
        assert_eq!(decoded(Request::new(RTM_NEWROUTE, 0, &[0; RTGENMSG]), namespace_id), None);
    }

    #[test]
    fn a_route_names_its_interface() {
        let route = Request::new(RTM_NEWROUTE, 0, &[0; RTMSG])
            .attribute(RTA_DST, &[8, 8, 8, 8])
            .attribute(RTA_OIF, &70_001_u32.to_ne_bytes());
        assert_eq!(decoded(route, outgoing_interface), Some(70_001));
        assert_eq!(decoded(Request::new(RTM_NEWROUTE, 0, &[0; RTMSG]), outgoing_interface), None);
    }

    /// Needs no root and sends nothing.
    #[test]
    fn the_kernel_answers_for_this_process_and_for_none() {
        let netlink = Netlink::connect().unwrap();
        // It has one where somebody looked into a namespace with a device on an interface of this one.
        let own = || netlink.namespace_of_process(std::process::id()).unwrap();
        assert_eq!(own(), own());
        let error = netlink.namespace_of_process(0x3fff_ffff).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
        // The loopback is always there.
        assert_eq!(netlink.route_to("127.0.0.1".parse().unwrap()).unwrap(), Some(1));
    }
}
