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
    interface::{InterfaceEvent, NetInterface, OtherEnd},
    message::messages,
    socket::{RouteSocket, receive_now},
};

/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR`
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Room for events that were not read yet: some ten thousand of interfaces.
const RECEIVE_BUFFER: usize = 16 << 20;
/// The most datagrams in one batch, so that a container with a flapping interface does not delay others.
const BATCH: usize = 1024;

/// An interface that ended, or moved to another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The interface as it was at its end.
    pub last: NetInterface,
    /// Other names that events showed it with, the oldest first.
    pub former_names: Vec<String>,
    /// Whether an event showed it with a carrier.
    pub had_carrier: bool,
    /// Whether it only moved to another network namespace.
    pub has_moved: bool,
}

impl Ended {
    /// Its names, the last one first.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.last.name).chain(self.former_names.iter().rev())
    }
}

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
    /// The interfaces that ended, in the order of their ends.
    pub ends: Vec<Ended>,
    /// By index of an interface that did not end since: its names, the oldest first.
    pub names: HashMap<u32, Vec<String>>,
    /// By index of an interface that did not end since: whether it had a carrier.
    pub carrier: HashMap<u32, bool>,
    /// Whether addresses of the node's own changed.
    pub addresses: bool,
    /// Whether events were lost.
    pub lost: bool,
}

impl Batch {
    /// Adds a later batch.
    pub fn append(&mut self, mut later: Self) {
        for end in &mut later.ends {
            let mut names = self.names.remove(&end.last.index).unwrap_or_default();
            names.append(&mut end.former_names);
            names.retain(|name| *name != end.last.name);
            end.former_names = names;
            end.had_carrier |= self.carrier.remove(&end.last.index).unwrap_or(false);
            end.last.recall_other_end(self.other_end(end.last.index));
        }
        for (index, carrier) in later.carrier {
            *self.carrier.entry(index).or_default() |= carrier;
        }
        for (index, names) in later.names {
            names.into_iter().for_each(|name| self.name(index, name));
        }
        self.ends.append(&mut later.ends);
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
                self.name(interface.index, interface.name.clone());
                *self.carrier.entry(interface.index).or_default() |= interface.has_carrier;
                self.see(interface);
            }
            InterfaceEvent::Gone { index, last, has_moved } => {
                let had_carrier = self.carrier.remove(&index).unwrap_or(false);
                let mut former_names = self.names.remove(&index).unwrap_or_default();
                let seen = self.other_end(index);
                self.ends.extend(last.map(|mut last| {
                    former_names.retain(|name| *name != last.name);
                    last.recall_other_end(seen);
                    Ended { last: *last, former_names, had_carrier, has_moved }
                }));
                self.ended.insert(index);
                self.gone.insert(index);
            }
            InterfaceEvent::Addresses => self.addresses = true,
        }
    }

    /// Indexes of interfaces that had a carrier and did not end since.
    pub fn with_carrier(&self) -> impl Iterator<Item = u32> {
        self.carrier.iter().filter(|(_, carrier)| **carrier).map(|(index, _)| *index)
    }

    fn name(&mut self, index: u32, name: String) {
        let names = self.names.entry(index).or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }

    fn other_end(&self, index: u32) -> Option<OtherEnd> {
        self.interfaces.get(&index)?.other_end_elsewhere()
    }

    fn see(&mut self, mut interface: NetInterface) {
        let index = interface.index;
        // A veth is shown once more while it ends, after its other end.
        interface.recall_other_end(self.other_end(index));
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
        let gone = |index| InterfaceEvent::Gone { index, last: None, has_moved: false };
        let mut batch = Batch::default();
        for event in
            [seen(7, "old"), seen(8, "b"), gone(7), InterfaceEvent::Addresses, gone(9), seen(7, "new")]
        {
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
        later.add(gone(8));
        batch.append(later);
        assert_eq!(batch.gone, HashSet::from([8]));
        assert_eq!(batch.interfaces[&9].name, "again");
        assert_eq!(batch.ended, HashSet::from([7, 8, 9]));
        assert!(batch.lost);
    }

    #[test]
    fn each_end_is_kept_with_what_came_before_it() {
        let interface = |name: &str, has_carrier| NetInterface {
            index: 7,
            name: name.to_owned(),
            has_carrier,
            ..NetInterface::default()
        };
        let seen = |name, has_carrier| InterfaceEvent::Seen(interface(name, has_carrier));
        let gone = |name, has_moved| {
            let last = Some(Box::new(interface(name, false)));
            InterfaceEvent::Gone { index: 7, last, has_moved }
        };
        let batch = |events: Vec<InterfaceEvent>| {
            let mut batch = Batch::default();
            events.into_iter().for_each(|event| batch.add(event));
            batch
        };
        let mut all = batch(vec![seen("a", true), seen("a", false), gone("a", false), seen("b", true)]);
        assert_eq!(all.with_carrier().collect::<Vec<_>>(), [7]);
        all.append(batch(vec![seen("b", false), gone("b", false), seen("c", false), gone("c", true)]));
        all.append(batch(vec![seen("d", true)]));
        let ends: Vec<_> =
            all.ends.iter().map(|end| (end.last.name.as_str(), end.had_carrier, end.has_moved)).collect();
        assert_eq!(ends, [("a", true, false), ("b", true, false), ("c", false, true)]);
        assert_eq!(all.with_carrier().collect::<Vec<_>>(), [7]);
    }
}
