//! One look at the whole host: the platforms on it, their containers, and the owner of each interface.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::Context as _;
use traffic_model::ContainerId;

use super::{
    Owner, Platform, cgroups,
    inside::{self, Inside},
    known::Known,
    netns::NamespaceIds,
    readers::Readers,
    root::Root,
};
use crate::net::{interface::NetInterface, netlink::Netlink};

/// Addresses that only the default route leads to. Nothing is sent there.
const FAR_AWAY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)), IpAddr::V6(Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe))];

/// How many listings in a row may lack an interface before what was found about it is forgotten.
const LISTINGS: u8 = 3;

/// What was found about one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// The device that it is about. A name or an index may pass to another one.
    device: Device,
    /// Its owner, or why that is unknown.
    pub owner: Result<Owner, String>,
    /// What shows it.
    pub rule: String,
    /// The hardware address of its other end, which is the container's own; looked up where the owner is unknown.
    pub other_address: Option<[u8; 6]>,
    /// How many listings in a row lacked the interface.
    missing: u8,
}

impl Attribution {
    /// What was found about an interface.
    pub(super) fn new(interface: &NetInterface, owner: Result<Owner, String>, rule: String) -> Self {
        Self { device: Device::of(interface), owner, rule, other_address: None, missing: 0 }
    }
}

/// What tells an interface from later ones of the same index.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Device {
    /// A veth or the like, by the namespace and the index of its other end.
    Pair(Option<i32>, Option<u32>),
    /// Any other, by its name, which is the only thing that platforms' files have in common.
    Named(String),
}

impl Device {
    fn of(interface: &NetInterface) -> Self {
        match interface.kind.as_str() {
            "veth" | "netkit" => Self::Pair(interface.peer_namespace, interface.peer),
            _ => Self::Named(interface.name.clone()),
        }
    }
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The container, or why it has no usable id.
    pub owner: Owner,
    /// Whether an interface of this host leads to it.
    pub has_interface: bool,
}

/// The result of a look at the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The platforms on this host, each with what shows it.
    pub platforms: BTreeMap<Platform, Vec<String>>,
    /// The containers and machines that run, sorted by id.
    pub running: Vec<Running>,
    /// The devices in containers that have no end on this host.
    pub inside: Vec<Inside>,
    /// Whether all containers could be looked at for that.
    has_looked_inside: bool,
    /// What could not be read or cannot be used.
    pub problems: Vec<String>,
    by_index: HashMap<u32, Attribution>,
    /// The interfaces by which this host reaches others.
    default_routes: BTreeSet<u32>,
    names: BTreeMap<ContainerId, String>,
}

impl Survey {
    /// What was found about an interface; `None` where it was not looked at.
    pub fn of(&self, interface: &NetInterface) -> Option<&Attribution> {
        self.by_index.get(&interface.index).filter(|found| found.device == Device::of(interface))
    }

    /// Whether a platform is on this host.
    pub fn has(&self, platform: Platform) -> bool {
        self.platforms.contains_key(&platform)
    }

    /// Whether this host reaches others by an interface: then it is the host's own, whatever it looks like.
    pub fn is_default_route(&self, index: u32) -> bool {
        self.default_routes.contains(&index)
    }

    /// The names of containers for people.
    pub const fn names(&self) -> &BTreeMap<ContainerId, String> {
        &self.names
    }

    /// Whether any interface has another owner than in an earlier look, or another platform was found.
    pub fn differs_from(&self, earlier: &Self) -> bool {
        let owners = |of: &Self| -> BTreeMap<u32, (Option<ContainerId>, Option<[u8; 6]>)> {
            let owner = |found: &Attribution| found.owner.as_ref().ok().map(|owner| owner.id.clone());
            let all = of.by_index.iter();
            all.map(|(index, found)| (*index, (owner(found), found.other_address))).collect()
        };
        let same = |(a, b): (&Inside, &Inside)| a.is_same(b) && a.label == b.label;
        self.default_routes != earlier.default_routes
            || self.inside.len() != earlier.inside.len()
            || !self.inside.iter().zip(&earlier.inside).all(same)
            || !self.platforms.keys().eq(earlier.platforms.keys())
            || owners(self) != owners(earlier)
    }

    /// Takes over from an earlier look what this one did not find for the same device: that a process or a file
    /// was not seen does not show that the owner is another one. Returns the changes of owners, in words.
    pub fn keep_known(&mut self, earlier: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if !self.has_looked_inside {
            let unseen = |before: &&Inside| !self.inside.iter().any(|device| device.is_same(before));
            let kept: Vec<Inside> = earlier.inside.iter().filter(unseen).cloned().collect();
            self.inside.extend(kept);
        }
        for (index, before) in &earlier.by_index {
            let Some(now) = self.by_index.get_mut(index) else {
                let missing = before.missing + 1;
                if missing < LISTINGS {
                    self.by_index.insert(*index, Attribution { missing, ..before.clone() });
                }
                continue;
            };
            if now.device != before.device {
                continue;
            }
            match (&before.owner, &now.owner) {
                (Ok(_), Err(_)) => *now = before.clone(),
                (Ok(was), Ok(is)) if was.id != is.id => {
                    changes.push(format!("interface {index} passes from {was} to {is}: {}", now.rule));
                }
                _ => {}
            }
        }
        changes
    }
}

/// Looks at the host.
#[derive(Debug)]
pub struct Surveyor {
    root: Root,
    readers: Readers,
    /// Whether the addresses of other ends are of any use.
    asks_for_addresses: bool,
}

impl Default for Surveyor {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Surveyor {
    /// Looks below another root directory, for tests.
    pub(super) fn below(root: &Path) -> Self {
        Self { root: Root::new(root), readers: Readers::default(), asks_for_addresses: true }
    }

    /// One that does not ask for the hardware addresses of other ends unless somebody `needs` them. Each is a
    /// request of its own.
    pub fn with_addresses_if(needs: bool) -> Self {
        Self { asks_for_addresses: needs, ..Self::default() }
    }

    /// The names that platforms have for containers, from their files alone.
    pub fn names(&mut self) -> BTreeMap<ContainerId, String> {
        Known::new(self.readers.read_beside(&self.root, || ()).0, cgroups::Found::default()).names_by_id()
    }

    /// Looks at the whole host now, which has these interfaces. What cannot be read in time is a problem of the
    /// result.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn survey(&mut self, netlink: &Netlink, interfaces: &[NetInterface]) -> anyhow::Result<Survey> {
        let mut survey = self.of_interfaces(interfaces, netlink)?;
        for address in FAR_AWAY {
            // A host without routes of this family has no answer.
            survey.default_routes.extend(netlink.route_to(address).unwrap_or_default());
        }
        Ok(survey)
    }

    /// The same for these interfaces.
    pub(super) fn of_interfaces(
        &mut self,
        interfaces: &[NetInterface],
        ids: &dyn NamespaceIds,
    ) -> anyhow::Result<Survey> {
        let (readings, cgroups) = self.readers.read_beside(&self.root, || cgroups::containers(&self.root));
        let mut known = Known::new(readings, cgroups);
        known.note_names_of_interfaces(interfaces);
        let attributed = known.attribute(&self.root, interfaces, ids, self.asks_for_addresses);
        let attributed = attributed.context("cannot look up whose network namespace is whose")?;
        let names = known.names_by_id();
        let inside = inside::look(&known, &self.root, interfaces, ids);
        let has_looked_inside = inside.problem.is_none();
        known.problems.extend(inside.problem);
        Ok(Survey {
            inside: inside.devices,
            has_looked_inside,
            running: known.running(&attributed),
            problems: known.problems,
            platforms: known.platforms,
            by_index: attributed.by_index,
            default_routes: BTreeSet::new(),
            names,
        })
    }
}
