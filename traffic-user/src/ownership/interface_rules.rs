//! The role of an interface, from its name, from lists of the configuration and Virtuozzo, or from the
//! command's answers.
//!
//! Patterns and presets are defined in [`crate::config`].

use std::collections::{HashMap, HashSet};

use traffic_model::ContainerId;

use crate::{
    config::{Config, Pattern, Preset, RuleKind},
    ownership::{identity_command::Answers, vz_conf::VzConf},
};

/// The facts that a role is decided from.
#[derive(Clone, Copy, Debug)]
pub struct InterfaceFacts<'a> {
    /// Its index. A name may pass to another interface, an index does not.
    pub index: u32,
    /// Its name.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
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
}

/// All rules for names, and all lists of owners.
#[derive(Debug)]
pub struct NameRules {
    patterns: Vec<(Pattern, RuleKind)>,
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
        let mut patterns: Vec<_> =
            config.rules.iter().map(|rule| (rule.pattern.clone(), rule.kind)).collect();
        for (pattern, kind) in config.preset.rules() {
            patterns.push((Pattern::new(pattern).map_err(anyhow::Error::msg)?, *kind));
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

    /// The role of an interface. `answers` are those of the configured command.
    pub fn role(&self, facts: &InterfaceFacts<'_>, answers: &Answers) -> Role {
        if self.uplinks.contains(facts.name) {
            return Role::Uplink;
        }
        if let Some(id) = self.by_interface.get(facts.name) {
            return Role::Container(id.clone());
        }
        let matching = self
            .patterns
            .iter()
            .find_map(|(pattern, kind)| pattern.matches(facts.name).map(|id| (id, *kind)));
        match matching {
            Some((_, RuleKind::Ignore)) => Role::Ignored(Ignored::ByRule),
            Some((_, RuleKind::Shared)) => Role::Shared,
            Some((Some(id), RuleKind::Container)) => ContainerId::of_container(id).map_or_else(
                |error| Role::Unresolved { reason: error.to_string() },
                |id| Role::Container(self.main_id(id)),
            ),
            Some((_, RuleKind::Mapped) | (None, RuleKind::Container)) => match self.mapped(facts, answers) {
                Some(id) => Role::Container(self.main_id(id)),
                None => Role::Unresolved { reason: self.unresolved(facts) },
            },
            // Its hardware address is not considered: a bridge has that of a port, and a VLAN interface its
            // parent's.
            None => Role::Ignored(Ignored::NoRule),
        }
    }

    /// Why an interface is not counted, as text for people.
    pub fn why_ignored(&self, ignored: Ignored) -> String {
        match ignored {
            Ignored::ByRule => "a rule of kind \"ignore\" matches its name".to_owned(),
            Ignored::NoRule => format!("no rule matches its name (preset {})", self.preset.name()),
        }
    }

    /// Finds the owner by the interface's hardware address, by digits of one in its name, or by the command's
    /// answers.
    fn mapped(&self, facts: &InterfaceFacts<'_>, answers: &Answers) -> Option<ContainerId> {
        let of_interface = facts.mac.and_then(|mac| owner_of_mac(&self.by_mac, mac));
        of_interface
            .or_else(|| self.by_digits(facts.name))
            .or_else(|| answers.of_interface(facts.name, facts.index))
            .or_else(|| facts.mac.and_then(|mac| owner_of_mac(answers.by_mac(), mac)))
            .cloned()
    }

    /// Virtuozzo builds names from the last four bytes of the container's hardware address, or from all six.
    fn by_digits(&self, name: &str) -> Option<&ContainerId> {
        let digits = name.strip_prefix("veth").or_else(|| name.strip_prefix("vme"))?.to_ascii_lowercase();
        matches!(digits.len(), 8 | 12).then_some(())?;
        only_owner(&self.by_mac, |mac| traffic_model::hex(mac).ends_with(&digits))
    }

    fn unresolved(&self, facts: &InterfaceFacts<'_>) -> String {
        let mac = facts.mac.map_or_else(String::new, |[a, b, c, d, e, f]| {
            format!(" or {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
        });
        let command = if self.has_command {
            ", and the command under [identities] has not named its container"
        } else {
            ""
        };
        format!(
            "neither NETIF= in Virtuozzo's files nor [[container]] in the configuration lists \
             {}{mac}{command}",
            facts.name
        )
    }
}

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
mod tests {
    use std::path::Path;

    use super::*;

    fn rules(config: &str) -> NameRules {
        let config = Config::parse(config, Path::new("t.toml")).unwrap();
        let vz = crate::ownership::vz_conf::parse(
            Path::new("777.conf"),
            "NETIF=\"ifname=eth0,mac=00:18:51:00:00:01,host_ifname=veth42001122,host_mac=FE:FF:FF:00:00:01\"\n",
        );
        NameRules::new(&config, &vz).unwrap()
    }

    fn role(rules: &NameRules, name: &str) -> String {
        match rules.role(&InterfaceFacts { index: 1, name, mac: None }, &Answers::default()) {
            Role::Container(id) => id.to_string(),
            Role::Shared => "shared".to_owned(),
            Role::Uplink => "node".to_owned(),
            Role::Ignored(_) => "-".to_owned(),
            Role::Unresolved { .. } => "?".to_owned(),
        }
    }

    #[test]
    fn presets_recognise_the_names_of_their_hosts() {
        let cases = [
            (
                "virtuozzo",
                "veth101.0=101 veth101.12=101 vme7.1=7 venet0=shared venet1=- veth42001122=777 \
                 vethdeadbeef=? veth42001122=777 vme001c42aabbcc=? veth0.0=? vme00.1=? veth101=- \
                 veth101.0a=- eth0=- vme.1=- br0=- vethx101.0=- lo=-",
            ),
            ("proxmox", "veth100i0=100 tap100i1=100 fwpr100p0=- fwln100i0=- fwbr100i0=- vmbr0=- veth101.0=-"),
            ("libvirt", "vnet3=? vnetx=- virbr0=- veth101.0=-"),
            ("lxc", "veth101=101 veth101.3=101 veth8fQ2xZ=? veth-x=- veth0=?"),
            ("nspawn", "ve-web=web vb-mail.1=mail.1 ve-=-"),
            ("custom", "veth101.0=- ve-web=- venet0=-"),
        ];
        for (preset, expected) in cases {
            let rules = rules(&format!("[host]\npreset = '{preset}'\n"));
            for pair in expected.split_whitespace() {
                let (name, expected) = pair.split_once('=').unwrap();
                assert_eq!(role(&rules, name), expected, "{preset}: {name}");
            }
        }
    }

    #[test]
    fn lists_override_own_rules_and_these_override_presets() {
        let rules = rules(
            "[[interfaces.rule]]\npattern = '^veth9[0-9]*\\.0$'\nkind = 'ignore'\n\
             [[interfaces.rule]]\npattern = '^ct-(?<container>[a-z]+)$'\nkind = 'container'\n\
             [[container]]\nid = 'db'\ninterfaces = ['veth900.0', 'odd0']\n",
        );
        let roles: Vec<_> =
            ["veth900.0", "veth901.0", "ct-web", "odd0", "veth1.0"].map(|name| role(&rules, name)).into();
        assert_eq!(roles, ["db", "-", "web", "db", "1"]);
    }

    #[test]
    fn digits_of_a_hardware_address_in_the_name_find_the_owner() {
        let rules = rules("[[container]]\nid = '9'\nmacs = ['00:1c:42:aa:bb:cc']\n");
        assert_eq!(role(&rules, "veth51000001"), "777", "the last four bytes of NETIF's mac=");
        assert_eq!(role(&rules, "vme001c42aabbcc"), "9");
        assert_eq!(role(&rules, "veth51000002"), "?");
    }

    #[test]
    fn a_number_and_a_uuid_name_one_container() {
        let uuid = "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f";
        let config = Config::parse("", Path::new("t.toml")).unwrap();
        let vz = crate::ownership::vz_conf::parse(Path::new(&format!("{uuid}.conf")), "VEID=\"101\"\n");
        let rules = NameRules::new(&config, &vz).unwrap();
        assert_eq!(role(&rules, "veth101.0"), uuid);
        assert_eq!(role(&rules, "veth102.0"), "102");
    }

    #[test]
    fn a_hardware_address_finds_the_owner_if_the_name_does_not() {
        let rules = rules("[[container]]\nid = '55'\nmacs = ['02:00:00:00:00:55']\n");
        let role =
            |name, mac| rules.role(&InterfaceFacts { index: 1, name, mac: Some(mac) }, &Answers::default());
        let id = |id| Role::Container(ContainerId::new(id).unwrap());
        assert_eq!(role("vethdeadbeef", [2, 0, 0, 0, 0, 0x55]), id("55"));
        // A bridge has the address of a port.
        assert_eq!(role("br0", [2, 0, 0, 0, 0, 0x55]), Role::Ignored(Ignored::NoRule));
        assert_eq!(role("vethdeadbeef", [0xfe, 0xff, 0xff, 0, 0, 1]), id("777"));
        // A name that contains the id decides.
        assert_eq!(role("veth101.0", [2, 0, 0, 0, 0, 0x55]), id("101"));
        let Role::Unresolved { reason } = role("vethdeadbeef", [1, 2, 3, 4, 5, 6]) else {
            panic!("resolved")
        };
        assert!(reason.contains("vethdeadbeef or 01:02:03:04:05:06"), "{reason}");
    }

    #[test]
    fn a_tap_has_its_machines_hardware_address_except_for_the_first_byte() {
        let rules = rules(
            "[host]\npreset = 'libvirt'\n[[container]]\nid = 'mail'\nmacs = ['525400aabb01']\n\
             [[container]]\nid = 'one'\nmacs = ['52:54:00:aa:bb:02']\n[[container]]\nid = 'two'\nmacs = ['02:54:00:aa:bb:02']\n",
        );
        let role = |mac| {
            rules.role(&InterfaceFacts { index: 1, name: "vnet3", mac: Some(mac) }, &Answers::default())
        };
        let mail = Role::Container(ContainerId::new("mail").unwrap());
        assert_eq!(role([0xfe, 0x54, 0, 0xaa, 0xbb, 1]), mail);
        assert_eq!(role([0x52, 0x54, 0, 0xaa, 0xbb, 1]), mail);
        // Another first byte belongs to another machine.
        assert!(matches!(role([0x06, 0x54, 0, 0xaa, 0xbb, 1]), Role::Unresolved { .. }));
        // Two machines match.
        assert!(matches!(role([0xfe, 0x54, 0, 0xaa, 0xbb, 2]), Role::Unresolved { .. }));
    }

    #[test]
    fn an_answer_of_the_command_is_valid_for_that_interface_only() {
        let rules = rules("[host]\npreset = 'libvirt'\n[identities]\ncommand = ['/bin/ids']\n");
        let known = HashMap::from([("vnet3".to_owned(), 7), ("vnet4".to_owned(), 8)]);
        let answers = Answers::parse("vnet3 web\n52:54:00:00:00:09 db\nvnet5 gone\n", &known, &known);
        assert_eq!(answers.problems(), [""; 0]);
        let role = |index, name, mac| rules.role(&InterfaceFacts { index, name, mac }, &answers);
        let id = |id| Role::Container(ContainerId::new(id).unwrap());
        assert_eq!(role(7, "vnet3", None), id("web"));
        let Role::Unresolved { reason } = role(9, "vnet3", None) else { panic!("the name went to another") };
        assert!(reason.ends_with("the command under [identities] has not named its container"), "{reason}");
        assert_eq!(role(8, "vnet4", Some([0xfe, 0x54, 0, 0, 0, 9])), id("db"));
    }

    #[test]
    fn named_uplinks_belong_to_the_node() {
        let rules = rules("[node]\nuplinks = ['eth0', 'veth1.0']\n");
        assert_eq!(["eth0", "veth1.0", "eth1"].map(|name| role(&rules, name)), ["node", "node", "-"]);
    }

    #[test]
    fn every_id_of_a_container_finds_it() {
        let uuid = "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f";
        let config = Config::parse("", Path::new("t.toml")).unwrap();
        let vz = crate::ownership::vz_conf::parse(Path::new(&format!("{uuid}.conf")), "VEID=\"101\"\n");
        let rules = NameRules::new(&config, &vz).unwrap();
        for typed in ["101", "{2B2A3D9C-6F2E-4A77-9C15-0A1B2C3D4E5F}"] {
            let ids = rules.all_ids(&ContainerId::new(typed).unwrap());
            assert_eq!(ids.iter().map(ContainerId::as_str).collect::<Vec<_>>(), [uuid, "101"], "{typed}");
        }
        assert_eq!(rules.all_ids(&ContainerId::new("102").unwrap()).len(), 1);
    }
}
