//! The role of an interface, from its name, from lists of the configuration and Virtuozzo, from the command's
//! answers, or from what the platforms on this host show.
//!
//! Patterns and presets are defined in [`crate::config`], platforms in [`crate::platform`].

use std::collections::{HashMap, HashSet};

use traffic_model::ContainerId;

use crate::{
    calibration,
    config::{Applies, Config, Pattern, Preset, RuleKind},
    net::interface::NetInterface,
    ownership::{identity_command::Answers, vz_conf::VzConf},
    platform::{
        Owner, Platform,
        survey::{Attribution, Survey},
    },
};

/// What is known of owners beside rules and lists, and changes with the containers.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The answers of the configured command.
    pub answers: Answers,
    /// The platforms on this host and their containers.
    pub survey: Survey,
}

/// What an interface is, and how it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It belongs to one container or machine.
    Container(ContainerId),
    /// Several containers share it; the local address decides.
    Shared,
    /// It carries the node's own traffic, beside that of others.
    Uplink,
    /// It is not counted.
    Ignored(Ignored),
    /// It is named like a container's interface, but its owner is unknown.
    Unresolved {
        /// Which sources had no owner.
        reason: String,
    },
}

/// Why an interface is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// A rule of kind `ignore` matches.
    ByRule,
    /// No rule matches its name.
    NoRule,
    /// It is a veth with both ends in the host's network namespace: one of them may be about to move.
    BothEndsHere,
    /// The host reaches others by it.
    DefaultRoute,
}

/// What a role was decided by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule<'r> {
    /// `uplinks` under `[node]`.
    Uplinks,
    /// A list of interfaces: `[[container]]`, or `NETIF=` in Virtuozzo's files.
    List,
    /// A rule for names, with its pattern.
    Name(&'r str),
    /// A list of hardware addresses, in the same places.
    Mac,
    /// Digits of a hardware address in the name.
    Digits,
    /// The identity command.
    Command,
    /// A platform on this host, and what shows it.
    Platform(&'r str),
    /// It is that of `trafctl calibrate`.
    Calibration,
    /// Nothing decides.
    Nothing,
}

impl std::fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uplinks => f.write_str("`uplinks` under [node]"),
            Self::List => f.write_str("its name in [[container]] or in NETIF= of Virtuozzo's files"),
            Self::Name(pattern) => write!(f, "the rule for names {pattern}"),
            Self::Mac => {
                f.write_str("its hardware address in [[container]] or in NETIF= of Virtuozzo's files")
            }
            Self::Digits => f.write_str("digits of a hardware address of Virtuozzo's files in its name"),
            Self::Command => f.write_str("the command under [identities]"),
            Self::Platform(what) => f.write_str(what),
            Self::Calibration => f.write_str("the throwaway container of `trafctl calibrate`"),
            Self::Nothing => f.write_str("-"),
        }
    }
}

/// A rule for names, of the configuration or the preset.
#[derive(Debug)]
struct NameRule {
    pattern: Pattern,
    text: String,
    kind: RuleKind,
    applies: Applies,
}

/// All rules for names, and all lists of owners.
#[derive(Debug)]
pub struct NameRules {
    patterns: Vec<NameRule>,
    preset: Preset,
    uplinks: HashSet<String>,
    has_command: bool,
    by_interface: HashMap<String, ContainerId>,
    by_mac: HashMap<[u8; 6], ContainerId>,
    aliases: HashMap<ContainerId, ContainerId>,
}

impl NameRules {
    /// Merges rules and lists. The configuration overrides Virtuozzo's files.
    ///
    /// # Errors
    /// When a preset's pattern does not compile, which would be a bug.
    pub fn new(config: &Config, vz: &VzConf) -> anyhow::Result<Self> {
        let own = config.rules.iter().map(|rule| NameRule {
            pattern: rule.pattern.clone(),
            text: rule.pattern.as_written().to_owned(),
            kind: rule.kind,
            applies: Applies::Always,
        });
        let mut patterns: Vec<_> = own.collect();
        for rule in config.preset.rules() {
            patterns.push(NameRule {
                pattern: Pattern::of_preset(rule)?,
                text: rule.pattern.to_owned(),
                kind: rule.kind,
                applies: rule.applies,
            });
        }
        let mut rules = Self {
            patterns,
            preset: config.preset,
            uplinks: config.uplinks.iter().cloned().collect(),
            has_command: config.identity_command.is_some(),
            by_interface: HashMap::new(),
            by_mac: HashMap::new(),
            aliases: vz.aliases(),
        };
        for container in &vz.containers {
            let id = rules.main_id(container.id.clone());
            for interface in &container.interfaces {
                if let Some(name) = &interface.host_name {
                    rules.by_interface.insert(name.clone(), id.clone());
                }
                for mac in [interface.host_mac, interface.mac].into_iter().flatten() {
                    rules.by_mac.insert(mac, id.clone());
                }
            }
        }
        for container in &config.containers {
            let id = rules.main_id(container.id.clone());
            for name in &container.interfaces {
                rules.by_interface.insert(name.clone(), id.clone());
            }
            for mac in &container.macs {
                rules.by_mac.insert(*mac, id.clone());
            }
        }
        Ok(rules)
    }

    /// Whether a rule says to ignore a device in a container, by its label such as `mail/eth0`.
    pub fn ignores_inside(&self, label: &str) -> bool {
        let first = self.patterns.iter().find(|rule| rule.pattern.matches(label).is_some());
        first.is_some_and(|rule| rule.kind == RuleKind::Ignore)
    }

    /// Whether a hardware address can decide the role of an interface.
    pub fn asks_for_addresses(&self) -> bool {
        self.has_command || !self.by_mac.is_empty()
    }

    /// The id that a container is counted under, given any of its ids.
    pub fn main_id(&self, id: ContainerId) -> ContainerId {
        self.aliases.get(&id).cloned().unwrap_or(id)
    }

    /// All ids of a container. The one it is counted under comes first.
    pub fn all_ids(&self, id: &ContainerId) -> Vec<ContainerId> {
        let main = self.main_id(id.clone());
        let mut others: Vec<_> =
            self.aliases.iter().filter(|(_, to)| **to == main).map(|(from, _)| from.clone()).collect();
        others.sort();
        std::iter::once(main).chain(others).collect()
    }

    /// The role of an interface under one of its names.
    pub fn role(&self, interface: &NetInterface, name: &str, sources: &Sources) -> Role {
        self.decide(interface, name, sources).0
    }

    /// The role of an interface under one of its names, and what decides it.
    pub fn decide<'s>(
        &'s self,
        interface: &NetInterface,
        name: &str,
        sources: &'s Sources,
    ) -> (Role, Rule<'s>) {
        if self.uplinks.contains(name) {
            return (Role::Uplink, Rule::Uplinks);
        }
        if name == calibration::INTERFACE && interface.kind == "veth" {
            let owner = ContainerId::of_container(calibration::CONTAINER);
            if let Ok(owner) = owner {
                return (Role::Container(owner), Rule::Calibration);
            }
        }
        if let Some(id) = self.by_interface.get(name) {
            return (Role::Container(id.clone()), Rule::List);
        }
        let found = sources.survey.of(interface);
        let mut matching = self.patterns.iter().filter_map(|rule| Some((rule.pattern.matches(name)?, rule)));
        let matching = matching.find(|(_, rule)| rule.applies_to(interface, &sources.survey));
        let Some((id, rule)) = matching else { return self.without_rule(interface, name, sources) };
        let by_name = Rule::Name(&rule.text);
        match (rule.kind, id) {
            (RuleKind::Ignore, _) => (Role::Ignored(Ignored::ByRule), by_name),
            (RuleKind::Shared, _) => (Role::Shared, by_name),
            (RuleKind::Container, Some(id)) => {
                let role = ContainerId::of_container(id).map_or_else(
                    |error| Role::Unresolved { reason: error.to_string() },
                    |id| Role::Container(self.main_id(id)),
                );
                match found {
                    // A random name can look like one that contains an id.
                    Some(Attribution { owner: Ok(owner), rule: how, .. })
                        if rule.applies == Applies::UnlessOthers && owner.platform != Platform::Lxc =>
                    {
                        (Role::Container(self.main_id(owner.id.clone())), Rule::Platform(how))
                    }
                    None if rule.applies == Applies::UnlessOthers => {
                        (Role::Unresolved { reason: NOT_LOOKED_UP.to_owned() }, Rule::Nothing)
                    }
                    _ => (role, by_name),
                }
            }
            (RuleKind::Mapped | RuleKind::Container, _) => match self.mapped(interface, name, sources) {
                Some((id, rule)) => (Role::Container(self.main_id(id.clone())), rule),
                None => self.undecided(interface, name, found),
            },
        }
    }

    /// The role of an interface that no rule for names matches. Its hardware address is not considered: a bridge
    /// has that of a port, and a VLAN interface its parent's.
    fn without_rule<'s>(
        &'s self,
        interface: &NetInterface,
        name: &str,
        sources: &'s Sources,
    ) -> (Role, Rule<'s>) {
        if self.preset != Preset::Auto {
            return (Role::Ignored(Ignored::NoRule), Rule::Nothing);
        }
        let found = sources.survey.of(interface);
        if sources.survey.is_default_route(interface.index) {
            return (Role::Ignored(Ignored::DefaultRoute), Rule::Nothing);
        }
        match found {
            Some(Attribution { owner: Ok(owner), rule, .. }) => {
                (Role::Container(self.main_id(owner.id.clone())), Rule::Platform(rule))
            }
            _ if interface.looks_like_a_containers() => match self.mapped(interface, name, sources) {
                Some((id, rule)) => (Role::Container(self.main_id(id.clone())), rule),
                None => self.undecided(interface, name, found),
            },
            _ => (Role::Ignored(Ignored::NoRule), Rule::Nothing),
        }
    }

    /// The role of an interface that should have an owner, which nothing knows.
    fn undecided(
        &self,
        interface: &NetInterface,
        name: &str,
        found: Option<&Attribution>,
    ) -> (Role, Rule<'static>) {
        if interface.is_counted_on_the_other_end() && !interface.peer_is_elsewhere {
            return (Role::Ignored(Ignored::BothEndsHere), Rule::Nothing);
        }
        (Role::Unresolved { reason: self.unresolved(interface, name, found) }, Rule::Nothing)
    }

    /// Why an interface is not counted, as text for people.
    pub fn why_ignored(&self, ignored: Ignored) -> String {
        match ignored {
            Ignored::ByRule => "a rule of kind \"ignore\" matches its name".to_owned(),
            Ignored::NoRule if self.preset == Preset::Auto => {
                "it does not look like a container's, and no rule matches its name".to_owned()
            }
            Ignored::NoRule => format!("no rule matches its name (preset {})", self.preset.name()),
            Ignored::BothEndsHere => {
                "both its ends are in this network namespace, so no container is behind it yet".to_owned()
            }
            Ignored::DefaultRoute => {
                "this host reaches others by it; if its own traffic is to be counted, name it \
                                      under [node] uplinks"
                    .to_owned()
            }
        }
    }

    /// Finds the owner by the interface's hardware address, by digits of one in its name, by the command's
    /// answers, or by the platforms.
    fn mapped<'s>(
        &'s self,
        interface: &NetInterface,
        name: &str,
        sources: &'s Sources,
    ) -> Option<(&'s ContainerId, Rule<'s>)> {
        let Sources { answers, survey } = sources;
        // What a platform calls a container's address is that of the end in the container.
        let other = survey.of(interface).and_then(|found| found.other_address);
        let owner_in = |owners: &'s HashMap<[u8; 6], ContainerId>| {
            let by_own = interface.mac.and_then(|mac| owner_of_mac(owners, mac));
            by_own.or_else(|| owners.get(&other?))
        };
        let by_mac = owner_in(&self.by_mac);
        let of_platform = || match survey.of(interface)? {
            Attribution { owner: Ok(Owner { id, .. }), rule, .. } => {
                Some((id, Rule::Platform(rule.as_str())))
            }
            _ => None,
        };
        by_mac
            .map(|id| (id, Rule::Mac))
            .or_else(|| Some((self.by_digits(name)?, Rule::Digits)))
            .or_else(|| Some((answers.of_interface(name, interface.index)?, Rule::Command)))
            .or_else(|| Some((owner_in(answers.by_mac())?, Rule::Command)))
            .or_else(of_platform)
    }

    /// Virtuozzo builds names from the last four bytes of the container's hardware address, or from all six.
    fn by_digits(&self, name: &str) -> Option<&ContainerId> {
        let digits = name.strip_prefix("veth").or_else(|| name.strip_prefix("vme"))?.to_ascii_lowercase();
        matches!(digits.len(), 8 | 12).then_some(())?;
        only_owner(&self.by_mac, |mac| traffic_model::hex(mac).ends_with(&digits))
    }

    fn unresolved(&self, interface: &NetInterface, name: &str, found: Option<&Attribution>) -> String {
        let mac = interface.mac.map_or_else(String::new, |[a, b, c, d, e, f]| {
            format!(" or {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
        });
        let command = if self.has_command {
            ", and the command under [identities] has not named its container"
        } else {
            ""
        };
        let of_platforms = match found.map(|found| &found.owner) {
            Some(Err(reason)) => format!("; {reason}"),
            _ => String::new(),
        };
        format!(
            "neither NETIF= in Virtuozzo's files nor [[container]] in the configuration lists \
             {name}{mac}{command}{of_platforms}"
        )
    }
}

impl NameRule {
    fn applies_to(&self, interface: &NetInterface, survey: &Survey) -> bool {
        match self.applies {
            Applies::Always => true,
            Applies::ToVeth => interface.kind == "veth",
            Applies::OnProxmox => survey.has(Platform::Proxmox),
            Applies::UnlessOthers => interface.kind != "veth" || interface.peer_is_elsewhere,
        }
    }
}

/// Why an interface with a new name has no owner for a moment.
const NOT_LOOKED_UP: &str = "its container is being looked up";

/// The owner of a hardware address. A tap has its machine's address with the first byte set to fe: libvirt
/// does so to keep bridges from adopting it.
fn owner_of_mac(owners: &HashMap<[u8; 6], ContainerId>, mac: [u8; 6]) -> Option<&ContainerId> {
    owners.get(&mac).or_else(|| {
        (mac[0] == 0xfe).then_some(())?;
        only_owner(owners, |machine| machine[1..] == mac[1..])
    })
}

/// The only owner of the addresses that match. With two owners there is none, because a bill must not rest on
/// a guess.
fn only_owner(
    owners: &HashMap<[u8; 6], ContainerId>,
    matches: impl Fn(&[u8; 6]) -> bool,
) -> Option<&ContainerId> {
    let mut found = owners.iter().filter(|(mac, _)| matches(mac)).map(|(_, id)| id);
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests;
