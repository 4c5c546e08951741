//! The throwaway container: a network namespace with one veth, whose other end is the host's.
//!
//! It lives as long as the socket in it, and so no longer than this process, however that ends.

use std::{fs::File, io, os::fd::AsFd as _, thread};

use anyhow::{Context as _, bail};
use rustix::thread::UnshareFlags;

use super::packet_socket::PacketSocket;
use crate::net::netlink::Netlink;

/// The name of the interface in the container.
const INSIDE: &str = "eth0";

/// A network namespace with one veth.
#[derive(Debug)]
pub(super) struct Throwaway {
    socket: PacketSocket,
}

impl Throwaway {
    /// Makes one whose interface on the host has this name. Needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW.
    pub fn create(name: &'static str) -> anyhow::Result<Self> {
        let host = Netlink::connect()?;
        let here = File::open("/proc/thread-self/ns/net").context("cannot open this network namespace")?;
        // A thread of its own: a network namespace belongs to a thread, and nothing else may be in that one.
        let inside = move || -> anyhow::Result<(Netlink, u32)> {
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
            Ok((netlink, index))
        };
        let thread = thread::Builder::new().name("calibration".to_owned());
        let work = move || {
            let (_, index) = inside()?;
            PacketSocket::open(index).context("cannot open a packet socket inside (CAP_NET_RAW is needed)")
        };
        let thread = thread.spawn(work).context("cannot start a thread")?;
        let Ok(socket) = thread.join() else { bail!("the thread that makes it panicked") };
        let made = Self { socket: socket? };
        let index = index_of(&host, name)?;
        host.bring_up_quietly(index).with_context(|| format!("cannot bring up {name}"))?;
        Ok(made)
    }

    /// Sends what the container sends.
    pub const fn socket(&self) -> &PacketSocket {
        &self.socket
    }
}

/// The index of an interface.
pub(super) fn index_of(netlink: &Netlink, name: &str) -> anyhow::Result<u32> {
    let found = netlink.interfaces()?.into_iter().find(|interface| interface.name == name);
    Ok(found
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
        .with_context(|| format!("no interface {name}"))?
        .index)
}
