//! AttachedProgram the program on an interface's two hooks, and taking it off.
//!
//! From kernel 6.6 the hook is a TCX link, pinned under the interface's index: it is replaced in place when the program
//! changes, and a link that is there already is left alone. Older kernels have a `clsact` qdisc and a filter at a
//! fixed priority and handle, so that a second attach finds the first and a detach removes only what is ours. The qdisc
//! is left standing: others may use it.

use std::{fs, io};

use anyhow::{Context as _, anyhow, bail};
use aya::{
    programs::{
        LinkOrder, MultiProgLink as _, ProgramInfo, SchedClassifier, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
    util::KernelVersion,
};
use traffic_common::{Direction, EGRESS_PROGRAM, INGRESS_PROGRAM};

use crate::{
    config::AttachSetting,
    kernel::{bpffs::Bpffs, load::Programs, sys},
    net::{interface::NetInterface, netlink::Netlink},
};

/// First in the chain of filters: a program before ours that ends the chain would starve it.
const FILTER_PRIORITY: u16 = 1;
/// Tells our filter from others of the same priority.
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 0x7472);

/// The way a program hangs on an interface.
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

    /// The kind this kernel and the configuration call for.
    pub fn choose(setting: AttachSetting) -> Self {
        match setting {
            AttachSetting::Tcx => Self::Tcx,
            AttachSetting::Clsact => Self::Clsact,
            AttachSetting::Auto if has_tcx() => Self::Tcx,
            AttachSetting::Auto => Self::Clsact,
        }
    }
}

/// What [`ensure`] found or did on one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The program hung there already.
    Kept,
    /// Another version of the program hung there and was replaced without a gap.
    Replaced,
    /// Nothing of ours hung there.
    Attached,
}

/// TCX came with 6.6.
fn has_tcx() -> bool {
    const TCX_SINCE: u32 = 6 << 16 | 6 << 8;
    KernelVersion::current().is_ok_and(|version| version.code() >= TCX_SINCE)
}

const fn hook(direction: Direction) -> (TcAttachType, &'static str) {
    match direction {
        Direction::In => (TcAttachType::Egress, EGRESS_PROGRAM),
        Direction::Out => (TcAttachType::Ingress, INGRESS_PROGRAM),
    }
}

impl Programs {
    /// The program for a hook: on an uplink each hangs where the other does on a container's interface.
    fn for_hook(&mut self, interface: &NetInterface, direction: Direction) -> &mut SchedClassifier {
        match if interface.is_uplink { direction.reversed() } else { direction } {
            Direction::In => &mut self.egress,
            Direction::Out => &mut self.ingress,
        }
    }
}

/// Whether a program of ours hangs on the hook, whatever its version.
///
/// # Errors
/// When the kernel can't be asked.
pub async fn is_attached(
    bpffs: &Bpffs,
    netlink: &Netlink,
    interface: &NetInterface,
    kind: AttachKind,
    direction: Direction,
) -> anyhow::Result<bool> {
    Ok(program_on(bpffs, netlink, interface, kind, direction).await?.is_some())
}

/// Whether just this program hangs on the hook. One of ours that is another may count in maps that nobody knows any more,
/// whose pins were removed.
///
/// # Errors
/// When the kernel can't be asked.
pub async fn is_current(
    bpffs: &Bpffs,
    netlink: &Netlink,
    programs: &mut Programs,
    interface: &NetInterface,
    kind: AttachKind,
    direction: Direction,
) -> anyhow::Result<bool> {
    let wanted = programs.for_hook(interface, direction).info()?.id();
    Ok(program_on(bpffs, netlink, interface, kind, direction).await? == Some(wanted))
}

/// Id of the program of ours on a hook.
async fn program_on(
    bpffs: &Bpffs,
    netlink: &Netlink,
    interface: &NetInterface,
    kind: AttachKind,
    direction: Direction,
) -> anyhow::Result<Option<u32>> {
    match kind {
        AttachKind::Tcx => Ok(pinned_link(bpffs, interface.index, direction)?.map(|(_, on)| on.program_id)),
        AttachKind::Clsact => our_filter(netlink, interface, direction).await,
    }
}

/// Makes sure that this program hangs on the hook.
///
/// # Errors
/// When the kernel refuses, or the interface was renamed meanwhile; then nothing new hangs there.
pub async fn ensure(
    bpffs: &Bpffs,
    netlink: &Netlink,
    programs: &mut Programs,
    interface: &NetInterface,
    kind: AttachKind,
    direction: Direction,
) -> anyhow::Result<Change> {
    let (attach_type, name) = hook(direction);
    let program = programs.for_hook(interface, direction);
    let change = match kind {
        AttachKind::Tcx => ensure_tcx(bpffs, program, interface, direction),
        AttachKind::Clsact => {
            let found = our_filter(netlink, interface, direction).await?;
            match ensure_clsact(program, interface, attach_type, found) {
                // The filter goes by the name, which may have gone to another interface.
                Ok(Change::Attached) if our_filter(netlink, interface, direction).await?.is_none() => {
                    take_filter_off(interface, attach_type).and(Err(anyhow!(
                        "the name now belongs to another interface than index {}",
                        interface.index
                    )))
                }
                change => change,
            }
        }
    };
    change.with_context(|| format!("cannot attach {name} to {} ({})", interface.name, kind.name()))
}

fn ensure_tcx(
    bpffs: &Bpffs,
    program: &mut SchedClassifier,
    interface: &NetInterface,
    direction: Direction,
) -> anyhow::Result<Change> {
    let (attach_type, _) = hook(direction);
    if let Some((pinned, on)) = pinned_link(bpffs, interface.index, direction)? {
        if on.program_id == program.info()?.id() {
            return Ok(Change::Kept);
        }
        let id = program.attach_to_link(pinned)?;
        // The pin keeps the link; this handle on it may go.
        drop(program.take_link(id)?);
        return Ok(Change::Replaced);
    }
    let path = bpffs.link(interface.index, direction);
    if fs::exists(&path)? {
        // Its interface is gone and the index was given to another.
        fs::remove_file(&path).with_context(|| format!("cannot unpin the stale {}", path.display()))?;
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&interface.name, attach_type, order)?;
    let attached = program.take_link(id)?;
    let on = sys::tcx_link(attached.fd()?)?;
    if on.ifindex != interface.index {
        bail!(
            "the name now belongs to another interface (index {} instead of {})",
            on.ifindex,
            interface.index
        );
    }
    FdLink::try_from(attached)?.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
    Ok(Change::Attached)
}

/// The pinned link of a hook and what it hangs on; `None` when there is none or its interface is gone.
fn pinned_link(
    bpffs: &Bpffs,
    ifindex: u32,
    direction: Direction,
) -> anyhow::Result<Option<(SchedClassifierLink, sys::TcxLink)>> {
    let path = bpffs.link(ifindex, direction);
    let pinned = match PinnedLink::from_pin(&path) {
        Ok(pinned) => SchedClassifierLink::try_from(FdLink::from(pinned))
            .with_context(|| format!("{} is no TCX link", path.display()))?,
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let on = sys::tcx_link(pinned.fd()?).with_context(|| format!("cannot inspect {}", path.display()))?;
    Ok((on.ifindex == ifindex).then_some((pinned, on)))
}

fn ensure_clsact(
    program: &mut SchedClassifier,
    interface: &NetInterface,
    attach_type: TcAttachType,
    found: Option<u32>,
) -> anyhow::Result<Change> {
    if let Some(program_id) = found {
        if program_id == program.info()?.id() {
            return Ok(Change::Kept);
        }
        let existing = SchedClassifierLink::attached(
            &interface.name,
            attach_type,
            FILTER_PRIORITY,
            FILTER_HANDLE,
            None,
        )?;
        let id = program.attach_to_link(existing)?;
        leave_attached(program.take_link(id)?);
        return Ok(Change::Replaced);
    }
    match tc::qdisc_add_clsact(&interface.name) {
        Ok(()) => {}
        // It is there already, ours or another's: just what is needed.
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(error).context("cannot add the clsact qdisc"),
    }
    let options = NlOptions { priority: FILTER_PRIORITY, handle: FILTER_HANDLE, classid: None };
    let id = program.attach_with_options(&interface.name, attach_type, TcAttachOptions::Netlink(options))?;
    leave_attached(program.take_link(id)?);
    Ok(Change::Attached)
}

/// A filter lives in the kernel without any handle on it; dropping this one would remove it.
fn leave_attached(link: SchedClassifierLink) {
    std::mem::forget(link);
}

/// Removes our filter from whatever has this name.
fn take_filter_off(interface: &NetInterface, attach_type: TcAttachType) -> anyhow::Result<()> {
    let existing =
        SchedClassifierLink::attached(&interface.name, attach_type, FILTER_PRIORITY, FILTER_HANDLE, None)?;
    Ok(aya::programs::Link::detach(existing)?)
}

/// Id of our program's filter on a clsact hook.
async fn our_filter(
    netlink: &Netlink,
    interface: &NetInterface,
    direction: Direction,
) -> anyhow::Result<Option<u32>> {
    let filters = netlink.bpf_filters(interface.index, direction).await?;
    let ours = filters.into_iter().find(|filter| {
        filter.priority == FILTER_PRIORITY
            && filter.handle == u32::from(FILTER_HANDLE)
            && is_ours(&filter.name)
    });
    Ok(ours.map(|filter| filter.program_id))
}

/// Takes our program off one hook; gives whether it hung there.
///
/// # Errors
/// When the kernel refuses.
pub async fn detach(
    bpffs: &Bpffs,
    netlink: &Netlink,
    interface: &NetInterface,
    direction: Direction,
) -> anyhow::Result<bool> {
    let had_link = detach_kind(bpffs, netlink, interface, AttachKind::Tcx, direction).await?;
    let had_filter = detach_kind(bpffs, netlink, interface, AttachKind::Clsact, direction).await?;
    Ok(had_link || had_filter)
}

/// Takes off what hangs on the hook in the way that is no longer wanted: both together would count twice.
///
/// # Errors
/// When the kernel refuses.
pub async fn detach_other_kind(
    bpffs: &Bpffs,
    netlink: &Netlink,
    interface: &NetInterface,
    kind: AttachKind,
    direction: Direction,
) -> anyhow::Result<bool> {
    let other = match kind {
        AttachKind::Tcx => AttachKind::Clsact,
        AttachKind::Clsact => AttachKind::Tcx,
    };
    detach_kind(bpffs, netlink, interface, other, direction).await
}

async fn detach_kind(
    bpffs: &Bpffs,
    netlink: &Netlink,
    interface: &NetInterface,
    kind: AttachKind,
    direction: Direction,
) -> anyhow::Result<bool> {
    let (attach_type, name) = hook(direction);
    match kind {
        AttachKind::Tcx => {
            if let Some((pinned, _)) = pinned_link(bpffs, interface.index, direction)? {
                // The kernel gives up an unpinned link in its own time, and counts until then.
                sys::detach_link(pinned.fd()?)
                    .with_context(|| format!("cannot take {name} off {}", interface.name))?;
            }
            unpin(bpffs, interface.index, direction)
        }
        AttachKind::Clsact => {
            if our_filter(netlink, interface, direction).await?.is_none() {
                return Ok(false);
            }
            take_filter_off(interface, attach_type)
                .with_context(|| format!("cannot remove the filter of {name} from {}", interface.name))?;
            Ok(true)
        }
    }
}

/// Removes the pinned link of a hook, on which the program falls off; gives whether there was one.
///
/// # Errors
/// When the file can't be removed.
pub fn unpin(bpffs: &Bpffs, ifindex: u32, direction: Direction) -> anyhow::Result<bool> {
    let path = bpffs.link(ifindex, direction);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot unpin {}", path.display())),
    }
}

/// A program on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// The kernel's id of it.
    pub id: u32,
    /// Its name, where that may be known: those of others can only be read with CAP_SYS_ADMIN.
    pub name: Option<String>,
}

impl AttachedProgram {
    /// Whether it is one of ours, as far as can be told.
    pub fn is_ours(&self) -> bool {
        self.name.as_deref().is_some_and(is_ours)
    }

    /// The name, or the id instead.
    pub fn label(&self) -> String {
        match self.name.as_deref() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => format!("program {}", self.id),
        }
    }
}

/// The programs on one TCX hook, in the order they run. Empty where the kernel has no TCX, or the interface is gone.
///
/// Ours are known by their pins, so that no privilege is needed to tell them from others'.
///
/// # Errors
/// When the kernel can't be asked.
pub fn tcx_chain(
    bpffs: &Bpffs,
    interface: &NetInterface,
    direction: Direction,
) -> anyhow::Result<Vec<AttachedProgram>> {
    if !has_tcx() {
        return Ok(Vec::new());
    }
    let ids = match sys::tcx_programs(interface.index, direction) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(Vec::new()),
        other => other.with_context(|| {
            format!("cannot ask what hangs on {} (CAP_NET_ADMIN is needed)", interface.name)
        })?,
    };
    // A program that was replaced may still hang by its link, and one just loaded need not hang yet.
    let ours = pinned_link(bpffs, interface.index, direction)?.map(|(_, on)| on.program_id);
    let (_, our_name) = hook(direction);
    let pinned = bpffs.program(our_name);
    let pinned = if fs::exists(&pinned)? { Some(ProgramInfo::from_pin(&pinned)?.id()) } else { None };
    ids.into_iter()
        .map(|id| {
            let name = if [ours, pinned].contains(&Some(id)) {
                Some(our_name.to_owned())
            } else {
                sys::program_name(id).with_context(|| format!("cannot ask for program {id}"))?
            };
            Ok(AttachedProgram { id, name })
        })
        .collect()
}

/// Whether a program of this name is one of ours.
pub fn is_ours(program: &str) -> bool {
    program == INGRESS_PROGRAM || program == EGRESS_PROGRAM
}
