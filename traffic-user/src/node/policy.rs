//! What should be attached and who owns it, by the configuration and all sources of ownership. No kernel.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use traffic_common::{ADDRESS_ON_UPLINK, ADDRESS_WITHOUT_SLOT};
use traffic_model::ContainerId;

use crate::{
    config::Config,
    net::interface::NetInterface,
    ownership::{
        ContainerNames, Ownership,
        identity_command::Answers,
        interface_rules::{Ignored, NameRules, Role, Rule, Sources},
    },
    platform::{inside::Inside, survey::Survey},
};

/// How many containers without a slot are named; of all others only the number.
const NAMED_WITHOUT_SLOT: usize = 20;

/// Which interfaces a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All interfaces that a rule assigns to a container, or makes shared.
    Matching,
    /// Those named.
    Named(Vec<String>),
}

/// Configuration and ownership.
#[derive(Debug)]
pub struct Policy {
    /// The configuration.
    pub config: Config,
    ownership: Ownership,
    sources: Sources,
    /// Ids that own an address.
    address_owners: HashSet<String>,
}

impl Policy {
    /// Reads who owns which interface and address.
    ///
    /// # Errors
    /// As [`Ownership::read`].
    pub fn read(config: Config, state_dir: &Path) -> anyhow::Result<Self> {
        let ownership = Ownership::read(&config, state_dir, None)?;
        ownership.log_warnings(None);
        Ok(Self::new(config, ownership))
    }

    /// The same without messages in the log, for a look beside the daemon, which logs them already.
    ///
    /// # Errors
    /// As [`Policy::read`].
    pub fn read_silently(config: Config, state_dir: &Path) -> anyhow::Result<Self> {
        let ownership = Ownership::read(&config, state_dir, None)?;
        Ok(Self::new(config, ownership))
    }

    pub(super) fn new(config: Config, ownership: Ownership) -> Self {
        let address_owners = owners_of(&ownership);
        Self { config, ownership, sources: Sources::default(), address_owners }
    }

    /// Reads again who owns which interface and address.
    ///
    /// # Errors
    /// As [`Ownership::read`]; what was known stays.
    pub fn refresh(&mut self, state_dir: &Path) -> anyhow::Result<()> {
        let fresh = Ownership::read(&self.config, state_dir, Some(&self.ownership))?;
        fresh.log_warnings(Some(&self.ownership));
        self.address_owners = owners_of(&fresh);
        self.ownership = fresh;
        Ok(())
    }

    /// Reads again the addresses that `trafctl address` keeps, for a caller that holds the change lock: what
    /// another process added before it had the lock must not be removed from the kernel.
    pub fn read_list_again(&mut self, state_dir: &Path) {
        self.ownership.read_list_again(&self.config, state_dir);
        self.address_owners = owners_of(&self.ownership);
    }

    /// Whether everything that names owners of addresses could be read.
    pub fn knows_all_owners(&self) -> bool {
        self.ownership.is_complete()
    }

    /// Whether every line of the list of `trafctl address` is used.
    pub fn uses_whole_list(&self) -> bool {
        self.ownership.uses_whole_list()
    }

    /// What cannot be used of the files that name owners.
    pub fn problems(&self) -> Vec<String> {
        let of_platforms = self.sources.survey.problems.iter().cloned();
        self.ownership.problems().into_iter().chain(of_platforms).collect()
    }

    /// The role of an interface. Its alternative names count where its name decides nothing.
    /// One that cannot be counted has no owner to be found.
    pub fn role(&self, interface: &NetInterface) -> Role {
        self.decide(interface).0
    }

    /// The role of an interface, and what decides it.
    pub fn decide(&self, interface: &NetInterface) -> (Role, Rule<'_>) {
        match (self.decide_by_names(interface), interface.obstacle) {
            ((Role::Container(_) | Role::Shared | Role::Uplink, _), Some(obstacle)) => {
                (Role::Unresolved { reason: obstacle.to_owned() }, Rule::Nothing)
            }
            (decided, _) => decided,
        }
    }

    /// Whether an interface is attached, and it is known for whom.
    pub fn is_assigned(&self, interface: &NetInterface) -> bool {
        matches!(self.role(interface), Role::Container(_) | Role::Shared | Role::Uplink)
    }

    /// Whether the owner of an interface is unknown, and the identity command or a platform may know it.
    pub fn is_unresolved(&self, interface: &NetInterface) -> bool {
        interface.obstacle.is_none()
            && !interface.has_both_ends_here()
            && matches!(self.role(interface), Role::Unresolved { .. })
    }

    fn decide_by_names(&self, interface: &NetInterface) -> (Role, Rule<'_>) {
        if self.config.uplinks.iter().any(|uplink| interface.is_called(uplink)) {
            return (Role::Uplink, Rule::Uplinks);
        }
        let of = |name| self.ownership.rules.decide(interface, name, &self.sources);
        let is_undecided = |(role, _): &(Role, Rule<'_>)| {
            matches!(role, Role::Unresolved { .. } | Role::Ignored(Ignored::NoRule | Ignored::BothEndsHere))
        };
        let by_name = of(&interface.name);
        if !is_undecided(&by_name) {
            return by_name;
        }
        let mut others = interface.alternative_names.iter().map(|name| of(name));
        others.find(|decided| !is_undecided(decided)).unwrap_or(by_name)
    }

    /// Why no container is counted, if no rule matches anything, and something looks like a container's: most
    /// likely the preset is that of another kind of host. `is_counted`: whether it was attached under other
    /// rules, and counts on; those are not named.
    pub fn nothing_matches(
        &self,
        interfaces: &[NetInterface],
        is_counted: impl Fn(&NetInterface) -> bool,
    ) -> Option<String> {
        let mut unmatched = Vec::new();
        let mut no = "no container";
        for interface in interfaces {
            match self.role(interface) {
                Role::Ignored(_) if is_counted(interface) => no = "no other container",
                Role::Ignored(Ignored::NoRule) if interface.looks_like_a_containers() => {
                    unmatched.push(interface.name.as_str());
                }
                Role::Ignored(_) | Role::Uplink => {}
                Role::Container(_) | Role::Shared | Role::Unresolved { .. } => return None,
            }
        }
        let first = unmatched.first()?;
        let others = match unmatched.len() - 1 {
            0 => format!("{first} looks like a container's"),
            1 => format!("{first} and 1 other look like containers'"),
            n => format!("{first} and {n} others look like containers'"),
        };
        Some(format!(
            "no interface matches a rule, so {no} is counted, but {others}; set `preset` under [host] \
             (now \"{}\"), or assign them under [interfaces] or [[container]]",
            self.config.preset.name()
        ))
    }

    /// The configured uplinks that no interface is called.
    pub fn missing_uplinks<'p>(&'p self, interfaces: &[NetInterface]) -> Vec<&'p str> {
        let uplinks = self.config.uplinks.iter().map(String::as_str);
        uplinks.filter(|uplink| !interfaces.iter().any(|interface| interface.is_called(uplink))).collect()
    }

    /// The rules by which interfaces have owners.
    pub fn rules(&self) -> &NameRules {
        &self.ownership.rules
    }

    /// What is known of the platforms on this host.
    pub const fn survey(&self) -> &Survey {
        &self.sources.survey
    }

    /// The devices in containers that are not counted, without those that a rule says to ignore.
    pub fn inside(&self) -> impl Iterator<Item = &Inside> {
        let all = self.sources.survey.inside.iter();
        all.filter(|device| {
            !self.ownership.rules.ignores_inside(&device.label) && !self.is_counted_on_uplink(device)
        })
    }

    /// The devices in containers that are counted on an uplink, by the containers' addresses.
    pub fn on_uplinks(&self) -> impl Iterator<Item = &Inside> {
        self.sources.survey.inside.iter().filter(|device| self.is_counted_on_uplink(device))
    }

    fn is_counted_on_uplink(&self, device: &Inside) -> bool {
        let Ok(owner) = &device.owner else { return false };
        let mut entries = self.ownership.addresses.entries.iter();
        // There may be thousands of addresses, and of devices, and mostly no container is counted so.
        self.shares_uplinks()
            && self.config.uplinks.iter().any(|uplink| device.is_on(uplink))
            && entries.any(|entry| entry.is_on_uplink && entry.container == owner.id)
    }

    /// Whether containers are counted on the uplinks, by their addresses.
    pub fn shares_uplinks(&self) -> bool {
        self.config.containers.iter().any(|container| container.on_uplink)
    }

    /// An uplink, as it is attached.
    pub fn as_uplink(&self, interface: NetInterface) -> NetInterface {
        NetInterface { is_shared_uplink: self.shares_uplinks(), ..interface.as_uplink() }
    }

    /// What people call the containers.
    pub fn names(&self) -> ContainerNames {
        self.ownership.names(&self.config, self.sources.survey.names())
    }

    /// Takes over a later look at the platforms. What was known stays where this one knows nothing. Returns
    /// whether it changes anything.
    pub fn take_survey(&mut self, mut survey: Survey) -> bool {
        for change in survey.keep_known(&self.sources.survey) {
            tracing::warn!("{change}");
        }
        let differs = survey.differs_from(&self.sources.survey);
        self.sources.survey = survey;
        differs
    }

    /// Replaces the earlier answers of the identity command by these.
    pub fn take_answers(&mut self, answers: Answers) {
        let known = self.sources.answers.problems();
        for complaint in answers.problems().iter().filter(|new| !known.contains(new)) {
            tracing::warn!("the command under [identities]: {complaint}");
        }
        self.sources.answers = answers;
    }

    /// What is known of owners beside rules and lists.
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Takes over what another policy knows, and has logged.
    pub fn take_known(&mut self, sources: Sources) {
        self.sources = sources;
    }

    /// Whether any of these interfaces needs an answer of the identity command.
    pub fn needs_answers(&self, interfaces: &[NetInterface]) -> bool {
        self.config.identity_command.is_some()
            && interfaces.iter().any(|interface| self.is_unresolved(interface))
    }

    /// The selected interfaces with their roles.
    ///
    /// # Errors
    /// When a named interface does not exist, or nothing says whose it is.
    pub fn select<'i>(
        &self,
        interfaces: &'i [NetInterface],
        selection: &Selection,
    ) -> anyhow::Result<Vec<(&'i NetInterface, Role)>> {
        let Selection::Named(names) = selection else {
            return Ok(interfaces.iter().map(|interface| (interface, self.role(interface))).collect());
        };
        names
            .iter()
            .map(|name| {
                let interface = named(interfaces, name)?;
                match self.role(interface) {
                    Role::Ignored(_) => bail!(
                        "cannot attach to {name}: no rule assigns it to a container; list it under \
                         [[container]] interfaces or add a rule under [interfaces] in the configuration"
                    ),
                    Role::Unresolved { reason } if interface.obstacle.is_some() => {
                        bail!("cannot attach to {name}: {reason}")
                    }
                    Role::Unresolved { .. } if interface.has_both_ends_here() => bail!(
                        "cannot attach to {name}: both its ends are in this network namespace, so it is nobody's yet"
                    ),
                    role => Ok((interface, role)),
                }
            })
            .collect()
    }

    /// The containers' addresses with the slots of their owners.
    ///
    /// # Errors
    /// Those of `slot`.
    pub fn addresses(
        &self,
        mut slot: impl FnMut(&ContainerId) -> anyhow::Result<Option<u32>>,
    ) -> anyhow::Result<BTreeMap<IpNet, u32>> {
        let entries = self.ownership.addresses.entries.iter();
        entries
            .map(|entry| {
                let slot = slot(&entry.container)?.unwrap_or(ADDRESS_WITHOUT_SLOT);
                let place = if entry.is_on_uplink { ADDRESS_ON_UPLINK } else { 0 };
                Ok((entry.prefix, slot | place))
            })
            .collect()
    }

    /// All prefixes that a container owns.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.ownership.addresses.entries.iter().map(|entry| entry.prefix.trunc())
    }

    /// Which containers own an address and have no counter slot, in one sentence.
    pub fn without_slot(&self, has_slot: impl Fn(&ContainerId) -> bool) -> Option<String> {
        let owners = self.ownership.addresses.entries.iter().map(|entry| &entry.container);
        let without: BTreeSet<&ContainerId> = owners.filter(|id| !has_slot(id)).collect();
        let named: Vec<&str> = without.iter().take(NAMED_WITHOUT_SLOT).map(|id| id.as_str()).collect();
        let more = if without.len() > named.len() { ", ..." } else { "" };
        (!without.is_empty()).then(|| {
            format!(
                "{} no counter slot ({}{more}): what they send and receive on shared interfaces is counted as \
                 container_table_full; raise `containers` under [limits], then run `trafctl attach` or reload \
                 the daemon",
                if without.len() == 1 {
                    "1 container has".to_owned()
                } else {
                    format!("{} containers have", without.len())
                },
                named.join(", ")
            )
        })
    }

    /// Whether a container owns an address, and so needs no interface of its own.
    pub fn owns_address(&self, id: &str) -> bool {
        self.address_owners.contains(id)
    }
}

fn owners_of(ownership: &Ownership) -> HashSet<String> {
    ownership.addresses.entries.iter().map(|entry| entry.container.as_str().to_owned()).collect()
}

/// The interface of this name or alternative name.
///
/// # Errors
/// When there is none.
pub fn named<'i>(interfaces: &'i [NetInterface], name: &str) -> anyhow::Result<&'i NetInterface> {
    interfaces
        .iter()
        .find(|interface| interface.is_called(name))
        .with_context(|| format!("no interface {name} exists in this network namespace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_of_another_kind_of_host_is_noticed() {
        let policy = |text: &str| {
            let config = Config::parse(&format!("vz_conf_dir = '/nonexistent'\n{text}"), Path::new("t.toml"));
            let config = config.unwrap();
            let ownership = Ownership::read(&config, Path::new("/nonexistent"), None).unwrap();
            Policy::new(config, ownership)
        };
        let interface = |name: &str, kind: &str, peer_is_elsewhere, master| NetInterface {
            name: name.to_owned(),
            kind: kind.to_owned(),
            peer_is_elsewhere,
            master,
            ethernet: true,
            ..NetInterface::default()
        };
        let host = [
            interface("lo", "", false, None),
            interface("eno1", "", false, Some(5)),
            interface("br0", "bridge", false, None),
            interface("tun0", "tun", false, None),
            interface("vethab", "veth", false, Some(5)),
        ];
        let with = |more: &[NetInterface]| [&host[..], more].concat();
        let docker = interface("veth1a2b3", "veth", true, Some(5));
        let machine = interface("vnet0", "tun", false, Some(5));
        let here = interface("veth101.0", "veth", true, Some(5));
        let virtuozzo = policy("[host]\npreset = 'virtuozzo'\n[node]\nuplinks = ['eno1']\n");
        assert_eq!(virtuozzo.nothing_matches(&host, |_| false), None, "there is no container yet");
        let text = virtuozzo.nothing_matches(&with(&[docker.clone(), machine.clone()]), |_| false).unwrap();
        assert!(
            text.contains("veth1a2b3 and 1 other look like") && text.contains("now \"virtuozzo\""),
            "{text}"
        );
        // What was attached under other rules says nothing about the rest.
        let still =
            virtuozzo.nothing_matches(&with(&[docker.clone(), machine.clone()]), |it| it.kind == "tun");
        let told = "so no other container is counted, but veth1a2b3 looks like";
        assert!(still.as_ref().is_some_and(|text| text.contains(told)), "{still:?}");
        assert_eq!(virtuozzo.nothing_matches(&with(&[docker.clone(), here]), |_| false), None);
        assert_eq!(
            policy("[host]\npreset = 'libvirt'\n")
                .nothing_matches(&with(&[docker.clone(), machine]), |_| false),
            None
        );
        let ignored =
            "[host]\npreset = 'virtuozzo'\n[[interfaces.rule]]\npattern = 'veth.*'\nkind = 'ignore'\n";
        assert_eq!(policy(ignored).nothing_matches(&with(&[docker]), |_| false), None);
    }

    #[test]
    fn alternative_names_count_where_no_rule_matches_the_name() {
        let text = "vz_conf_dir = '/nonexistent'\n[node]\nuplinks = ['wan', 'eth9']\n\
             [[container]]\nid = '7'\ninterfaces = ['customer7']\n";
        let config = Config::parse(text, Path::new("t.toml")).unwrap();
        let ownership = Ownership::read(&config, Path::new("/nonexistent"), None).unwrap();
        let policy = Policy::new(config, ownership);
        let called = |name: &str, alternative: &str| NetInterface {
            name: name.to_owned(),
            alternative_names: vec![alternative.to_owned()],
            ..NetInterface::default()
        };
        let seven = Role::Container(ContainerId::new("7").unwrap());
        assert_eq!(policy.role(&called("enp3s0", "wan")), Role::Uplink);
        assert_eq!(policy.role(&called("odd0", "customer7")), seven);
        assert_eq!(policy.role(&called("odd0", "other")), Role::Ignored(Ignored::NoRule));
        // The name goes before an alternative name.
        let by_name = Role::Container(ContainerId::new("101").unwrap());
        assert_eq!(policy.role(&called("veth101.0", "customer7")), by_name);
        // What cannot be counted is not attached, whoever names it.
        let loopback = NetInterface { obstacle: Some("it is the loopback"), ..called("wan", "lo") };
        let Role::Unresolved { reason } = policy.role(&loopback) else { panic!("attached") };
        assert_eq!((reason.as_str(), policy.is_unresolved(&loopback)), ("it is the loopback", false));
        let unnamed = NetInterface { name: "lo".to_owned(), alternative_names: Vec::new(), ..loopback };
        assert_eq!(policy.role(&unnamed), Role::Ignored(Ignored::NoRule));
        assert_eq!(policy.missing_uplinks(&[called("enp3s0", "wan")]), ["eth9"]);
    }
}
