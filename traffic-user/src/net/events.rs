//! Changes of interfaces and of the node's addresses, as the kernel announces them.
//!
//! The kernel drops events when they come faster than they are read, and reports it once. So an event only
//! shows which interface to examine. [`Batch::lost`] means that all of them must be examined.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::OwnedFd,
};

use anyhow::Context as _;
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    decode,
    interface::{InterfaceEvent, NetInterface},
    message::messages,
    socket::{RouteSocket, receive_now},
};

/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR`
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Room for events that were not read yet: some ten thousand of interfaces.
const RECEIVE_BUFFER: usize = 16 << 20;
/// The most datagrams in one batch, so that a container with a flapping interface does not delay others.
const BATCH: usize = 1024;

/// Events that came together, the last one of each interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// By index: the interface as last seen.
    pub interfaces: HashMap<u32, NetInterface>,
    /// Indexes whose last event was the end of their interface.
    pub gone: HashSet<u32>,
    /// Indexes whose interface ended, even if one of the same index appeared since.
    pub ended: HashSet<u32>,
    /// Indexes whose interface had more than one name.
    pub renamed: HashSet<u32>,
    /// Whether addresses of the node's own changed.
    pub addresses: bool,
    /// Whether events were lost.
    pub lost: bool,
}

impl Batch {
    /// Adds a later batch.
    pub fn append(&mut self, later: Self) {
        self.gone.retain(|index| !later.interfaces.contains_key(index));
        self.gone.extend(later.gone);
        later.interfaces.into_values().for_each(|interface| self.see(interface));
        self.renamed.extend(later.renamed);
        self.ended.extend(later.ended);
        self.addresses |= later.addresses;
        self.lost |= later.lost;
    }

    /// Adds a later event.
    pub fn add(&mut self, event: InterfaceEvent) {
        match event {
            InterfaceEvent::Seen(interface) => {
                self.gone.remove(&interface.index);
                self.see(interface);
            }
            InterfaceEvent::Gone { index } => {
                self.ended.insert(index);
                self.gone.insert(index);
            }
            InterfaceEvent::Addresses => self.addresses = true,
        }
    }

    fn see(&mut self, interface: NetInterface) {
        let index = interface.index;
        let name = interface.name.clone();
        if self.interfaces.insert(index, interface).is_some_and(|earlier| earlier.name != name) {
            self.renamed.insert(index);
        }
    }
}

/// A subscription to changes in the network namespace of the thread that made it.
#[derive(Debug)]
pub struct InterfaceEvents {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl InterfaceEvents {
    /// Subscribes. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn subscribe() -> anyhow::Result<Self> {
        let open = || -> io::Result<Self> {
            let socket = RouteSocket::open(GROUPS)?.into_fd();
            // Beyond the system's limit with CAP_NET_ADMIN; without it the kernel grants what it allows.
            if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
                rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
            }
            // SAFETY: the owned descriptor stays open and the same for as long as this lives.
            let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
            Ok(Self { socket, buffer: vec![0; 128 << 10] })
        };
        open().context("cannot subscribe to changes of interfaces")
    }

    /// Waits for events and takes those that have come. May be cancelled: then nothing is lost.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn next(&mut self) -> anyhow::Result<Batch> {
        loop {
            let mut guard = self.socket.readable().await.context("cannot wait for changes of interfaces")?;
            let (batch, emptied) = take_batch(guard.get_inner(), &mut self.buffer)
                .context("cannot read changes of interfaces")?;
            if emptied {
                guard.clear_ready();
            }
            if batch != Batch::default() {
                return Ok(batch);
            }
        }
    }
}

/// What is in the socket now, and whether that was all.
fn take_batch(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(Batch, bool)> {
    let mut batch = Batch::default();
    for _ in 0..BATCH {
        match receive_now(socket, buffer) {
            Ok(Some(length)) => {
                messages(&buffer[..length]).filter_map(|message| decode::event(&message)).for_each(|event| {
                    batch.add(event);
                });
            }
            Ok(None) => return Ok((batch, true)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => batch.lost = true,
            Err(error) => return Err(error),
        }
    }
    Ok((batch, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_the_last_event_of_each_interface() {
        let seen = |index, name: &str| {
            InterfaceEvent::Seen(NetInterface { index, name: name.to_owned(), ..NetInterface::default() })
        };
        let mut batch = Batch::default();
        for event in [
            seen(7, "old"),
            seen(8, "b"),
            InterfaceEvent::Gone { index: 7 },
            InterfaceEvent::Addresses,
            InterfaceEvent::Gone { index: 9 },
            seen(7, "new"),
        ] {
            batch.add(event);
        }
        let names: HashMap<_, _> =
            batch.interfaces.iter().map(|(index, interface)| (*index, interface.name.as_str())).collect();
        assert_eq!(names, HashMap::from([(7, "new"), (8, "b")]));
        assert_eq!(batch.gone, HashSet::from([9]));
        assert_eq!(batch.ended, HashSet::from([7, 9]));
        assert!(batch.addresses && !batch.lost);

        let mut later = Batch { lost: true, ..Batch::default() };
        later.add(seen(9, "again"));
        later.add(InterfaceEvent::Gone { index: 8 });
        batch.append(later);
        assert_eq!(batch.gone, HashSet::from([8]));
        assert_eq!(batch.interfaces[&9].name, "again");
        assert_eq!(batch.ended, HashSet::from([7, 8, 9]));
        assert!(batch.lost);
    }
}
