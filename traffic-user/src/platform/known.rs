//! Everything that the platforms' files and cgroups show, put together: whose interface is whose.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::Path,
};

use traffic_model::ContainerId;

use super::{
    Member, NamedInterface, Owner, Place, Platform, Reading, cgroups,
    netns::{self, NamespaceIds},
    root::Root,
    survey::{Attribution, Running},
    usable_id,
};
use crate::net::interface::NetInterface;

/// What was found about the interfaces of the host.
pub(super) struct Attributed {
    /// By index.
    pub by_index: HashMap<u32, Attribution>,
    /// The containers that have one, by the platform's id.
    pub with_interface: HashSet<(Platform, String)>,
    /// All that run.
    pub running: BTreeSet<(Platform, String)>,
}

/// Everything that the platforms' files and cgroups show.
pub(super) struct Known {
    pub platforms: BTreeMap<Platform, Vec<String>>,
    pub members: Vec<Member>,
    interfaces: HashMap<String, Vec<NamedInterface>>,
    names: BTreeMap<(Platform, String), String>,
    joined: HashSet<(Platform, String)>,
    /// For each usable id, the platforms that have a container of it.
    holders: HashMap<ContainerId, BTreeSet<Platform>>,
    pub problems: Vec<String>,
}

impl Known {
    pub(super) fn new(readings: Vec<(Platform, Reading)>, cgroups: cgroups::Found) -> Self {
        let mut known = Self {
            platforms: BTreeMap::new(),
            members: cgroups.members,
            interfaces: HashMap::new(),
            names: BTreeMap::new(),
            joined: HashSet::new(),
            holders: HashMap::new(),
            problems: cgroups.problems,
        };
        for (platform, reading) in readings {
            if !reading.evidence.is_empty() {
                known.platforms.insert(platform, reading.evidence);
            }
            known.members.extend(reading.members);
            for named in reading.interfaces {
                known.interfaces.entry(named.interface.clone()).or_default().push(named);
            }
            known.names.extend(reading.names.into_iter().map(|(id, name)| ((platform, id), name)));
            known.joined.extend(reading.joined.into_iter().map(|id| (platform, id)));
            known.problems.extend(reading.problems);
        }
        known.settle_platforms();
        known.note_holders();
        known
    }

    /// Proxmox, LXD and Incus run their containers by LXC.
    fn settle_platforms(&mut self) {
        let of_sockets: HashMap<&str, Platform> =
            self.interfaces.values().flatten().map(|named| (named.id.as_str(), named.platform)).collect();
        let is_proxmox = self.platforms.contains_key(&Platform::Proxmox);
        for member in self.members.iter_mut().filter(|member| member.platform == Platform::Lxc) {
            let is_number = member.id.bytes().all(|b| b.is_ascii_digit());
            if is_proxmox && is_number {
                member.platform = Platform::Proxmox;
            } else if member.may_be_another
                && let Some(platform) = of_sockets.get(member.id.as_str())
            {
                member.platform = *platform;
            }
        }
        for member in &self.members {
            let evidence = self.platforms.entry(member.platform).or_default();
            if evidence.is_empty() {
                let id = usable_id(member.platform, &member.id);
                let id = id.map_or_else(|_| member.id.clone(), |id| id.to_string());
                evidence.push(format!("the cgroup of container {id}"));
            }
        }
    }

    fn note_holders(&mut self) {
        let of_members = self.members.iter().map(|member| (member.platform, member.id.as_str()));
        let of_names = self.names.keys().map(|(platform, id)| (*platform, id.as_str()));
        let of_interfaces = self.interfaces.values().flatten();
        let of_interfaces = of_interfaces.map(|named| (named.platform, named.id.as_str()));
        for (platform, id) in of_members.chain(of_names).chain(of_interfaces) {
            if let Ok(id) = usable_id(platform, id) {
                self.holders.entry(id).or_default().insert(platform);
            }
        }
        let mut clashes: Vec<_> = self.holders.iter().filter(|(_, holders)| holders.len() > 1).collect();
        clashes.sort_unstable();
        for (id, holders) in clashes {
            let named: Vec<_> = holders.iter().map(ToString::to_string).collect();
            let others: Vec<_> =
                holders.iter().skip(1).map(|platform| format!("{}:{id}", platform.key())).collect();
            self.problems.push(format!(
                "{} each have a container {id}: that of {} keeps the id, and {} is counted apart; rename one of them",
                named.join(" and "),
                named[0],
                others.join(" and ")
            ));
        }
    }

    /// What bridges and interfaces are called shows some platforms.
    pub(super) fn note_names_of_interfaces(&mut self, interfaces: &[NetInterface]) {
        for interface in interfaces {
            let platform = match interface.name.as_str() {
                "venet0" => Platform::Virtuozzo,
                "lxcbr0" => Platform::Lxc,
                "lxdbr0" => Platform::Lxd,
                "incusbr0" => Platform::Incus,
                "docker0" => Platform::Docker,
                "podman0" | "cni-podman0" => Platform::Podman,
                "virbr0" => Platform::Libvirt,
                name if interface.kind == "veth" && is_of_nspawn(name) => Platform::Nspawn,
                _ => continue,
            };
            let evidence = self.platforms.entry(platform).or_default();
            if evidence.is_empty() {
                evidence.push(format!("interface {}", interface.name));
            }
        }
    }

    /// A container as people know it.
    fn shown(&self, platform: Platform, id: &str) -> String {
        self.owner(platform, id).map_or_else(|_| format!("{id} ({platform})"), |owner| owner.to_string())
    }

    /// The owner that a container is booked as.
    fn owner(&self, platform: Platform, id: &str) -> Result<Owner, String> {
        let plain = usable_id(platform, id)?;
        let first = self.holders.get(&plain).and_then(|holders| holders.first());
        let id_in_use = match first {
            Some(first) if *first != platform => {
                ContainerId::new(&format!("{}:{plain}", platform.key())).map_err(|error| error.to_string())?
            }
            _ => plain,
        };
        let name = self.names.get(&(platform, id.to_owned()));
        let name = name.filter(|name| name.as_str() != id_in_use.as_str()).cloned();
        Ok(Owner { id: id_in_use, name, platform })
    }

    /// What was found about each interface, and which members have one. The addresses of other ends are only asked
    /// for on request.
    pub(super) fn attribute(
        &self,
        root: &Root,
        interfaces: &[NetInterface],
        ids: &dyn NamespaceIds,
        asks_for_addresses: bool,
    ) -> io::Result<Attributed> {
        let wanted: HashSet<i32> =
            interfaces.iter().filter_map(|interface| interface.peer_namespace).collect();
        let netns::Located { by_namespace: members, alive } = netns::locate(&self.members, &wanted, ids)?;
        let without: BTreeSet<i32> = wanted.iter().copied().filter(|id| !members.contains_key(id)).collect();
        let names = netns::names(root, &without, ids);
        let mut with_interface = HashSet::new();
        let mut by_index = HashMap::new();
        for interface in interfaces {
            let (found, rule) = if let Some(named) = self.interfaces.get(&interface.name) {
                (self.only_named(named), format!("named in {}", named[0].source))
            } else if let Some(id) = interface.peer_namespace {
                match members.get(&id).map(|at| self.only_member(root, at)) {
                    Some(Ok((member, rule))) => (Ok((member.platform, member.id.clone())), rule),
                    Some(Err(reason)) => (Err(reason), String::new()),
                    None => (Err(nobody_in(names.get(&id))), String::new()),
                }
            } else {
                continue;
            };
            let owner = found.and_then(|(platform, id)| {
                with_interface.insert((platform, id.clone()));
                self.owner(platform, &id)
            });
            let mut attribution = Attribution::new(interface, owner, rule);
            if let (Err(_), Some(id), Some(peer)) =
                (&attribution.owner, interface.peer_namespace, interface.peer)
                && asks_for_addresses
            {
                // It may end at any time, and its owner is unknown without this as well.
                attribution.other_address = ids.address_in(id, peer).unwrap_or_default();
            }
            by_index.insert(interface.index, attribution);
        }
        let alive = alive.into_iter().map(|at| (self.members[at].platform, self.members[at].id.clone()));
        let running = with_interface.iter().cloned().chain(alive).collect();
        Ok(Attributed { by_index, with_interface, running })
    }

    /// The only container whose processes are in a namespace. Of several, the one that did not join another's: a
    /// container with `--network container:OTHER` has no interface of its own.
    fn only_member(&self, root: &Root, at: &[usize]) -> Result<(&Member, String), String> {
        let all: Vec<&Member> = at.iter().map(|&at| &self.members[at]).collect();
        let key = |member: &Member| (member.platform, member.id.clone());
        let own: Vec<&&Member> = all.iter().filter(|member| !self.joined.contains(&key(member))).collect();
        let keys: BTreeSet<_> = own.iter().map(|member| key(member)).collect();
        let rule = |member: &Member| {
            let place = match &member.place {
                Place::Cgroup(path) => format!("cgroup {}", shown_cgroup(root, path)),
                Place::Process(_, source) => format!("its leader in {source}"),
            };
            format!("the network namespace of its other end: {place}")
        };
        match (own.first(), keys.len()) {
            (Some(member), 1) => Ok((member, rule(member))),
            _ => {
                let all: BTreeSet<_> = all.iter().map(|member| key(member)).collect();
                let named: Vec<_> = all.iter().map(|(platform, id)| self.shown(*platform, id)).collect();
                Err(format!(
                    "containers {} share its network namespace, and none of them alone owns it",
                    named.join(" and ")
                ))
            }
        }
    }

    /// The owner of a namespace that these members are in, or why it has none.
    pub(super) fn owner_of_members(&self, root: &Root, at: &[usize]) -> Result<Owner, String> {
        let (member, _) = self.only_member(root, at)?;
        self.owner(member.platform, &member.id)
    }

    /// The only container that files name for an interface.
    fn only_named(&self, named: &[NamedInterface]) -> Result<(Platform, String), String> {
        let keys: BTreeSet<_> = named.iter().map(|one| (one.platform, one.id.clone())).collect();
        match keys.len() {
            1 => Ok((named[0].platform, named[0].id.clone())),
            _ => {
                let all: Vec<_> = named.iter().map(|one| format!("{} ({})", one.id, one.source)).collect();
                Err(format!("it is named as that of {}", all.join(" and ")))
            }
        }
    }

    pub(super) fn running(&self, attributed: &Attributed) -> Vec<Running> {
        let usable = attributed.running.iter().filter_map(|key| {
            let owner = self.owner(key.0, &key.1).ok()?;
            Some(Running { owner, has_interface: attributed.with_interface.contains(key) })
        });
        let mut running: Vec<_> = usable.collect();
        running.sort_by(|a, b| a.owner.id.cmp(&b.owner.id));
        running
    }

    pub(super) fn names_by_id(&self) -> BTreeMap<ContainerId, String> {
        let named = self.names.keys().filter_map(|(platform, id)| self.owner(*platform, id).ok());
        named.filter_map(|owner| Some((owner.id, owner.name?))).collect()
    }
}

fn is_of_nspawn(name: &str) -> bool {
    name.starts_with("ve-") || name.starts_with("vb-")
}

/// A cgroup below the place where cgroups are mounted.
fn shown_cgroup(root: &Root, path: &Path) -> String {
    let shown = root.shown(path);
    shown.strip_prefix("/sys/fs/cgroup").unwrap_or(&shown).to_owned()
}

fn nobody_in(name: Option<&String>) -> String {
    let place = name.map_or_else(String::new, |name| format!(" {name}"));
    format!("no container of a known platform is in the network namespace{place} of its other end")
}
