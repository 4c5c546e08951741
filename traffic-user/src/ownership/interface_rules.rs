//! Whose interface it is: from its name, and where the name does not tell, from what is written down or answered.

use std::collections::{HashMap, HashSet};

use traffic_model::ContainerId;

use crate::{
    config::{Config, Pattern, Preset, RuleKind},
    ownership::{identity_command::Answers, vz_conf::VzConf},
};

/// What is known of an interface.
#[derive(Clone, Copy, Debug)]
pub struct InterfaceFacts<'a> {
    /// Its index: a name can go to another interface, an index does not.
    pub index: u32,
    /// Its name.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
}

/// What an interface is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// One container's or machine's.
    Container(ContainerId),
    /// Shared by containers, told apart by local address.
    Shared,
    /// Where the node's own traffic passes, beside that of others.
    Uplink,
    /// Not ours.
    Ignored(Ignored),
    /// Named like a container's, but nothing tells whose.
    Unresolved {
        /// What was looked for in vain, and what to do.
        reason: String,
    },
}

/// Why an interface is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// A rule says so.
    ByRule,
    /// No rule knows its name.
    NoRule,
}

/// All rules, and all that is written down.
#[derive(Debug)]
pub struct InterfaceRules {
    rules: Vec<(Pattern, RuleKind)>,
    preset: Preset,
    uplinks: HashSet<String>,
    has_command: bool,
    by_interface: HashMap<String, ContainerId>,
    by_mac: HashMap<[u8; 6], ContainerId>,
    aliases: HashMap<ContainerId, ContainerId>,
}

impl InterfaceRules {
    /// Puts rules and lists together; what the configuration says goes before Virtuozzo's files.
    ///
    /// # Errors
    /// Never with presets that compile; a preset that does not is a fault of ours.
    pub fn new(config: &Config, vz: &VzConf) -> anyhow::Result<Self> {
        let mut rules: Vec<_> = config.rules.iter().map(|rule| (rule.pattern.clone(), rule.kind)).collect();
        for (pattern, kind) in config.preset.rules() {
            rules.push((Pattern::new(pattern).map_err(anyhow::Error::msg)?, *kind));
        }
        let mut naming = Self {
            rules,
            preset: config.preset,
            uplinks: config.uplinks.iter().cloned().collect(),
            has_command: config.identity_command.is_some(),
            by_interface: HashMap::new(),
            by_mac: HashMap::new(),
            aliases: vz.aliases(),
        };
        for container in &vz.containers {
            let id = naming.main_id(container.id.clone());
            for interface in &container.interfaces {
                if let Some(name) = &interface.host_name {
                    naming.by_interface.insert(name.clone(), id.clone());
                }
                for mac in [interface.host_mac, interface.mac].into_iter().flatten() {
                    naming.by_mac.insert(mac, id.clone());
                }
            }
        }
        for container in &config.containers {
            let id = naming.main_id(container.id.clone());
            for name in &container.interfaces {
                naming.by_interface.insert(name.clone(), id.clone());
            }
            for mac in &container.macs {
                naming.by_mac.insert(*mac, id.clone());
            }
        }
        Ok(naming)
    }

    /// The id that a container is counted under, of all that it goes by.
    pub fn main_id(&self, id: ContainerId) -> ContainerId {
        self.aliases.get(&id).cloned().unwrap_or(id)
    }

    /// All ids that a container goes by, the one it is counted under first.
    pub fn all_ids(&self, id: &ContainerId) -> Vec<ContainerId> {
        let main = self.main_id(id.clone());
        let mut others: Vec<_> =
            self.aliases.iter().filter(|(_, to)| **to == main).map(|(from, _)| from.clone()).collect();
        others.sort();
        std::iter::once(main).chain(others).collect()
    }

    /// What this interface is; `answers` are those of the configured command.
    pub fn role(&self, facts: &InterfaceFacts<'_>, answers: &Answers) -> Role {
        if self.uplinks.contains(facts.name) {
            return Role::Uplink;
        }
        if let Some(id) = self.by_interface.get(facts.name) {
            return Role::Container(id.clone());
        }
        let matching =
            self.rules.iter().find_map(|(pattern, kind)| pattern.matches(facts.name).map(|id| (id, *kind)));
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
            // Not by its hardware address: a bridge takes that of a port, and a VLAN interface its parent's.
            None => Role::Ignored(Ignored::NoRule),
        }
    }

    /// Why an interface is not watched, for people.
    pub fn why_ignored(&self, ignored: Ignored) -> String {
        match ignored {
            Ignored::ByRule => "a rule says to ignore it".to_owned(),
            Ignored::NoRule => format!("no rule knows its name (preset {})", self.preset.name()),
        }
    }

    /// By the interface's hardware address, by the container's that its name was made from, or by the command.
    fn mapped(&self, facts: &InterfaceFacts<'_>, answers: &Answers) -> Option<ContainerId> {
        let of_interface = facts.mac.and_then(|mac| owner_of_mac(&self.by_mac, mac));
        of_interface
            .or_else(|| self.by_digits(facts.name))
            .or_else(|| answers.of_interface(facts.name, facts.index))
            .or_else(|| facts.mac.and_then(|mac| owner_of_mac(answers.by_mac(), mac)))
            .cloned()
    }

    /// Virtuozzo takes the last four bytes of the container's hardware address, or all six, as digits of the name.
    fn by_digits(&self, name: &str) -> Option<&ContainerId> {
        let digits = name.strip_prefix("veth").or_else(|| name.strip_prefix("vme"))?.to_ascii_lowercase();
        matches!(digits.len(), 8 | 12).then_some(())?;
        only_owner(&self.by_mac, |mac| traffic_model::hex(mac).ends_with(&digits))
    }

    fn unresolved(&self, facts: &InterfaceFacts<'_>) -> String {
        let mac = facts.mac.map_or_else(String::new, |[a, b, c, d, e, f]| {
            format!(" or {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
        });
        let command =
            if self.has_command { ", and the command under [identities] has not told it" } else { "" };
        format!(
            "no NETIF= of Virtuozzo's files and no [[container]] of the configuration has {}{mac}{command}",
            facts.name
        )
    }
}

/// Whose hardware address it is. A tap has its machine's with the first byte raised to fe, as libvirt sets it so that a
/// bridge never takes it for its own.
fn owner_of_mac(owners: &HashMap<[u8; 6], ContainerId>, mac: [u8; 6]) -> Option<&ContainerId> {
    owners.get(&mac).or_else(|| {
        (mac[0] == 0xfe).then_some(())?;
        only_owner(owners, |machine| machine[1..] == mac[1..])
    })
}

/// The owner of the addresses that match. Two owners: neither is a guess worth billing on.
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

    fn naming(config: &str) -> InterfaceRules {
        let config = Config::parse(config, Path::new("t.toml")).unwrap();
        let vz = crate::ownership::vz_conf::parse(
            Path::new("777.conf"),
            "NETIF=\"ifname=eth0,mac=00:18:51:00:00:01,host_ifname=veth42001122,host_mac=FE:FF:FF:00:00:01\"\n",
        );
        InterfaceRules::new(&config, &vz).unwrap()
    }

    fn role(naming: &InterfaceRules, name: &str) -> String {
        match naming.role(&InterfaceFacts { index: 1, name, mac: None }, &Answers::default()) {
            Role::Container(id) => id.to_string(),
            Role::Shared => "shared".to_owned(),
            Role::Uplink => "node".to_owned(),
            Role::Ignored(_) => "-".to_owned(),
            Role::Unresolved { .. } => "?".to_owned(),
        }
    }

    #[test]
    fn names_of_each_kind_of_host() {
        let cases = [
            (
                "virtuozzo",
                "veth101.0=101 veth101.12=101 vme7.1=7 venet0=shared venet1=- veth42001122=777 vethdeadbeef=? \
                 veth42001122=777 vme001c42aabbcc=? veth0.0=? vme00.1=? veth101=- veth101.0a=- eth0=- vme.1=- br0=- vethx101.0=- lo=-",
            ),
            ("proxmox", "veth100i0=100 tap100i1=100 fwpr100p0=- fwln100i0=- fwbr100i0=- vmbr0=- veth101.0=-"),
            ("libvirt", "vnet3=? vnetx=- virbr0=- veth101.0=-"),
            ("lxc", "veth101=101 veth101.3=101 veth8fQ2xZ=? veth-x=- veth0=?"),
            ("nspawn", "ve-web=web vb-mail.1=mail.1 ve-=-"),
            ("custom", "veth101.0=- ve-web=- venet0=-"),
        ];
        for (preset, expected) in cases {
            let naming = naming(&format!("[host]\npreset = '{preset}'\n"));
            for pair in expected.split_whitespace() {
                let (name, expected) = pair.split_once('=').unwrap();
                assert_eq!(role(&naming, name), expected, "{preset}: {name}");
            }
        }
    }

    #[test]
    fn own_rules_go_before_the_presets_and_lists_before_all() {
        let naming = naming(
            "[[interfaces.rule]]\npattern = '^veth9[0-9]*\\.0$'\nkind = 'ignore'\n\
             [[interfaces.rule]]\npattern = '^ct-(?<container>[a-z]+)$'\nkind = 'container'\n\
             [[container]]\nid = 'db'\ninterfaces = ['veth900.0', 'odd0']\n",
        );
        let roles: Vec<_> =
            ["veth900.0", "veth901.0", "ct-web", "odd0", "veth1.0"].map(|name| role(&naming, name)).into();
        assert_eq!(roles, ["db", "-", "web", "db", "1"]);
    }

    #[test]
    fn a_name_made_from_the_containers_hardware_address_tells_too() {
        let naming = naming("[[container]]\nid = '9'\nmacs = ['00:1c:42:aa:bb:cc']\n");
        assert_eq!(role(&naming, "veth51000001"), "777", "the last four bytes of NETIF's mac=");
        assert_eq!(role(&naming, "vme001c42aabbcc"), "9");
        assert_eq!(role(&naming, "veth51000002"), "?");
    }

    #[test]
    fn a_number_and_a_uuid_are_one_container() {
        let uuid = "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f";
        let config = Config::parse("", Path::new("t.toml")).unwrap();
        let vz = crate::ownership::vz_conf::parse(Path::new(&format!("{uuid}.conf")), "VEID=\"101\"\n");
        let naming = InterfaceRules::new(&config, &vz).unwrap();
        assert_eq!(role(&naming, "veth101.0"), uuid);
        assert_eq!(role(&naming, "veth102.0"), "102");
    }

    #[test]
    fn a_hardware_address_tells_where_the_name_does_not() {
        let naming = naming("[[container]]\nid = '55'\nmacs = ['02:00:00:00:00:55']\n");
        let role =
            |name, mac| naming.role(&InterfaceFacts { index: 1, name, mac: Some(mac) }, &Answers::default());
        let id = |id| Role::Container(ContainerId::new(id).unwrap());
        assert_eq!(role("vethdeadbeef", [2, 0, 0, 0, 0, 0x55]), id("55"));
        // A bridge takes the address of a port.
        assert_eq!(role("br0", [2, 0, 0, 0, 0, 0x55]), Role::Ignored(Ignored::NoRule));
        assert_eq!(role("vethdeadbeef", [0xfe, 0xff, 0xff, 0, 0, 1]), id("777"));
        // The name decides where it can.
        assert_eq!(role("veth101.0", [2, 0, 0, 0, 0, 0x55]), id("101"));
        let Role::Unresolved { reason } = role("vethdeadbeef", [1, 2, 3, 4, 5, 6]) else {
            panic!("resolved")
        };
        assert!(reason.contains("vethdeadbeef or 01:02:03:04:05:06"), "{reason}");
    }

    #[test]
    fn a_tap_has_its_machines_hardware_address_but_for_the_first_byte() {
        let naming = naming(
            "[host]\npreset = 'libvirt'\n[[container]]\nid = 'mail'\nmacs = ['525400aabb01']\n\
             [[container]]\nid = 'one'\nmacs = ['52:54:00:aa:bb:02']\n[[container]]\nid = 'two'\nmacs = ['02:54:00:aa:bb:02']\n",
        );
        let role = |mac| {
            naming.role(&InterfaceFacts { index: 1, name: "vnet3", mac: Some(mac) }, &Answers::default())
        };
        let mail = Role::Container(ContainerId::new("mail").unwrap());
        assert_eq!(role([0xfe, 0x54, 0, 0xaa, 0xbb, 1]), mail);
        assert_eq!(role([0x52, 0x54, 0, 0xaa, 0xbb, 1]), mail);
        // Any other first byte is another machine's.
        assert!(matches!(role([0x06, 0x54, 0, 0xaa, 0xbb, 1]), Role::Unresolved { .. }));
        // Two machines could have it.
        assert!(matches!(role([0xfe, 0x54, 0, 0xaa, 0xbb, 2]), Role::Unresolved { .. }));
    }

    #[test]
    fn what_the_command_answers_holds_for_that_interface_only() {
        let naming = naming("[host]\npreset = 'libvirt'\n[identities]\ncommand = ['/bin/ids']\n");
        let known = HashMap::from([("vnet3".to_owned(), 7), ("vnet4".to_owned(), 8)]);
        let answers = Answers::parse("vnet3 web\n52:54:00:00:00:09 db\nvnet5 gone\n", &known, &known);
        assert_eq!(answers.complaints(), [""; 0]);
        let role = |index, name, mac| naming.role(&InterfaceFacts { index, name, mac }, &answers);
        let id = |id| Role::Container(ContainerId::new(id).unwrap());
        assert_eq!(role(7, "vnet3", None), id("web"));
        let Role::Unresolved { reason } = role(9, "vnet3", None) else { panic!("the name went to another") };
        assert!(reason.ends_with("the command under [identities] has not told it"), "{reason}");
        assert_eq!(role(8, "vnet4", Some([0xfe, 0x54, 0, 0, 0, 9])), id("db"));
    }

    #[test]
    fn the_uplinks_named_are_the_nodes() {
        let naming = naming("[node]\nuplinks = ['eth0', 'veth1.0']\n");
        assert_eq!(["eth0", "veth1.0", "eth1"].map(|name| role(&naming, name)), ["node", "node", "-"]);
    }

    #[test]
    fn every_id_finds_the_container() {
        let uuid = "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f";
        let config = Config::parse("", Path::new("t.toml")).unwrap();
        let vz = crate::ownership::vz_conf::parse(Path::new(&format!("{uuid}.conf")), "VEID=\"101\"\n");
        let naming = InterfaceRules::new(&config, &vz).unwrap();
        for typed in ["101", "{2B2A3D9C-6F2E-4A77-9C15-0A1B2C3D4E5F}"] {
            let ids = naming.all_ids(&ContainerId::new(typed).unwrap());
            assert_eq!(ids.iter().map(ContainerId::as_str).collect::<Vec<_>>(), [uuid, "101"], "{typed}");
        }
        assert_eq!(naming.all_ids(&ContainerId::new("102").unwrap()).len(), 1);
    }
}
