//! The TC hooks of an interface: what is on them, attaching our program and detaching it.
//!
//! From kernel 6.6 the program is attached by a TCX link, pinned under the interface's index: it is replaced
//! in place when the program changes. Older kernels have a `clsact` qdisc and a filter at a fixed priority
//! and handle, so that a second attach finds the first and a detach removes only what is ours. The qdisc
//! stays: others may use it.
//!
//! Interfaces are identified by their index. A pinned link counts as ours only if the kernel lists it on the
//! hook of that index in this network namespace: an interface that moved to another namespace takes its links
//! along, and its index can be given to another.

mod change;
mod listing;
mod others;

pub use listing::{AttachedProgram, HookListing, HookSeen, HookState, Listed, OnHook, Recognition};
pub use others::may_redirect;

use std::{
    cell::OnceCell,
    collections::HashSet,
    fs,
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::Context as _;
use aya::{programs::SchedClassifier, util::KernelVersion};
use traffic_common::{DIRECTIONS, Direction, EGRESS_PROGRAM, INGRESS_PROGRAM};

use super::{
    bpffs::Bpffs,
    expedite::Expedite,
    load::Programs,
    sys::tcx::{self, TcxLink, TcxLinkInfo},
};
use crate::{
    config::AttachSetting,
    net::{
        interface::{BpfFilter, HookQdisc, NetInterface},
        netlink::Netlink,
    },
};

/// First in the chain of filters: a program before ours that ends the chain would starve it.
const FILTER_PRIORITY: u16 = 1;
/// Distinguishes our filter from others of the same priority.
const FILTER_HANDLE: u32 = 0x7472;

/// How a program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachKind {
    /// A pinned TCX link.
    Tcx,
    /// A filter under the clsact qdisc.
    Clsact,
}

impl AttachKind {
    /// The name used in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// The kind that the configuration selects on this kernel.
    pub fn choose(setting: AttachSetting) -> Self {
        match setting {
            AttachSetting::Tcx => Self::Tcx,
            AttachSetting::Clsact => Self::Clsact,
            AttachSetting::Auto if has_tcx() => Self::Tcx,
            AttachSetting::Auto => Self::Clsact,
        }
    }
}

/// TCX came with 6.6.
fn has_tcx() -> bool {
    const TCX_SINCE: u32 = 6 << 16 | 6 << 8;
    KernelVersion::current().is_ok_and(|version| version.code() >= TCX_SINCE)
}

/// What [`KernelHooks::attach`] found or did on one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The program was attached already.
    Kept,
    /// Another version of the program was attached and was replaced without a gap.
    Replaced,
    /// No program of ours was attached.
    Attached,
}

/// What became of a device whose interface is gone from this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFate {
    /// It does not exist any more.
    Ended,
    /// It is in another network namespace, and may come back.
    Moved,
    /// Unknown: no link was pinned.
    Unknown,
}

impl DeviceFate {
    /// Combines what two hooks show.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Moved, _) | (_, Self::Moved) => Self::Moved,
            (Self::Ended, _) | (_, Self::Ended) => Self::Ended,
            _ => Self::Unknown,
        }
    }
}

/// Whether a program of this name is one of trafctl's.
fn is_our_name(program: &str) -> bool {
    program == INGRESS_PROGRAM || program == EGRESS_PROGRAM
}

/// Name of the program that is attached to a hook of a container's interface.
const fn program_name(direction: Direction) -> &'static str {
    match direction {
        Direction::In => EGRESS_PROGRAM,
        Direction::Out => INGRESS_PROGRAM,
    }
}

/// The hooks of all interfaces of this network namespace.
#[derive(Debug)]
pub struct KernelHooks {
    bpffs: Bpffs,
    netlink: Netlink,
    kind: AttachKind,
    expedite: Expedite,
    /// Ids of all pinned links, once one was found on a hook without a pin of its own.
    pinned_links: OnceCell<HashSet<u32>>,
}

impl KernelHooks {
    /// The hooks, for programs that are attached by this method.
    pub const fn new(bpffs: Bpffs, netlink: Netlink, kind: AttachKind) -> Self {
        Self { bpffs, netlink, kind, expedite: Expedite::off(), pinned_links: OnceCell::new() }
    }

    /// The same, with expedited grace periods while links are created or detached. The caller holds the
    /// change lock as long as this exists.
    #[must_use]
    pub fn expediting(self, expedite: Expedite) -> Self {
        Self { expedite, ..self }
    }

    /// Where links and programs are pinned.
    pub const fn bpffs(&self) -> &Bpffs {
        &self.bpffs
    }

    /// Whether a link that is pinned under the interface's index is on this interface. An interface that is
    /// gone, or that moved to another namespace, leaves its pins to the next one of its index. `None` without
    /// a pin.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn is_known_device(&self, interface: &NetInterface) -> anyhow::Result<Option<bool>> {
        let mut known = None;
        for direction in Direction::BOTH {
            if !fs::exists(self.bpffs.link(interface.index, direction))? {
                continue;
            }
            let on_hook = self.links_on(interface, direction)?;
            let is_here = self.pinned_link(interface, direction, &on_hook)?.is_some();
            known = Some(known.unwrap_or(false) || is_here);
        }
        Ok(known)
    }

    /// The link on a hook that runs this program and is pinned nowhere in this directory: its pin is out of
    /// sight ([`super::load::Held`]), and it counts all the same. One that is pinned under another index
    /// belongs to a device that came back under this one.
    fn out_of_sight(&self, on_hook: &[tcx::OnHook], program: u32) -> anyhow::Result<Option<tcx::OnHook>> {
        let Some(found) = on_hook.iter().find(|on_hook| on_hook.program_id == program) else {
            return Ok(None);
        };
        if self.pinned_links.get().is_none() {
            let mut ids = HashSet::new();
            for (ifindex, direction) in self.bpffs.linked_hooks().context("cannot list the pinned links")? {
                if let Some(link) = TcxLink::open(&self.bpffs.link(ifindex, direction))? {
                    ids.insert(link.info()?.id);
                }
            }
            // Nobody else sets it.
            let _already_set = self.pinned_links.set(ids);
        }
        let is_pinned = self.pinned_links.get().is_some_and(|ids| ids.contains(&found.link_id));
        Ok((!is_pinned).then_some(*found))
    }

    /// How programs are attached.
    pub const fn kind(&self) -> AttachKind {
        self.kind
    }

    /// Indexes of all interfaces that have a pinned link.
    ///
    /// # Errors
    /// When the pins cannot be listed.
    pub fn pinned_interfaces(&self) -> anyhow::Result<Vec<u32>> {
        self.bpffs.linked_interfaces().context("cannot list the pinned links")
    }

    /// The links on a hook; none where the kernel has no TCX, or the interface is gone.
    fn links_on(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Vec<tcx::OnHook>> {
        if !has_tcx() {
            return Ok(Vec::new());
        }
        match tcx::on_hook(interface.index, direction) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
            other => other.with_context(|| {
                format!("cannot ask for the programs on {} (CAP_NET_ADMIN is needed)", interface.name)
            }),
        }
    }

    /// The pinned link of a hook, if it is among the links `on_hook`.
    fn pinned_link(
        &self,
        interface: &NetInterface,
        direction: Direction,
        on_hook: &[tcx::OnHook],
    ) -> anyhow::Result<Option<(TcxLink, TcxLinkInfo)>> {
        let path = self.bpffs.link(interface.index, direction);
        let open = TcxLink::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let Some(link) = open else { return Ok(None) };
        let info = link.info().with_context(|| format!("cannot inspect {}", path.display()))?;
        let is_here = on_hook.iter().any(|on_hook| on_hook.link_id == info.id);
        Ok(is_here.then_some((link, info)))
    }

    /// The BPF filters of one hook, and of no other.
    fn list_filters(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Vec<BpfFilter>> {
        let filters = self.netlink.bpf_filters(interface.index, direction)?;
        if direction == Direction::In && !filters.is_empty() {
            let qdisc = self.netlink.hook_qdisc(interface.index)?;
            if !qdisc.is_some_and(|qdisc| has_hook(&qdisc, direction)) {
                return Ok(Vec::new());
            }
        }
        Ok(filters)
    }

    fn our_filter(
        &self,
        interface: &NetInterface,
        direction: Direction,
    ) -> anyhow::Result<Option<BpfFilter>> {
        Ok(self.list_filters(interface, direction)?.into_iter().find(is_our_filter))
    }
}

/// Whether a qdisc has the hook for a direction. An `ingress` qdisc answers for the other hook too, with the
/// filters of the only one that it has.
fn has_hook(qdisc: &HookQdisc, direction: Direction) -> bool {
    direction == Direction::Out || qdisc.kind == "clsact"
}

fn is_our_filter(filter: &BpfFilter) -> bool {
    filter.priority == FILTER_PRIORITY && filter.handle == FILTER_HANDLE && is_our_name(&filter.name)
}

fn program_for<'p>(
    programs: &'p Programs,
    interface: &NetInterface,
    direction: Direction,
) -> &'p SchedClassifier {
    match interface.side(direction) {
        Direction::In => &programs.egress,
        Direction::Out => &programs.ingress,
    }
}

/// The ids of the programs, by the side of a container's interface on which each is attached.
///
/// # Errors
/// When the kernel does not describe them.
pub fn program_ids(programs: &Programs) -> anyhow::Result<[Option<u32>; DIRECTIONS]> {
    let mut ids = [None; DIRECTIONS];
    ids[Direction::In as usize] = Some(programs.egress.info()?.id());
    ids[Direction::Out as usize] = Some(programs.ingress.info()?.id());
    Ok(ids)
}

fn fd_of(program: &SchedClassifier) -> anyhow::Result<BorrowedFd<'_>> {
    Ok(program.fd()?.as_fd())
}
