//! The throwaway container: a network namespace with one veth, whose other end is the host's.
//!
//! It lives as long as the socket in it, and so no longer than this process, however that ends.

use std::{fs::File, os::fd::AsFd as _, thread};

use anyhow::{Context as _, bail};
use rustix::thread::UnshareFlags;

use super::packet_socket::PacketSocket;
use crate::net::netlink::Netlink;

/// The name of the interface in the container.
const INSIDE: &str = "eth0";

/// A network namespace with one veth.
#[derive(Debug)]
pub(super) struct Throwaway {
    /// Sends what the container sends.
    pub socket: PacketSocket,
    /// Index of the interface on the host.
    pub index: u32,
}

impl Throwaway {
    /// Makes one whose interface on the host has this name. Needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW.
    pub fn create(host: &Netlink, name: &'static str) -> anyhow::Result<Self> {
        let here = File::open("/proc/thread-self/ns/net").context("cannot open this network namespace")?;
        // A thread of its own: a network namespace belongs to a thread, and nothing else may be in that one.
        let work = move || -> anyhow::Result<PacketSocket> {
            // SAFETY: only the network namespace of this thread changes. Sockets of other threads stay where they are.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .context("cannot make a network namespace (CAP_SYS_ADMIN is needed)")?;
            let netlink = Netlink::connect()?;
            match netlink.add_cable(INSIDE, (name, here.as_fd())) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                    bail!("there is an interface {name} already: another calibration is running")
                }
                other => other.with_context(|| format!("cannot make the veth {name}"))?,
            }
            let index = index_of(&netlink, INSIDE)?;
            netlink.bring_up_quietly(index).with_context(|| format!("cannot bring up {INSIDE} inside"))?;
            PacketSocket::open(index).context("cannot open a packet socket inside (CAP_NET_RAW is needed)")
        };
        let thread = thread::Builder::new().name("calibration".to_owned());
        let thread = thread.spawn(work).context("cannot start a thread")?;
        let Ok(socket) = thread.join() else { bail!("the thread that makes it panicked") };
        let made = Self { socket: socket?, index: index_of(host, name)? };
        host.bring_up_quietly(made.index).with_context(|| format!("cannot bring up {name}"))?;
        Ok(made)
    }
}

/// The index of an interface.
fn index_of(netlink: &Netlink, name: &str) -> anyhow::Result<u32> {
    let found = netlink.interfaces()?.into_iter().find(|interface| interface.name == name);
    found.map(|interface| interface.index).with_context(|| format!("there is no interface {name}"))
}
