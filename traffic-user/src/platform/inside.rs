//! Devices in containers' network namespaces that have no end on this host, so that no hook of this host sees whose
//! their packets are: macvlan, ipvlan and VLAN devices on an interface of the host, and network cards and internal
//! ports of Open vSwitch that were moved there.
//!
//! A container can make devices of its own, on its own interfaces. Those are of no interest: what they carry passes
//! the interface below them. Only the host can give it one that leads past its interface.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    path::PathBuf,
};

use traffic_common::InterfaceStatistics;

use super::{
    Owner, Place, cgroups,
    known::Known,
    netns::{MOST_NAMED, NAMED, NamespaceIds},
    root::Root,
};
use crate::net::interface::NetInterface;

/// The kind of Open vSwitch's own devices in the kernel's datapath.
const SWITCH: &str = "openvswitch";

/// The device that its daemon makes in the namespace in which it runs.
const OF_ITS_DAEMON: &str = "ovs-system";

/// How many processes of a container are asked for their namespaces.
const MOST_PROCESSES: usize = 4;

/// A device in a container that has no end on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Its container and its name there, as in `mail/eth0`.
    pub label: String,
    /// Its container, or why that is unknown.
    pub owner: Result<Owner, String>,
    /// The kernel's id of the namespace that it is in.
    pub namespace: i32,
    /// Its index there.
    pub index: u32,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// Its kind as the kernel names it; empty for a network card.
    pub kind: String,
    /// The interface of this host that it is on; `None` for a network card and a port of a switch.
    pub parent: Option<String>,
    /// The alternative names of that interface.
    pub parent_is_also: Vec<String>,
    /// What the kernel counted on it, in the directions of the container.
    pub statistics: InterfaceStatistics,
}

impl Inside {
    /// What it is, for people.
    pub fn what(&self) -> String {
        match &self.parent {
            Some(parent) => format!("{} {} on {parent}", article(&self.kind), self.kind),
            None if self.kind == SWITCH => "an internal port of the host's Open vSwitch".to_owned(),
            None => "a network card of its own".to_owned(),
        }
    }

    /// Whether it is on the interface of this host that is called so.
    pub fn is_on(&self, name: &str) -> bool {
        self.parent.iter().chain(&self.parent_is_also).any(|parent| parent == name)
    }

    /// Whose it is, and why it is not counted.
    pub fn why(&self) -> String {
        let what = self.what();
        match &self.owner {
            Ok(owner) => {
                format!("{what}, in container {owner}: it has no end on this host, so that nothing counts it")
            }
            Err(reason) => {
                format!("{what}: it has no end on this host, so that nothing counts it, and {reason}")
            }
        }
    }

    /// The container or the namespace that it is in, as its label has it.
    pub fn place(&self) -> &str {
        // No interface has a slash in its name.
        self.label.rsplit_once('/').map_or("", |(place, _)| place)
    }

    /// Whether an earlier look showed the same device.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.namespace, self.index, self.mac) == (other.namespace, other.index, other.mac)
    }
}

/// The article of a kind: "an ipvlan".
fn article(kind: &str) -> &'static str {
    if kind.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" }
}

/// What was found, and why not all could be looked at.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub devices: Vec<Inside>,
    pub problem: Option<String>,
}

/// Looks into the namespaces of all containers, and into all that have a name. `listed` are the interfaces of this host.
pub(super) fn look(known: &Known, root: &Root, listed: &[NetInterface], ids: &dyn NamespaceIds) -> Look {
    let mut look = Look::default();
    if let Err(error) = look.all(known, root, listed, ids) {
        look.problem = Some(format!(
            "cannot look into the containers' network namespaces for devices that are not counted (macvlan, ipvlan, \
             network cards): {error}"
        ));
    }
    look
}

impl Look {
    fn all(
        &mut self,
        known: &Known,
        root: &Root,
        listed: &[NetInterface],
        ids: &dyn NamespaceIds,
    ) -> io::Result<()> {
        let places = places(known);
        let named = named(root);
        if places.is_empty() && named.is_empty() {
            return Ok(());
        }
        let own = ids.own()?;
        let mut members: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (at, pids) in places {
            let mut found = BTreeSet::new();
            for pid in pids {
                found.extend(unless_gone(ids.number_of_process(pid))?);
            }
            for id in found.into_iter().filter(|&id| id != own) {
                members.entry(id).or_default().push(at);
            }
        }
        let mut seen: HashSet<i32> = members.keys().copied().chain([own]).collect();
        for (id, at) in members {
            let owner = known.owner_of_members(root, &at);
            let place =
                owner.as_ref().map_or_else(|_| format!("namespace {id}"), |owner| owner.id.to_string());
            self.one(ids, listed, (own, id), (&place, owner))?;
        }
        for path in named {
            let Some(id) = unless_gone(ids.number_of_file(&path))?.filter(|&id| seen.insert(id)) else {
                continue;
            };
            let shown = root.shown(&path);
            let place = shown.rsplit('/').next().unwrap_or(&shown).to_owned();
            let owner = Err(format!("no container of a known platform is in the network namespace {shown}"));
            self.one(ids, listed, (own, id), (&place, owner))?;
        }
        Ok(())
    }

    /// One namespace.
    fn one(
        &mut self,
        ids: &dyn NamespaceIds,
        listed: &[NetInterface],
        (own, namespace): (i32, i32),
        (place, owner): (&str, Result<Owner, String>),
    ) -> io::Result<()> {
        let found = unless_gone(ids.interfaces_in(namespace))?.unwrap_or_default();
        let is_switch = |interface: &NetInterface| interface.kind == SWITCH;
        // A container may run a switch of its own, whose ports lead to its interfaces.
        let has_own = found.iter().any(|one| is_switch(one) && one.name == OF_ITS_DAEMON);
        let is_of_host = !has_own && listed.iter().any(is_switch);
        for interface in found {
            let (parent, parent_is_also) = match below(&interface, own) {
                Below::Itself if is_of_host && is_switch(&interface) => (None, Vec::new()),
                Below::Host(index) => match listed.iter().find(|one| one.index == index) {
                    Some(parent) => (Some(parent.name.clone()), parent.alternative_names.clone()),
                    None => (Some(format!("interface {index}")), Vec::new()),
                },
                Below::Wire => (None, Vec::new()),
                Below::Itself => continue,
            };
            self.devices.push(Inside {
                label: format!("{place}/{}", printable(&interface.name)),
                owner: owner.clone(),
                namespace,
                index: interface.index,
                mac: interface.mac,
                kind: interface.kind,
                parent,
                parent_is_also,
                statistics: interface.statistics,
            });
        }
        Ok(())
    }
}

/// A name that whoever is root in a container may have given, without what could control a terminal.
fn printable(name: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() };
    name.chars().map(shown).collect()
}

/// What an interface in a container leads to.
enum Below {
    /// An interface of this host, by its index.
    Host(u32),
    /// The wire: it is a network card.
    Wire,
    /// Its other end, or something in the container.
    Itself,
}

/// `own` is the id of this host's namespace.
fn below(interface: &NetInterface, own: i32) -> Below {
    match interface.kind.as_str() {
        // Its other end is an interface of its own, and is counted there.
        "veth" | "netkit" => Below::Itself,
        // The loopback has no kind either.
        "" if interface.ethernet => Below::Wire,
        // The kernel does not repeat the index where both are the same.
        _ if interface.peer_namespace == Some(own) => Below::Host(interface.peer.unwrap_or(interface.index)),
        _ => Below::Itself,
    }
}

/// The processes of each member that are asked, by its position.
fn places(known: &Known) -> Vec<(usize, Vec<u32>)> {
    let pids = |place: &Place| match place {
        Place::Cgroup(path) => cgroups::processes(path).take(MOST_PROCESSES).collect(),
        Place::Process(pid, _) => vec![*pid],
    };
    known.members.iter().enumerate().map(|(at, member)| (at, pids(&member.place))).collect()
}

/// The files of namespaces that have a name.
fn named(root: &Root) -> Vec<PathBuf> {
    let entries = |directory: &&str| fs::read_dir(root.at(directory)).into_iter().flatten().take(MOST_NAMED);
    let all = NAMED.iter().flat_map(entries);
    let mut all: Vec<_> = all.flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

/// A process may end, and a namespace with it, while they are looked at.
fn unless_gone<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        // Without the capability, all others would fail as well.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(error),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error),
        Err(_) => Ok(None),
    }
}
