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

use std::{
    collections::HashSet,
    fs,
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::Context as _;
use aya::{
    programs::{ProgramInfo, SchedClassifier},
    util::KernelVersion,
};
use traffic_common::{Direction, EGRESS_PROGRAM, INGRESS_PROGRAM};

use super::{
    bpffs::Bpffs,
    load::Programs,
    sys::{
        self,
        tcx::{self, OnHook, TcxLink, TcxLinkInfo},
    },
};
use crate::{
    config::AttachSetting,
    net::{
        interface::{BpfFilter, NetInterface},
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

/// A program on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// The kernel's id of it.
    pub id: u32,
    /// Its name, if it can be read: names of other programs need CAP_SYS_ADMIN.
    pub name: Option<String>,
    /// How it is attached.
    pub kind: AttachKind,
    /// Whether it is attached by this installation: by our pinned link, or by the filter that is ours.
    pub is_this_installations: bool,
}

impl AttachedProgram {
    /// Whether it is a program of trafctl's, of this installation or another.
    pub fn is_ours(&self) -> bool {
        self.name.as_deref().is_some_and(is_our_name)
    }

    /// The name, or the id instead.
    pub fn label(&self) -> String {
        match self.name.as_deref() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => format!("program {}", self.id),
        }
    }
}

/// The programs on one hook, in the order they run: links before filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookState(pub Vec<AttachedProgram>);

impl HookState {
    /// The id of this installation's program, if it is attached by this method.
    pub fn attached(&self, kind: AttachKind) -> Option<u32> {
        let ours = self.0.iter().find(|program| program.is_this_installations && program.kind == kind);
        ours.map(|program| program.id)
    }

    /// The programs that run before the first one of trafctl's.
    pub fn before_ours(&self) -> &[AttachedProgram] {
        let first = self.0.iter().position(AttachedProgram::is_ours).unwrap_or(0);
        &self.0[..first]
    }

    /// How many programs of trafctl's are on it, of whatever installation.
    pub fn ours(&self) -> usize {
        self.0.iter().filter(|program| program.is_ours()).count()
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

/// On an uplink each program is attached where the other one is on a container's interface.
const fn side(interface: &NetInterface, direction: Direction) -> Direction {
    if interface.is_uplink { direction.reversed() } else { direction }
}

/// The hooks of all interfaces of this network namespace.
#[derive(Debug)]
pub struct KernelHooks {
    bpffs: Bpffs,
    netlink: Netlink,
    kind: AttachKind,
    /// Indexes of interfaces that have a qdisc for filters, where all were listed at once.
    with_filters: Option<HashSet<u32>>,
}

impl KernelHooks {
    /// The hooks, for programs that are attached by this method.
    pub const fn new(bpffs: Bpffs, netlink: Netlink, kind: AttachKind) -> Self {
        Self { bpffs, netlink, kind, with_filters: None }
    }

    /// Where links and programs are pinned.
    pub const fn bpffs(&self) -> &Bpffs {
        &self.bpffs
    }

    /// Whether exactly this program is attached to a hook, by the configured method.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn is_current(
        &self,
        programs: &Programs,
        interface: &NetInterface,
        direction: Direction,
    ) -> anyhow::Result<bool> {
        let wanted = program_for(programs, interface, direction).info()?.id();
        let attached = match self.kind {
            AttachKind::Tcx => {
                let on_hook = self.links_on(interface, direction)?;
                self.pinned_link(interface, direction, &on_hook)?.map(|(_, info)| info.program_id)
            }
            AttachKind::Clsact => self.our_filter(interface, direction)?.map(|filter| filter.program_id),
        };
        Ok(attached == Some(wanted))
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

    /// How programs are attached.
    pub const fn kind(&self) -> AttachKind {
        self.kind
    }

    /// Asks once which interfaces have filters, so that [`Self::state`] need not ask for each. For readers
    /// only: what is attached later is not seen.
    ///
    /// # Errors
    /// When the qdiscs cannot be listed.
    pub fn list_qdiscs(&mut self) -> anyhow::Result<()> {
        let qdiscs = self.netlink.qdiscs()?.into_iter();
        let hooks = |kinds: &[String]| kinds.iter().any(|kind| kind == "clsact" || kind == "ingress");
        self.with_filters = Some(qdiscs.filter(|(_, kinds)| hooks(kinds)).map(|(index, _)| index).collect());
        Ok(())
    }

    /// What is on a hook. Empty where the interface is gone.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn state(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<HookState> {
        let links = self.links_on(interface, direction)?;
        let pinned = if links.is_empty() { None } else { self.pinned_link(interface, direction, &links)? };
        let pinned_program = self.pinned_program(side(interface, direction))?;
        let mut programs = Vec::with_capacity(links.len());
        for OnHook { program_id, link_id } in links {
            let is_this_installations = pinned.as_ref().is_some_and(|(_, info)| info.id == link_id);
            // Ours is known by its pin, so its name needs no privilege.
            let name = if is_this_installations || pinned_program == Some(program_id) {
                Some(program_name(side(interface, direction)).to_owned())
            } else {
                sys::program_name(program_id)
                    .with_context(|| format!("cannot ask for program {program_id}"))?
            };
            let kind = AttachKind::Tcx;
            programs.push(AttachedProgram { id: program_id, name, kind, is_this_installations });
        }
        for filter in self.filters_on(interface, direction)? {
            programs.push(AttachedProgram {
                id: filter.program_id,
                is_this_installations: is_our_filter(&filter),
                kind: AttachKind::Clsact,
                name: Some(filter.name),
            });
        }
        Ok(HookState(programs))
    }

    /// Indexes of all interfaces that have a pinned link.
    ///
    /// # Errors
    /// When the pins cannot be listed.
    pub fn pinned_interfaces(&self) -> anyhow::Result<Vec<u32>> {
        self.bpffs.linked_interfaces().context("cannot list the pinned links")
    }

    /// The links on a hook; none where the kernel has no TCX, or the interface is gone.
    fn links_on(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Vec<OnHook>> {
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
        on_hook: &[OnHook],
    ) -> anyhow::Result<Option<(TcxLink, TcxLinkInfo)>> {
        let path = self.bpffs.link(interface.index, direction);
        let open = TcxLink::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let Some(link) = open else { return Ok(None) };
        let info = link.info().with_context(|| format!("cannot inspect {}", path.display()))?;
        let is_here = on_hook.iter().any(|on_hook| on_hook.link_id == info.id);
        Ok(is_here.then_some((link, info)))
    }

    /// Id of the pinned program for a hook.
    fn pinned_program(&self, direction: Direction) -> anyhow::Result<Option<u32>> {
        let path = self.bpffs.program(program_name(direction));
        if !fs::exists(&path)? {
            return Ok(None);
        }
        Ok(Some(ProgramInfo::from_pin(&path)?.id()))
    }

    fn filters_on(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Vec<BpfFilter>> {
        match &self.with_filters {
            Some(with_filters) if !with_filters.contains(&interface.index) => Ok(Vec::new()),
            _ => self.netlink.bpf_filters(interface.index, direction),
        }
    }

    fn our_filter(
        &self,
        interface: &NetInterface,
        direction: Direction,
    ) -> anyhow::Result<Option<BpfFilter>> {
        let filters = self.netlink.bpf_filters(interface.index, direction)?;
        Ok(filters.into_iter().find(is_our_filter))
    }
}

fn is_our_filter(filter: &BpfFilter) -> bool {
    filter.priority == FILTER_PRIORITY && filter.handle == FILTER_HANDLE && is_our_name(&filter.name)
}

fn program_for<'p>(
    programs: &'p Programs,
    interface: &NetInterface,
    direction: Direction,
) -> &'p SchedClassifier {
    match side(interface, direction) {
        Direction::In => &programs.egress,
        Direction::Out => &programs.ingress,
    }
}

fn fd_of(program: &SchedClassifier) -> anyhow::Result<BorrowedFd<'_>> {
    Ok(program.fd()?.as_fd())
}
