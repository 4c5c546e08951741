//! What is on hooks: for one interface, or for many with what they share read only once.
//!
//! A listing asks no question twice: the pinned programs, the names of programs, the pins and the qdiscs are
//! read at most once. What remains for each hook is one bpf(2) query, opening its pin where there is one, and
//! one netlink request where there is a qdisc for filters.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    fs,
};

use anyhow::Context as _;
use aya::programs::ProgramInfo;
use traffic_common::{DIRECTIONS, Direction};

use super::{AttachKind, KernelHooks, has_tcx, is_our_filter, is_our_name, program_name};
use crate::{
    kernel::sys::{self, tcx},
    net::interface::{BpfFilter, NetInterface},
};

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

/// One hook as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookState {
    /// The programs on it, in the order they run: links before filters.
    pub programs: Vec<AttachedProgram>,
    /// Whether a link is pinned under the interface's index, of whatever device.
    pub is_pinned: bool,
}

impl HookState {
    /// The id of this installation's program, if it is attached by this method.
    pub fn attached(&self, kind: AttachKind) -> Option<u32> {
        let mut programs = self.programs.iter();
        programs.find(|program| program.is_this_installations && program.kind == kind).map(|ours| ours.id)
    }

    /// The programs that run before the first one of trafctl's.
    pub fn before_ours(&self) -> &[AttachedProgram] {
        let first = self.programs.iter().position(AttachedProgram::is_ours).unwrap_or(0);
        &self.programs[..first]
    }

    /// How many programs of trafctl's are on it, of whatever installation.
    pub fn ours(&self) -> usize {
        self.programs.iter().filter(|program| program.is_ours()).count()
    }
}

/// What is on a hook of this installation's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnHook {
    /// No program, or not by the configured method.
    #[default]
    Nothing,
    /// Another version of the program.
    Other,
    /// Exactly the wanted program.
    Current,
}

/// One hook, compared with what is wanted on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookSeen {
    /// What is attached by the configured method.
    pub ours: OnHook,
    /// Whether something is attached by the other method.
    pub other_kind: bool,
    /// Whether the link that is pinned under the interface's index is on this hook. A device that is gone, or
    /// moved to another namespace, leaves its pins to the next one of its index. `None` without a pin.
    pub pin: Option<bool>,
    /// Names of the programs that run before ours.
    pub before: Vec<String>,
}

/// The hooks of this namespace, with what they share read once. It is of one moment: what is attached later
/// may not be seen.
#[derive(Debug)]
pub struct HookListing<'h> {
    hooks: &'h KernelHooks,
    /// What was listed at once; `None` to ask for each hook by itself.
    listed: Option<Listed>,
    recognition: Recognition,
    /// By the side on which it is attached: the id of the pinned program.
    programs: [Option<u32>; DIRECTIONS],
    names: RefCell<HashMap<u32, Option<String>>>,
}

/// What was asked for before it is needed.
#[derive(Debug)]
pub struct Listed {
    /// Indexes of interfaces that have a qdisc for filters.
    with_filters: HashSet<u32>,
    /// Hooks for which a link is pinned.
    pinned: HashSet<(u32, Direction)>,
    /// The links on hooks that were asked about.
    links: HashMap<(u32, Direction), Vec<tcx::OnHook>>,
}

/// How a link on a hook is known to be the one that is pinned for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// By the link: the pin is opened. Whoever changes anything asks like this.
    Link,
    /// By the program where that suffices: no other installation has the pinned program. A device that came
    /// back under the index of another one is not told from that by its hooks, only by its name and record.
    Program,
}

impl KernelHooks {
    /// Begins a look at many hooks: lists pins and qdiscs.
    ///
    /// # Errors
    /// When pins or qdiscs cannot be listed.
    pub fn list(&self, recognition: Recognition) -> anyhow::Result<HookListing<'_>> {
        self.look(Some(self.listed()?), recognition)
    }

    /// Lists pins and qdiscs, and asks about each hook that has a pin: two requests for each interface. A hook about
    /// which the kernel does not answer is asked about again when it is needed.
    ///
    /// # Errors
    /// When pins or qdiscs cannot be listed.
    pub fn look_ahead(&self) -> anyhow::Result<Listed> {
        let mut listed = self.listed()?;
        if has_tcx() {
            let ask = |&hook: &(u32, Direction)| Some((hook, tcx::on_hook(hook.0, hook.1).ok()?));
            listed.links = listed.pinned.iter().filter_map(ask).collect();
        }
        Ok(listed)
    }

    /// Begins a look at many hooks with what was listed already.
    ///
    /// # Errors
    /// When a pinned program cannot be opened.
    pub fn list_ahead(&self, listed: Listed, recognition: Recognition) -> anyhow::Result<HookListing<'_>> {
        self.look(Some(listed), recognition)
    }

    fn listed(&self) -> anyhow::Result<Listed> {
        let qdiscs = self.netlink.qdiscs()?.into_iter();
        let takes_filters = |kinds: &[String]| kinds.iter().any(|kind| kind == "clsact" || kind == "ingress");
        let with_filters = qdiscs.filter(|(_, kinds)| takes_filters(kinds)).map(|(index, _)| index).collect();
        let pinned = self.bpffs.linked_hooks().context("cannot list the pinned links")?;
        Ok(Listed { with_filters, pinned, links: HashMap::new() })
    }

    /// Begins a look at a few hooks.
    ///
    /// # Errors
    /// When a pinned program cannot be opened.
    pub fn look_at_few(&self) -> anyhow::Result<HookListing<'_>> {
        self.look(None, Recognition::Link)
    }

    fn look(&self, listed: Option<Listed>, recognition: Recognition) -> anyhow::Result<HookListing<'_>> {
        let [incoming, outgoing] = Direction::BOTH;
        let programs = [self.pinned_program(incoming)?, self.pinned_program(outgoing)?];
        Ok(HookListing { hooks: self, listed, recognition, programs, names: RefCell::default() })
    }

    /// Id of the pinned program for a hook of a container's interface.
    pub(super) fn pinned_program(&self, direction: Direction) -> anyhow::Result<Option<u32>> {
        let path = self.bpffs.program(program_name(direction));
        if !fs::exists(&path)? {
            return Ok(None);
        }
        Ok(Some(ProgramInfo::from_pin(&path)?.id()))
    }
}

impl HookListing<'_> {
    fn links_on(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Vec<tcx::OnHook>> {
        let asked = self.listed.as_ref().and_then(|listed| listed.links.get(&(interface.index, direction)));
        asked.map_or_else(|| self.hooks.links_on(interface, direction), |links| Ok(links.clone()))
    }

    /// Indexes with a pinned link, if they were listed.
    pub fn pinned_interfaces(&self) -> impl Iterator<Item = u32> {
        self.listed.iter().flat_map(|listed| listed.pinned.iter().map(|(index, _)| *index))
    }

    /// Why our program cannot be attached to a hook, if another tool is in the way.
    pub fn obstacle(&self, interface: &NetInterface, direction: Direction) -> Option<String> {
        self.hooks.obstacle(interface, direction)
    }

    /// What is on a hook. Empty where the interface is gone.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn state(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<HookState> {
        let side = interface.side(direction);
        let links = self.links_on(interface, direction)?;
        let is_pinned = self.is_pinned(interface.index, direction)?;
        let is_known = |link: &tcx::OnHook| {
            self.recognition == Recognition::Program && self.programs[side as usize] == Some(link.program_id)
        };
        let pinned = if is_pinned && !links.is_empty() && !links.iter().any(is_known) {
            self.hooks.pinned_link(interface, direction, &links)?
        } else {
            None
        };
        let mut programs = Vec::with_capacity(links.len());
        for link @ tcx::OnHook { program_id, link_id } in links {
            let is_this_installations = match &pinned {
                Some((_, info)) => info.id == link_id,
                None => is_pinned && is_known(&link),
            };
            // Ours is known by its pin, so its name needs no privilege.
            let name = if is_this_installations || self.programs[side as usize] == Some(program_id) {
                Some(program_name(side).to_owned())
            } else {
                self.name_of(program_id)?
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
        Ok(HookState { programs, is_pinned })
    }

    /// What is on the hooks of an interface, compared with the wanted programs (by side).
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn seen(
        &self,
        interface: &NetInterface,
        wanted: [Option<u32>; DIRECTIONS],
    ) -> anyhow::Result<[HookSeen; DIRECTIONS]> {
        let [incoming, outgoing] = Direction::BOTH;
        let compare = |direction| {
            let wanted = wanted[interface.side(direction) as usize];
            self.compare((interface, direction), &self.state(interface, direction)?, wanted)
        };
        Ok([compare(incoming)?, compare(outgoing)?])
    }

    /// Whether the wanted program runs by a link whose pin is out of sight. It counts all the same.
    fn runs_out_of_sight(
        &self,
        state: &HookState,
        interface: &NetInterface,
        direction: Direction,
        wanted: Option<u32>,
    ) -> anyhow::Result<bool> {
        let runs = |program: &AttachedProgram| program.kind == AttachKind::Tcx && Some(program.id) == wanted;
        let Some(wanted) = wanted.filter(|_| self.hooks.kind == AttachKind::Tcx) else { return Ok(false) };
        if !state.programs.iter().any(runs) {
            return Ok(false);
        }
        let links = self.hooks.links_on(interface, direction)?;
        Ok(self.hooks.out_of_sight(&links, wanted)?.is_some())
    }

    /// Compares what was found on the hooks of an interface with the pinned programs.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn compared(
        &self,
        interface: &NetInterface,
        states: &[HookState; DIRECTIONS],
    ) -> anyhow::Result<[HookSeen; DIRECTIONS]> {
        let [incoming, outgoing] = Direction::BOTH.map(|direction| {
            let wanted = self.programs[interface.side(direction) as usize];
            self.compare((interface, direction), &states[direction as usize], wanted)
        });
        Ok([incoming?, outgoing?])
    }

    fn compare(
        &self,
        (interface, direction): (&NetInterface, Direction),
        state: &HookState,
        wanted: Option<u32>,
    ) -> anyhow::Result<HookSeen> {
        Ok(HookSeen {
            ours: match state.attached(self.hooks.kind) {
                None if self.runs_out_of_sight(state, interface, direction, wanted)? => OnHook::Current,
                None => OnHook::Nothing,
                attached if attached == wanted => OnHook::Current,
                Some(_) => OnHook::Other,
            },
            other_kind: match self.hooks.kind {
                AttachKind::Tcx => state.attached(AttachKind::Clsact).is_some(),
                AttachKind::Clsact => state.is_pinned,
            },
            pin: state.is_pinned.then(|| state.attached(AttachKind::Tcx).is_some()),
            before: state.before_ours().iter().map(AttachedProgram::label).collect(),
        })
    }

    fn is_pinned(&self, ifindex: u32, direction: Direction) -> anyhow::Result<bool> {
        match &self.listed {
            Some(listed) => Ok(listed.pinned.contains(&(ifindex, direction))),
            None => Ok(fs::exists(self.hooks.bpffs.link(ifindex, direction))?),
        }
    }

    fn name_of(&self, program: u32) -> anyhow::Result<Option<String>> {
        if let Some(name) = self.names.borrow().get(&program) {
            return Ok(name.clone());
        }
        let name = sys::program_name(program).with_context(|| format!("cannot ask for program {program}"))?;
        self.names.borrow_mut().insert(program, name.clone());
        Ok(name)
    }

    fn filters_on(&self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Vec<BpfFilter>> {
        match &self.listed {
            Some(listed) if !listed.with_filters.contains(&interface.index) => Ok(Vec::new()),
            _ => self.hooks.list_filters(interface, direction),
        }
    }
}
