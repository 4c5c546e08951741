//! Which platforms are on this host, and to whom each interface belongs: the data of `trafctl host`.
//!
//! Reads the kernel and files and changes nothing. It needs no counters; where there are some, they show for whom
//! an interface is counted whose container is unknown.

use std::collections::HashMap;

use serde::Serialize;
use traffic_common::Direction;
use traffic_model::ContainerId;

use super::{Host, policy::Policy, registry::Registry, status::WithoutHostEnd};
use crate::{
    kernel::{entries, hooks::Recognition, load},
    net::interface::NetInterface,
    ownership::{
        ContainerNames,
        interface_rules::{Ignored, Role},
    },
    platform::{Platform, inside::Inside, survey::Running},
};

/// What to do about an interface whose container is unknown.
const ADVICE: &str = "name its container under [[container]] in the configuration (`interfaces`), or add a rule of \
                      kind \"ignore\" for it under [interfaces]";

/// What to do about a device in a container that has no end on this host.
const ADVICE_INSIDE: &str = "give the container a veth on a bridge instead, or add a rule of kind \"ignore\" for this \
                             name under [interfaces]";
/// On what to do about one that is on an interface of the host.
const ADVICE_ON_PARENT: &str = "have it counted there by the container's addresses (`on_uplink` under [[container]]), \
                                give the container a veth on a bridge instead, or add a rule of kind \"ignore\" for \
                                this name under [interfaces]";

/// What is known of the host.
#[derive(Debug, Serialize)]
pub struct HostReport {
    /// Name of the node.
    pub node: String,
    /// The preset in force.
    pub preset: &'static str,
    /// The platforms on this host.
    pub platforms: Vec<FoundPlatform>,
    /// The interfaces that belong to a container, to several, or to the node as an uplink.
    pub interfaces: Vec<OwnedInterface>,
    /// The interfaces that are counted for an owner who is not known yet.
    pub pending: Vec<PendingOwner>,
    /// The interfaces that look like a container's and are not counted.
    pub not_counted: Vec<NotCounted>,
    /// The devices in containers that have no end on this host, and so are not counted.
    pub without_host_end: Vec<WithoutHostEnd>,
    /// The devices in containers that are counted on an uplink, by the containers' addresses.
    pub on_uplinks: Vec<OnUplink>,
    /// The containers and machines that run and have no interface on this host.
    pub without_interface: Vec<Named>,
    /// The other interfaces.
    pub others: Vec<Other>,
    /// What is wrong; empty if nothing is.
    pub problems: Vec<String>,
}

/// A platform on this host.
#[derive(Debug, Serialize)]
pub struct FoundPlatform {
    /// Its key.
    pub platform: &'static str,
    /// Its name for people.
    #[serde(skip)]
    pub title: String,
    /// What shows that it is here: paths, interfaces or cgroups.
    pub evidence: Vec<String>,
}

/// A device in a container that is counted on an uplink.
#[derive(Debug, Serialize)]
pub struct OnUplink {
    /// Its container and its name there, as in `mail/eth0`.
    pub interface: String,
    /// Its kind as the kernel names it.
    pub kind: String,
    /// The uplink.
    pub uplink: String,
    /// The container.
    pub owner: Named,
}

/// A container or machine.
#[derive(Debug, Serialize)]
pub struct Named {
    /// The id that it is counted under.
    pub container: String,
    /// Its name for people; `null` without another one than the id.
    pub name: Option<String>,
    /// The platform's key; `null` where none shows it.
    pub platform: Option<&'static str>,
}

impl Named {
    fn new(id: &ContainerId, names: &ContainerNames, platform: Option<Platform>) -> Self {
        Self {
            container: id.to_string(),
            name: names.of(id).map(str::to_owned),
            platform: platform.map(Platform::key),
        }
    }
}

/// An interface with an owner.
#[derive(Debug, Serialize)]
pub struct OwnedInterface {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Its kind as the kernel names it.
    pub kind: String,
    /// The container; `null` where several share it.
    #[serde(flatten)]
    pub owner: Option<Named>,
    /// Whether several containers share it.
    pub shared: bool,
    /// What sees its packets before trafctl and may keep them from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_hook: Option<String>,
    /// What assigns it.
    pub rule: String,
}

/// An interface that is counted for an owner who is not known yet.
#[derive(Debug, Serialize)]
pub struct PendingOwner {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Its kind as the kernel names it.
    pub kind: String,
    /// The id under which it is counted.
    pub pending: String,
    /// Why its container is unknown.
    pub reason: String,
    /// What to do if it stays unknown.
    pub advice: &'static str,
}

/// An interface that looks like a container's and is not counted.
#[derive(Debug, Serialize)]
pub struct NotCounted {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Its kind as the kernel names it.
    pub kind: String,
    /// Why it has no container.
    pub reason: String,
    /// What to do.
    pub advice: &'static str,
}

/// An interface that is nobody's.
#[derive(Debug, Serialize)]
pub struct Other {
    /// Its name.
    pub interface: String,
    /// Why it is not counted.
    pub reason: String,
}

/// For whom the interfaces that exist are counted, by index, although nothing may name their containers. Empty
/// without counters.
///
/// # Errors
/// When a map or a hook cannot be read.
pub fn counted_for(host: &Host, interfaces: &[NetInterface]) -> anyhow::Result<HashMap<u32, ContainerId>> {
    let Ok(maps) = load::open(&host.bpffs) else { return Ok(HashMap::new()) };
    let registry = Registry::read(&maps)?;
    let indexes = interfaces.iter().map(|interface| interface.index).collect();
    let entries: HashMap<_, _> = entries::of(&maps, &indexes)?.into_iter().collect();
    let hooks = host.hooks();
    let hooks = hooks.list(Recognition::Program)?;
    let mut counted = HashMap::new();
    for interface in interfaces.iter().filter(|one| host.policy.is_unresolved(one)) {
        let entry = entries.get(&interface.index).copied().unwrap_or_default();
        let is_attached = |direction| anyhow::Ok(hooks.state(interface, direction)?.ours() > 0);
        if let Some(owner) = registry.recorded_owner(interface.index, &entry)
            && (is_attached(Direction::In)? || is_attached(Direction::Out)?)
        {
            counted.insert(interface.index, owner);
        }
    }
    Ok(counted)
}

/// Describes the host, which has these interfaces. `counted_for` says for whom those are counted whose container is
/// unknown.
pub fn describe(
    policy: &Policy,
    interfaces: &[NetInterface],
    counted_for: &HashMap<u32, ContainerId>,
) -> HostReport {
    let (survey, names) = (policy.survey(), policy.names());
    let platforms = survey.platforms.iter().map(|(platform, evidence)| FoundPlatform {
        platform: platform.key(),
        title: platform.to_string(),
        evidence: evidence.clone(),
    });
    let running = survey.running.iter().filter(|running| !running.has_interface);
    let mut report = HostReport {
        node: policy.config.node.clone(),
        preset: policy.config.preset.name(),
        platforms: platforms.collect(),
        interfaces: Vec::new(),
        pending: Vec::new(),
        not_counted: Vec::new(),
        without_host_end: policy.inside().map(WithoutHostEnd::from).collect(),
        on_uplinks: policy.on_uplinks().filter_map(|device| on_uplink(device, &names)).collect(),
        without_interface: Vec::new(),
        others: Vec::new(),
        problems: policy.problems(),
    };
    for interface in interfaces {
        let (role, rule) = policy.decide(interface);
        let owned_by = |owner, shared, rule| OwnedInterface {
            interface: interface.name.clone(),
            ifindex: interface.index,
            kind: interface.kind.clone(),
            owner,
            shared,
            before_hook: interface.xdp.map(|xdp| xdp.to_string()),
            rule,
        };
        let owned = |owner, shared| owned_by(owner, shared, rule.to_string());
        match role {
            Role::Container(id) => {
                let owner = Named::new(&id, &names, platform_of(policy, interface, &id));
                report.interfaces.push(owned(Some(owner), false));
            }
            Role::Uplink => {
                let node = Named::new(&ContainerId::node(), &ContainerNames::default(), None);
                report.interfaces.push(owned(Some(node), false));
            }
            Role::Shared => report.interfaces.push(owned(None, true)),
            Role::Unresolved { reason } => match counted_for.get(&interface.index) {
                Some(id) if id.is_pending() => report.pending.push(pending(interface, id, reason)),
                Some(id) => {
                    let owner = Named::new(id, &names, platform_of(policy, interface, id));
                    let rule = format!("what was known before; nothing names its container now: {reason}");
                    report.interfaces.push(owned_by(Some(owner), false, rule));
                }
                None if interface.has_both_ends_here() => report.others.push(Other {
                    interface: interface.name.clone(),
                    reason: policy.rules().why_ignored(Ignored::BothEndsHere),
                }),
                None => report.not_counted.push(not_counted(interface, reason)),
            },
            Role::Ignored(Ignored::NoRule) if interface.looks_like_a_containers() => {
                report.not_counted.push(not_counted(interface, policy.rules().why_ignored(Ignored::NoRule)));
            }
            Role::Ignored(why) => report
                .others
                .push(Other { interface: interface.name.clone(), reason: policy.rules().why_ignored(why) }),
        }
    }
    // One that a name assigned has an interface too.
    let counted: Vec<&str> =
        report.interfaces.iter().filter_map(|one| Some(one.owner.as_ref()?.container.as_str())).collect();
    let has_device = |id: &str| {
        report.without_host_end.iter().any(|one| one.container.as_deref() == Some(id))
            || report.on_uplinks.iter().any(|one| one.owner.container == id)
    };
    let idle = running.filter(|running| {
        let id = running.owner.id.as_str();
        !counted.contains(&id) && !has_device(id)
    });
    let named = |running: &Running| Named::new(&running.owner.id, &names, Some(running.owner.platform));
    report.without_interface = idle.map(named).collect();
    report
}

impl HostReport {
    /// Whether everything that should be counted is, and everything could be read.
    pub const fn is_good(&self) -> bool {
        self.not_counted.is_empty() && self.without_host_end.is_empty() && self.problems.is_empty()
    }

    /// The devices in containers that are not counted, each with what to do.
    pub fn advice_on_devices(&self) -> impl Iterator<Item = String> {
        let all = self.without_host_end.iter();
        all.map(|device| problem_of_device(&device.interface, &device.reason, device.parent.is_some()))
    }
}

impl Policy {
    /// The interfaces that look like a container's, and are not counted by themselves or by an earlier rule.
    pub fn uncounted<'i>(
        &self,
        interfaces: &'i [NetInterface],
        is_counted: impl Fn(&NetInterface) -> bool,
    ) -> Vec<&'i NetInterface> {
        let is_left_out = |interface: &&NetInterface| {
            interface.looks_like_a_containers()
                && !is_counted(interface)
                && matches!(self.role(interface), Role::Unresolved { .. } | Role::Ignored(Ignored::NoRule))
        };
        interfaces.iter().filter(is_left_out).collect()
    }
}

/// A device in a container that is not counted, and what to do.
pub(super) fn problem_of_device(label: &str, why: &str, has_parent: bool) -> String {
    format!("{label}: {why}; {}", if has_parent { ADVICE_ON_PARENT } else { ADVICE_INSIDE })
}

fn on_uplink(device: &Inside, names: &ContainerNames) -> Option<OnUplink> {
    let owner = device.owner.as_ref().ok()?;
    Some(OnUplink {
        interface: device.label.clone(),
        kind: device.kind.clone(),
        uplink: device.parent.clone()?,
        owner: Named::new(&owner.id, names, Some(owner.platform)),
    })
}

fn pending(interface: &NetInterface, id: &ContainerId, reason: String) -> PendingOwner {
    PendingOwner {
        interface: interface.name.clone(),
        ifindex: interface.index,
        kind: interface.kind.clone(),
        pending: id.to_string(),
        reason,
        advice: ADVICE,
    }
}

fn not_counted(interface: &NetInterface, reason: String) -> NotCounted {
    NotCounted {
        interface: interface.name.clone(),
        ifindex: interface.index,
        kind: interface.kind.clone(),
        reason,
        advice: ADVICE,
    }
}

/// The platform that runs the container of an interface.
fn platform_of(policy: &Policy, interface: &NetInterface, id: &ContainerId) -> Option<Platform> {
    let found = policy.survey().of(interface).and_then(|found| found.owner.as_ref().ok());
    found.filter(|owner| owner.id == *id).map_or_else(|| by_name(interface), |owner| Some(owner.platform))
}

/// The platform whose interfaces alone have such names.
fn by_name(interface: &NetInterface) -> Option<Platform> {
    let rest = interface.name.strip_prefix("veth").or_else(|| interface.name.strip_prefix("vme"))?;
    let (container, number) = rest.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(container) && is_number(number)).then_some(Platform::Virtuozzo)
}
