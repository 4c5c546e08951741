use std::path::Path;

use super::*;

/// A veth whose other end is in a container.
fn interface(index: u32, name: &str, mac: Option<[u8; 6]>) -> NetInterface {
    let (name, kind) = (name.to_owned(), "veth".to_owned());
    let peer_namespace = Some(3);
    NetInterface {
        index,
        name,
        kind,
        mac,
        peer_is_elsewhere: true,
        peer_namespace,
        ..NetInterface::default()
    }
}

fn rules(config: &str) -> NameRules {
    let config = Config::parse(config, Path::new("t.toml")).unwrap();
    let vz = crate::ownership::vz_conf::parse(
        Path::new("777.conf"),
        "NETIF=\"ifname=eth0,mac=00:18:51:00:00:01,host_ifname=veth42001122,host_mac=FE:FF:FF:00:00:01\"\n",
    );
    NameRules::new(&config, &vz).unwrap()
}

fn role(rules: &NameRules, name: &str) -> String {
    match rules.role(&interface(1, name, None), name, &Sources::default()) {
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
            "auto",
            "veth101.0=101 vme7.1=7 venet0=shared veth42001122=777 vethdeadbeef=? vethdeadbee=? veth0=? \
             veth1234567=? ve-web=web ve-customer8D2N=? ve-customer-with-a-long-name=customer-with-a-long-name \
             veth100i0=? eth0=?",
        ),
        (
            "virtuozzo",
            "veth101.0=101 veth101.12=101 vme7.1=7 venet0=shared venet1=- veth42001122=777 \
             vethdeadbeef=? veth42001122=777 vme001c42aabbcc=? veth0.0=? vme00.1=? veth101=- \
             veth101.0a=- eth0=- vme.1=- br0=- vethx101.0=- lo=-",
        ),
        ("proxmox", "veth100i0=100 tap100i1=100 fwpr100p0=- fwln100i0=- fwbr100i0=- vmbr0=- veth101.0=-"),
        ("libvirt", "vnet3=? vnetx=- virbr0=- veth101.0=-"),
        // A name of digits alone waits until it is known that nothing else is behind it.
        ("lxc", "veth101=? veth101.3=101 veth8fQ2xZ=? veth123456=? veth12345678=? veth-x=- veth0=?"),
        (
            "nspawn",
            "ve-web=web vb-mail.1=mail.1 ve-=- ve-customer8D2N=? vb-abcdefghijkl=? ve-abcdefghijk=abcdefghijk",
        ),
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
    let rules =
        rules("[host]\npreset = 'virtuozzo'\n[[container]]\nid = '55'\nmacs = ['02:00:00:00:00:55']\n");
    let role = |name, mac| rules.role(&interface(1, name, Some(mac)), name, &Sources::default());
    let id = |id| Role::Container(ContainerId::new(id).unwrap());
    assert_eq!(role("vethdeadbeef", [2, 0, 0, 0, 0, 0x55]), id("55"));
    // A bridge has the address of a port.
    assert_eq!(role("br0", [2, 0, 0, 0, 0, 0x55]), Role::Ignored(Ignored::NoRule));
    assert_eq!(role("vethdeadbeef", [0xfe, 0xff, 0xff, 0, 0, 1]), id("777"));
    // A name that contains the id decides.
    assert_eq!(role("veth101.0", [2, 0, 0, 0, 0, 0x55]), id("101"));
    let Role::Unresolved { reason } = role("vethdeadbeef", [1, 2, 3, 4, 5, 6]) else { panic!("resolved") };
    assert!(reason.contains("vethdeadbeef or 01:02:03:04:05:06"), "{reason}");
}

#[test]
fn a_tap_has_its_machines_hardware_address_except_for_the_first_byte() {
    let rules = rules(
        "[host]\npreset = 'libvirt'\n[[container]]\nid = 'mail'\nmacs = ['525400aabb01']\n\
         [[container]]\nid = 'one'\nmacs = ['52:54:00:aa:bb:02']\n[[container]]\nid = 'two'\nmacs = ['02:54:00:aa:bb:02']\n",
    );
    let role = |mac| rules.role(&interface(1, "vnet3", Some(mac)), "vnet3", &Sources::default());
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
    let sources = Sources { answers, ..Sources::default() };
    let role = |index, name, mac| rules.role(&interface(index, name, mac), name, &sources);
    let id = |id| Role::Container(ContainerId::new(id).unwrap());
    assert_eq!(role(7, "vnet3", None), id("web"));
    let Role::Unresolved { reason } = role(9, "vnet3", None) else { panic!("the name went to another") };
    assert!(reason.ends_with("the command under [identities] has not named its container"), "{reason}");
    assert_eq!(role(8, "vnet4", Some([0xfe, 0x54, 0, 0, 0, 9])), id("db"));
}

#[test]
fn named_uplinks_belong_to_the_node() {
    let rules = rules("[host]\npreset = 'virtuozzo'\n[node]\nuplinks = ['eth0', 'veth1.0']\n");
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
