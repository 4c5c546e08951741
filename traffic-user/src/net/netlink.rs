//! Requests to rtnetlink and their replies: interfaces, addresses, qdiscs and filters.
//!
//! Requests are synchronous. Each one has a deadline, answers to earlier requests are skipped, and a dump
//! that the kernel marks as interrupted is repeated. A dump is never proof that something is absent: ask for
//! the interface by itself ([`Netlink::interface`]) before acting on that.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use traffic_common::Direction;

use super::{
    decode::{
        self, RTM_DELTFILTER, RTM_GETADDR, RTM_GETLINK, RTM_GETQDISC, RTM_GETTFILTER, RTM_NEWQDISC,
        RTM_NEWTFILTER, TCA_BPF_FD, TCA_BPF_FLAGS, TCA_BPF_NAME, TCA_KIND, TCA_OPTIONS, TCMSG,
    },
    interface::{BpfFilter, ForeignFilter, HookQdisc, NetInterface},
    message::{self, Message, Request, messages},
    socket::{RouteSocket, Transport},
};

/// How long a reply may take. Other processes can hold the kernel's lock on interfaces for seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a dump that was interrupted is repeated at once.
const DUMP_ATTEMPTS: usize = 8;
/// Largest datagram that is received; the kernel's dumps come in pieces of up to 32 KiB.
const BUFFER: usize = 128 << 10;

/// `TC_H_CLSACT`, and the class of its two hooks below it.
const CLSACT_PARENT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// `ETH_P_ALL`, in network byte order.
const ALL_PROTOCOLS: u32 = 3_u16.to_be() as u32;
/// `TCA_BPF_FLAG_ACT_DIRECT`
const DIRECT_ACTION: u32 = 1;

/// A connection to the kernel's rtnetlink, in the network namespace of the thread that made it.
#[derive(Clone)]
pub struct Netlink(Arc<Mutex<Exchange>>);

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Netlink")
    }
}

struct Exchange {
    transport: Box<dyn Transport>,
    sequence: u32,
    buffer: Vec<u8>,
    patience: Duration,
}

/// When the answer to a request is complete.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// After one message, or an error.
    First,
    /// After the end of a dump, or an acknowledgement.
    Done,
}

impl Netlink {
    /// Opens a connection in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn connect() -> anyhow::Result<Self> {
        let socket = RouteSocket::open(0).context("cannot open a netlink socket")?;
        Ok(Self::over(Box::new(socket), PATIENCE))
    }

    pub(super) fn over(transport: Box<dyn Transport>, patience: Duration) -> Self {
        let exchange = Exchange { transport, sequence: 0, buffer: vec![0; BUFFER], patience };
        Self(Arc::new(Mutex::new(exchange)))
    }

    /// All interfaces of the namespace. One that is missing may exist all the same, if interfaces come and go
    /// without a pause.
    ///
    /// # Errors
    /// When the kernel refuses the listing or does not answer in time.
    pub fn interfaces(&self) -> anyhow::Result<Vec<NetInterface>> {
        let mut found: Vec<NetInterface> = Vec::new();
        self.dump(&Request::new(RTM_GETLINK, message::DUMP, &[0; 16]), decode::interface, &mut found)
            .context("cannot list the interfaces")?;
        Ok(found)
    }

    /// One interface as it is now; `None` when the kernel reports that none has this index.
    ///
    /// # Errors
    /// When the kernel refuses for another reason or does not answer in time.
    pub fn interface(&self, index: u32) -> anyhow::Result<Option<NetInterface>> {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut found = None;
        let answer = self.transact(&Request::new(RTM_GETLINK, 0, &body), Until::First, |message| {
            found = decode::interface(message);
        });
        match answer {
            // A reply that cannot be read does not mean that the interface does not exist.
            Ok(_) => found
                .map(Some)
                .with_context(|| format!("cannot read the kernel's description of interface {index}")),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot ask for interface {index}")),
        }
    }

    /// The node's own addresses, on whatever interface.
    ///
    /// # Errors
    /// When the kernel refuses the listing or does not answer in time.
    pub fn own_addresses(&self) -> anyhow::Result<BTreeSet<IpAddr>> {
        let mut found = Vec::new();
        self.dump(&Request::new(RTM_GETADDR, message::DUMP, &[0; 8]), decode::address, &mut found)
            .context("cannot list the addresses")?;
        Ok(found.into_iter().collect())
    }

    /// The kinds of the qdiscs that each interface has, by its index.
    ///
    /// # Errors
    /// When the kernel refuses the listing or does not answer in time.
    pub fn qdiscs(&self) -> anyhow::Result<HashMap<u32, Vec<String>>> {
        let mut found = Vec::new();
        self.dump(&Request::new(RTM_GETQDISC, message::DUMP, &[0; TCMSG]), decode::qdisc, &mut found)
            .context("cannot list the qdiscs")?;
        let mut by_interface: HashMap<u32, Vec<String>> = HashMap::new();
        for (index, kind) in found {
            by_interface.entry(index).or_default().push(kind);
        }
        Ok(by_interface)
    }

    /// The BPF classifiers on a clsact hook; none where there is no such qdisc.
    ///
    /// # Errors
    /// When the kernel refuses the listing for another reason or does not answer in time.
    pub fn bpf_filters(&self, ifindex: u32, direction: Direction) -> anyhow::Result<Vec<BpfFilter>> {
        let body = tcmsg(ifindex, 0, clsact_hook(direction), 0);
        let mut found = Vec::new();
        let answer =
            self.dump(&Request::new(RTM_GETTFILTER, message::DUMP, &body), decode::filter, &mut found);
        match answer {
            Ok(()) => Ok(found),
            // No qdisc of that kind, or no such interface any more.
            Err(error) if is_no_hook(&error) => Ok(Vec::new()),
            Err(error) => {
                Err(error).with_context(|| format!("cannot list the filters of interface {ifindex}"))
            }
        }
    }

    /// All filters on a clsact hook, of whatever kind; none where there is no such qdisc.
    ///
    /// # Errors
    /// When the kernel refuses the listing for another reason or does not answer in time.
    pub fn all_filters(&self, ifindex: u32, direction: Direction) -> anyhow::Result<Vec<ForeignFilter>> {
        let body = tcmsg(ifindex, 0, clsact_hook(direction), 0);
        let mut found = Vec::new();
        match self.dump(&Request::new(RTM_GETTFILTER, message::DUMP, &body), decode::any_filter, &mut found) {
            Err(error) if !is_no_hook(&error) => {
                Err(error).with_context(|| format!("cannot list the filters of interface {ifindex}"))
            }
            _ => Ok(found),
        }
    }

    /// The qdisc that holds the filters of an interface's hooks; `None` without one.
    ///
    /// # Errors
    /// When the kernel refuses for another reason or does not answer in time.
    pub fn hook_qdisc(&self, ifindex: u32) -> anyhow::Result<Option<HookQdisc>> {
        let body = tcmsg(ifindex, 0, CLSACT_PARENT, 0);
        let mut found = None;
        let answer =
            self.transact(&Request::new(RTM_GETQDISC, message::ECHO, &body), Until::First, |message| {
                found = decode::hook_qdisc(message);
            });
        match answer {
            Ok(_) => Ok(found),
            Err(error) if is_no_hook(&error) => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("cannot ask for the qdisc of interface {ifindex}"))
            }
        }
    }

    /// Adds the clsact qdisc to an interface; returns whether it was missing.
    ///
    /// # Errors
    /// As the kernel reports them.
    pub fn add_clsact(&self, ifindex: u32) -> io::Result<bool> {
        let body = tcmsg(ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0);
        let flags = message::ACK | message::CREATE | message::EXCLUSIVE;
        let request = Request::new(RTM_NEWQDISC, flags, &body).attribute(TCA_KIND, b"clsact\0");
        match self.transact(&request, Until::Done, |_| {}) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Attaches a program to a clsact hook at a priority and handle. Replaces the filter that has both.
    ///
    /// # Errors
    /// As the kernel reports them.
    pub fn put_filter(
        &self,
        ifindex: u32,
        direction: Direction,
        filter: &BpfFilter,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let info = u32::from(filter.priority) << 16 | ALL_PROTOCOLS;
        let body = tcmsg(ifindex, filter.handle, clsact_hook(direction), info);
        let mut name = filter.name.as_bytes().to_vec();
        name.push(0);
        let request = Request::new(RTM_NEWTFILTER, message::ACK | message::CREATE | message::REPLACE, &body)
            .attribute(TCA_KIND, b"bpf\0")
            .nested(
                TCA_OPTIONS,
                &[
                    (TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes()),
                    (TCA_BPF_NAME, &name),
                    (TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes()),
                ],
            );
        self.transact(&request, Until::Done, |_| {}).map(drop)
    }

    /// Removes a filter from a clsact hook; returns whether it was there.
    ///
    /// # Errors
    /// As the kernel reports them.
    pub fn remove_filter(
        &self,
        ifindex: u32,
        direction: Direction,
        priority: u16,
        handle: u32,
    ) -> io::Result<bool> {
        let info = u32::from(priority) << 16 | ALL_PROTOCOLS;
        let body = tcmsg(ifindex, handle, clsact_hook(direction), info);
        let request = Request::new(RTM_DELTFILTER, message::ACK, &body).attribute(TCA_KIND, b"bpf\0");
        match self.transact(&request, Until::Done, |_| {}) {
            Ok(_) => Ok(true),
            Err(error) if is_no_hook(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A dump, repeated while the kernel marks it as interrupted.
    pub(super) fn dump<T>(
        &self,
        request: &Request,
        decode: impl Fn(&Message<'_>) -> Option<T>,
        found: &mut Vec<T>,
    ) -> io::Result<()> {
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            let interrupted = self.transact(request, Until::Done, |message| found.extend(decode(message)))?;
            if !interrupted {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn transact(
        &self,
        request: &Request,
        until: Until,
        take: impl FnMut(&Message<'_>),
    ) -> io::Result<bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).transact(request, until, take)
    }
}

impl Exchange {
    /// Sends a request and gives its replies to `take`; returns whether any of them is marked as interrupted.
    fn transact(
        &mut self,
        request: &Request,
        until: Until,
        mut take: impl FnMut(&Message<'_>),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let deadline = Instant::now() + self.patience;
        self.transport.send(&request.clone().finish(self.sequence)?)?;
        let mut interrupted = false;
        loop {
            let length = self.transport.receive(&mut self.buffer, deadline)?;
            // A reply to an earlier request, which came after its deadline, has another number.
            let ours = |message: &Message<'_>| message.sequence == self.sequence;
            for message in messages(&self.buffer[..length]).filter(ours) {
                interrupted |= message.flags & message::DUMP_INTERRUPTED != 0;
                match message.kind {
                    // The end of a dump can carry the errno that ended it.
                    message::ERROR | message::DONE => match message.errno() {
                        0 => return Ok(interrupted),
                        _ if message.kind == message::DONE && message.body.len() < 4 => {
                            return Ok(interrupted);
                        }
                        errno => return Err(io::Error::from_raw_os_error(errno)),
                    },
                    _ => {
                        take(&message);
                        if until == Until::First {
                            return Ok(interrupted);
                        }
                    }
                }
            }
        }
    }
}

/// `struct tcmsg` with an unspecified family.
fn tcmsg(ifindex: u32, handle: u32, parent: u32, info: u32) -> [u8; TCMSG] {
    let mut body = [0; TCMSG];
    for (at, value) in [(4, ifindex), (8, handle), (12, parent), (16, info)] {
        body[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    body
}

const fn clsact_hook(direction: Direction) -> u32 {
    match direction {
        Direction::In => CLSACT_EGRESS,
        Direction::Out => CLSACT_INGRESS,
    }
}

/// What the kernel answers about filters where the qdisc, the filter or the interface does not exist.
fn is_no_hook(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests;
