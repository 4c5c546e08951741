//! Attaching, replacing and detaching the program on a hook.

use std::{fs, io};

use anyhow::{Context as _, bail};
use aya::programs::SchedClassifier;
use traffic_common::Direction;

use super::{
    AttachKind, Change, DeviceFate, FILTER_HANDLE, FILTER_PRIORITY, KernelHooks, fd_of, has_hook,
    is_our_name, program_for, program_name,
};
use crate::{
    kernel::{
        load::Programs,
        sys::tcx::{OnHook, TcxLink},
    },
    net::interface::{BpfFilter, NetInterface},
};

impl KernelHooks {
    /// Attaches the program to a hook, or replaces an earlier version of it.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing new is attached.
    pub fn attach(
        &self,
        programs: &Programs,
        interface: &NetInterface,
        direction: Direction,
    ) -> anyhow::Result<Change> {
        let program = program_for(programs, interface, direction);
        let change = match self.kind {
            AttachKind::Tcx => self.attach_link(program, interface, direction),
            AttachKind::Clsact => self.attach_filter(program, interface, direction),
        };
        change.with_context(|| {
            let name = program_name(interface.side(direction));
            format!("cannot attach {name} to {} ({})", interface.name, self.kind.name())
        })
    }

    fn attach_link(
        &self,
        program: &SchedClassifier,
        interface: &NetInterface,
        direction: Direction,
    ) -> anyhow::Result<Change> {
        let fd = fd_of(program)?;
        let on_hook = self.links_on(interface, direction)?;
        if let Some((link, info)) = self.pinned_link(interface, direction, &on_hook)? {
            if info.program_id == program.info()?.id() {
                return Ok(Change::Kept);
            }
            link.replace_program(fd)?;
            return Ok(Change::Replaced);
        }
        let wanted = program.info()?.id();
        if let Some(found) = self.out_of_sight(&on_hook, wanted)? {
            // It counts already, and its pin is out of sight. A second link would count everything twice.
            self.unpin(interface.index, direction)?;
            if let Ok(link) = TcxLink::by_id(found.link_id) {
                let path = self.bpffs.link(interface.index, direction);
                link.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
            }
            return Ok(Change::Kept);
        }
        self.unpin(interface.index, direction)?;
        self.expedite.begin();
        let link = TcxLink::create(fd, interface.index, direction)?;
        let path = self.bpffs.link(interface.index, direction);
        link.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
        let id = link.info()?.id;
        if !self.links_on(interface, direction)?.iter().any(|on_hook| on_hook.link_id == id) {
            bail!("the kernel does not list the link on the hook");
        }
        Ok(Change::Attached)
    }

    fn attach_filter(
        &self,
        program: &SchedClassifier,
        interface: &NetInterface,
        direction: Direction,
    ) -> anyhow::Result<Change> {
        let wanted = program.info()?.id();
        let found = self.our_filter(interface, direction)?.map(|filter| filter.program_id);
        if found == Some(wanted) {
            return Ok(Change::Kept);
        }
        self.netlink.add_clsact(interface.index).context("cannot add the clsact qdisc")?;
        self.check_hook_is_free(interface, direction)?;
        let filter = BpfFilter {
            priority: FILTER_PRIORITY,
            handle: FILTER_HANDLE,
            name: program_name(interface.side(direction)).to_owned(),
            program_id: wanted,
        };
        self.netlink.put_filter(interface.index, direction, &filter, fd_of(program)?)?;
        if self.our_filter(interface, direction)?.map(|filter| filter.program_id) != Some(wanted) {
            bail!("the kernel does not list the filter on the hook");
        }
        Ok(if found.is_some() { Change::Replaced } else { Change::Attached })
    }

    /// Why our filter cannot be put on a hook, if another tool is in the way.
    pub(super) fn obstacle(&self, interface: &NetInterface, direction: Direction) -> Option<String> {
        // Links need no qdisc; and without one, there is nothing in the way.
        if self.kind != AttachKind::Clsact || !matches!(self.netlink.hook_qdisc(interface.index), Ok(Some(_)))
        {
            return None;
        }
        self.check_hook_is_free(interface, direction).err().map(|error| format!("{error:#}"))
    }

    /// Whether our filter can be put on a hook without disturbing another tool's, or being disturbed by it.
    fn check_hook_is_free(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<()> {
        let name = &interface.name;
        let qdisc = self.netlink.hook_qdisc(interface.index)?.context("the kernel shows no clsact qdisc")?;
        if !has_hook(&qdisc, direction) {
            bail!(
                "{name} has an `{}` qdisc, which another tool added (wondershaper, a CNI bandwidth plugin, ...): \
                 it has no hook for what the interface sends; give that tool `clsact` instead, which does all \
                 that `ingress` does, or `tc qdisc del dev {name} ingress`",
                qdisc.kind
            );
        }
        let block = match direction {
            Direction::In => qdisc.in_block,
            Direction::Out => qdisc.out_block,
        };
        if let Some(block) = block {
            bail!(
                "the filters of {name} are in block {block}, which another tool shares among several \
                 interfaces; give {name} a clsact qdisc without a block"
            );
        }
        let filters = self.netlink.all_filters(interface.index, direction)?;
        let in_the_way = filters.iter().find(|filter| {
            let is_same_place = filter.priority == FILTER_PRIORITY
                && (filter.kind != "bpf" || filter.handle == FILTER_HANDLE);
            is_same_place && !filter.name.as_deref().is_some_and(is_our_name)
        });
        if let Some(filter) = in_the_way {
            let label = filter.name.as_deref().unwrap_or_default();
            bail!(
                "another tool's {} filter {label} has priority {FILTER_PRIORITY}, which trafctl needs to run \
                 first; give it another one (`tc filter add ... pref 10 ...`)",
                filter.kind
            );
        }
        Ok(())
    }

    /// Replaces any version of our program on a hook by this one, by the method with which it is attached.
    /// Returns whether there was one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn replace(
        &self,
        programs: &Programs,
        interface: &NetInterface,
        direction: Direction,
    ) -> anyhow::Result<bool> {
        let program = program_for(programs, interface, direction);
        let on_hook = self.links_on(interface, direction)?;
        let link = match self.pinned_link(interface, direction, &on_hook)? {
            Some((link, _)) => Some(link),
            None => self.unpinned_link(interface, direction, &on_hook)?,
        };
        if let Some(link) = &link {
            link.replace_program(fd_of(program)?)
                .with_context(|| format!("cannot replace the program on {}", interface.name))?;
        }
        let filter = self.our_filter(interface, direction)?;
        if let Some(filter) = &filter {
            self.netlink
                .put_filter(interface.index, direction, filter, fd_of(program)?)
                .with_context(|| format!("cannot replace the filter on {}", interface.name))?;
        }
        Ok(link.is_some() || filter.is_some())
    }

    /// Detaches our program from one hook by either method; returns whether it was attached.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool> {
        let link = self.detach_kind(interface, direction, AttachKind::Tcx)?;
        let filter = self.detach_kind(interface, direction, AttachKind::Clsact)?;
        Ok(link || filter)
    }

    /// Detaches what is attached by the method that is not configured: both together would count twice.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach_other_kind(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool> {
        let other = match self.kind {
            AttachKind::Tcx => AttachKind::Clsact,
            AttachKind::Clsact => AttachKind::Tcx,
        };
        self.detach_kind(interface, direction, other)
    }

    fn detach_kind(
        &self,
        interface: &NetInterface,
        direction: Direction,
        kind: AttachKind,
    ) -> anyhow::Result<bool> {
        let name = &interface.name;
        match kind {
            AttachKind::Tcx => self
                .detach_link(interface, direction)
                .with_context(|| format!("cannot detach the program from {name}")),
            AttachKind::Clsact => {
                let Some(filter) = self.our_filter(interface, direction)? else { return Ok(false) };
                self.netlink
                    .remove_filter(interface.index, direction, filter.priority, filter.handle)
                    .with_context(|| format!("cannot remove the filter from {name}"))
            }
        }
    }

    /// A link that runs the pinned program without being pinned here: its pin was removed or is out of sight.
    ///
    /// # Errors
    /// When the link cannot be opened, which takes CAP_SYS_ADMIN.
    fn unpinned_link(
        &self,
        interface: &NetInterface,
        direction: Direction,
        on_hook: &[OnHook],
    ) -> anyhow::Result<Option<TcxLink>> {
        let Some(program) = self.pinned_program(interface.side(direction))? else { return Ok(None) };
        let Some(found) = self.out_of_sight(on_hook, program)? else {
            return Ok(None);
        };
        TcxLink::by_id(found.link_id).map(Some).with_context(|| {
            format!(
                "the link of {} is not pinned under {}, and opening it by its id needs CAP_SYS_ADMIN",
                interface.name,
                self.bpffs.root().display()
            )
        })
    }

    fn detach_link(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool> {
        if self.unpin(interface.index, direction)? != DeviceFate::Unknown {
            return Ok(true);
        }
        let on_hook = self.links_on(interface, direction)?;
        let Some(link) = self.unpinned_link(interface, direction, &on_hook)? else { return Ok(false) };
        link.detach()?;
        Ok(true)
    }

    /// Detaches and unpins the link of a hook, wherever its device is now. Returns what became of the device,
    /// which is unknown without a link.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unpin(&self, ifindex: u32, direction: Direction) -> anyhow::Result<DeviceFate> {
        let path = self.bpffs.link(ifindex, direction);
        let open = TcxLink::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let Some(link) = open else { return Ok(DeviceFate::Unknown) };
        // If only the pin were removed, the program would keep counting for a while, and on an interface that
        // moved away perhaps forever.
        let fate = match link.info() {
            Ok(info) if info.ifindex != 0 => {
                self.expedite.begin();
                link.detach().with_context(|| format!("cannot detach {}", path.display()))?;
                DeviceFate::Moved
            }
            Ok(_) => DeviceFate::Ended,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot inspect {}", path.display()));
            }
        };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot unpin {}", path.display()))
            }
            _ => Ok(fate),
        }
    }
}
