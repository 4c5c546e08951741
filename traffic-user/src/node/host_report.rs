//! Which platforms are on this host, and to whom each interface belongs: the data of `trafctl host`.
//!
//! Reads the kernel and files and changes nothing. It needs no counters.

use serde::Serialize;
use traffic_model::ContainerId;

use super::policy::Policy;
use crate::{
    net::interface::NetInterface,
    ownership::interface_rules::{Ignored, Role},
    platform::{Owner, Platform},
};

/// What to do about an interface whose container is unknown.
const ADVICE: &str = "name its container under [[container]] in the configuration (`interfaces`), or add a rule of \
                      kind \"ignore\" for it under [interfaces]";

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
    /// The interfaces that look like a container's and are not counted.
    pub not_counted: Vec<NotCounted>,
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
    fn new(owner: &Owner) -> Self {
        Self {
            container: owner.id.to_string(),
            name: owner.name.clone(),
            platform: Some(owner.platform.key()),
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
    /// What assigns it.
    pub rule: String,
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

/// Describes the host, which has these interfaces.
pub fn describe(policy: &Policy, interfaces: &[NetInterface]) -> HostReport {
    let survey = policy.survey();
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
        not_counted: Vec::new(),
        without_interface: Vec::new(),
        others: Vec::new(),
        problems: policy.problems(),
    };
    for interface in interfaces {
        let (role, rule) = policy.decide(interface);
        let owned = |owner, shared| OwnedInterface {
            interface: interface.name.clone(),
            ifindex: interface.index,
            kind: interface.kind.clone(),
            owner,
            shared,
            rule: rule.to_string(),
        };
        match role {
            Role::Container(id) => report.interfaces.push(owned(Some(named(policy, interface, &id)), false)),
            Role::Uplink => {
                let node = Named { container: ContainerId::node().to_string(), name: None, platform: None };
                report.interfaces.push(owned(Some(node), false));
            }
            Role::Shared => report.interfaces.push(owned(None, true)),
            Role::Unresolved { reason } => report.not_counted.push(not_counted(interface, reason)),
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
    let idle = running.filter(|running| !counted.contains(&running.owner.id.as_str()));
    let idle: Vec<Named> = idle.map(|running| Named::new(&running.owner)).collect();
    report.without_interface = idle;
    report
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
                && matches!(self.role(interface), Role::Unresolved { .. } | Role::Ignored(Ignored::NoRule))
                && !is_counted(interface)
        };
        interfaces.iter().filter(is_left_out).collect()
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

/// The container of an interface with what its platform says of it.
fn named(policy: &Policy, interface: &NetInterface, id: &ContainerId) -> Named {
    let survey = policy.survey();
    let found = survey.of(interface).and_then(|found| found.owner.as_ref().ok());
    match found.filter(|owner| owner.id == *id) {
        Some(owner) => Named::new(owner),
        None => Named {
            container: id.to_string(),
            name: survey.name_of(id).map(str::to_owned),
            platform: by_name(interface).map(Platform::key),
        },
    }
}

/// The platform whose interfaces alone have such names.
fn by_name(interface: &NetInterface) -> Option<Platform> {
    let rest = interface.name.strip_prefix("veth").or_else(|| interface.name.strip_prefix("vme"))?;
    let (container, number) = rest.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(container) && is_number(number)).then_some(Platform::Virtuozzo)
}
