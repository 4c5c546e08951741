//! Whose interface it is: from its name, and where the name does not tell, from what is written down.

use std::collections::HashMap;

use crate::{
    config::{Config, Pattern, RuleKind},
    snapshot::ContainerId,
    vz_conf::VzConf,
};

/// What is known of an interface.
#[derive(Clone, Copy, Debug)]
pub struct InterfaceFacts<'a> {
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
    /// Not ours.
    Ignored,
    /// Named like a container's, but nothing tells whose.
    Unresolved {
        /// What was looked for in vain, and what to do.
        reason: String,
    },
}

/// All rules, and all that is written down.
#[derive(Debug)]
pub struct Naming {
    rules: Vec<(Pattern, RuleKind)>,
    by_interface: HashMap<String, ContainerId>,
    by_mac: HashMap<[u8; 6], ContainerId>,
    aliases: HashMap<ContainerId, ContainerId>,
}

impl Naming {
    /// Puts rules and lists together; what the configuration says goes before Virtuozzo's files.
    ///
    /// # Errors
    /// Never with presets that compile; a preset that does not is a fault of ours.
    pub fn new(config: &Config, vz: &VzConf) -> anyhow::Result<Self> {
        let mut rules: Vec<_> = config.rules.iter().map(|rule| (rule.pattern.clone(), rule.kind)).collect();
        for (pattern, kind) in config.preset.rules() {
            rules.push((Pattern::new(pattern).map_err(anyhow::Error::msg)?, *kind));
        }
        let mut naming =
            Self { rules, by_interface: HashMap::new(), by_mac: HashMap::new(), aliases: vz.aliases() };
        for container in &vz.containers {
            for interface in &container.interfaces {
                if let Some(name) = &interface.host_name {
                    naming.by_interface.insert(name.clone(), container.id.clone());
                }
                for mac in [interface.host_mac, interface.mac].into_iter().flatten() {
                    naming.by_mac.insert(mac, container.id.clone());
                }
            }
        }
        for container in &config.containers {
            for name in &container.interfaces {
                naming.by_interface.insert(name.clone(), container.id.clone());
            }
            for mac in &container.macs {
                naming.by_mac.insert(*mac, container.id.clone());
            }
        }
        Ok(naming)
    }

    /// What this interface is.
    pub fn role(&self, facts: &InterfaceFacts<'_>) -> Role {
        if let Some(id) = self.by_interface.get(facts.name) {
            return Role::Container(id.clone());
        }
        let matching =
            self.rules.iter().find_map(|(pattern, kind)| pattern.matches(facts.name).map(|id| (id, *kind)));
        match matching {
            Some((_, RuleKind::Ignore)) => Role::Ignored,
            Some((_, RuleKind::Shared)) => Role::Shared,
            Some((found, RuleKind::Container)) => match found {
                Some(id) => ContainerId::new(id).map_or_else(
                    |error| Role::Unresolved { reason: error.to_string() },
                    |id| Role::Container(self.aliases.get(&id).cloned().unwrap_or(id)),
                ),
                None => self.by_mac(facts).unwrap_or_else(|| Role::Unresolved { reason: unresolved(facts) }),
            },
            // Not by its hardware address: a bridge takes that of a port, and a VLAN interface its parent's.
            None => Role::Ignored,
        }
    }

    /// By the interface's hardware address, or by the container's that its name was made from: Virtuozzo takes the last
    /// four bytes, or all six, as digits.
    fn by_mac(&self, facts: &InterfaceFacts<'_>) -> Option<Role> {
        let of_interface = facts.mac.and_then(|mac| self.by_mac.get(&mac));
        let of_name = || {
            let digits = facts.name.strip_prefix("veth").or_else(|| facts.name.strip_prefix("vme"))?;
            let ends_so =
                |mac: &[u8; 6]| matches!(digits.len(), 8 | 12) && crate::snapshot::hex(mac).ends_with(digits);
            let mut owners = self.by_mac.iter().filter(|(mac, _)| ends_so(mac)).map(|(_, id)| id);
            let first = owners.next()?;
            // Two containers whose addresses end alike: neither is a guess worth billing on.
            owners.all(|other| other == first).then_some(first)
        };
        of_interface.or_else(of_name).cloned().map(Role::Container)
    }
}

fn unresolved(facts: &InterfaceFacts<'_>) -> String {
    let mac = facts.mac.map_or_else(String::new, |[a, b, c, d, e, f]| {
        format!(" or {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    });
    format!(
        "no NETIF= of Virtuozzo's files and no [[container]] of the configuration has {}{mac}",
        facts.name
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn naming(config: &str) -> Naming {
        let config = Config::parse(config, Path::new("t.toml")).unwrap();
        let vz = crate::vz_conf::parse(
            Path::new("777.conf"),
            "NETIF=\"ifname=eth0,mac=00:18:51:00:00:01,host_ifname=veth42001122,host_mac=FE:FF:FF:00:00:01\"\n",
        );
        Naming::new(&config, &vz).unwrap()
    }

    fn role(naming: &Naming, name: &str) -> String {
        match naming.role(&InterfaceFacts { name, mac: None }) {
            Role::Container(id) => id.to_string(),
            Role::Shared => "shared".to_owned(),
            Role::Ignored => "-".to_owned(),
            Role::Unresolved { .. } => "?".to_owned(),
        }
    }

    #[test]
    fn names_of_each_kind_of_host() {
        let cases = [
            (
                "virtuozzo",
                "veth101.0=101 veth101.12=101 vme7.1=7 venet0=shared venet1=- veth42001122=777 vethdeadbeef=? \
                 vme001c42aabbcc=? veth101=- veth101.0a=- eth0=- vme.1=- br0=- vethx101.0=- lo=-",
            ),
            ("proxmox", "veth100i0=100 tap100i1=100 fwpr100p0=- fwln100i0=- fwbr100i0=- vmbr0=- veth101.0=-"),
            ("libvirt", "vnet3=? vnetx=- virbr0=- veth101.0=-"),
            ("lxc", "veth101=101 veth101.3=101 vethABC=-"),
            ("nspawn", "ve-web=web vb-mail.1=mail.1 ve-=-"),
            ("custom", "veth101.0=- ve-web=- venet0=-"),
        ];
        for (preset, expected) in cases {
            let naming = naming(&format!("[interfaces]\npreset = '{preset}'\n"));
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
        let vz = crate::vz_conf::parse(Path::new(&format!("{uuid}.conf")), "VEID=\"101\"\n");
        let naming = Naming::new(&config, &vz).unwrap();
        assert_eq!(role(&naming, "veth101.0"), uuid);
        assert_eq!(role(&naming, "veth102.0"), "102");
    }

    #[test]
    fn a_hardware_address_tells_where_the_name_does_not() {
        let naming = naming("[[container]]\nid = '55'\nmacs = ['02:00:00:00:00:55']\n");
        let role = |name, mac| naming.role(&InterfaceFacts { name, mac: Some(mac) });
        let id = |id| Role::Container(ContainerId::new(id).unwrap());
        assert_eq!(role("vethdeadbeef", [2, 0, 0, 0, 0, 0x55]), id("55"));
        // A bridge takes the address of a port.
        assert_eq!(role("br0", [2, 0, 0, 0, 0, 0x55]), Role::Ignored);
        assert_eq!(role("vethdeadbeef", [0xfe, 0xff, 0xff, 0, 0, 1]), id("777"));
        // The name decides where it can.
        assert_eq!(role("veth101.0", [2, 0, 0, 0, 0, 0x55]), id("101"));
        let Role::Unresolved { reason } = role("vethdeadbeef", [1, 2, 3, 4, 5, 6]) else {
            panic!("resolved")
        };
        assert!(reason.contains("vethdeadbeef or 01:02:03:04:05:06"), "{reason}");
    }
}
