//! Tests of the configuration as a whole.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("t.toml")).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.limits, Limits { containers: 2048, interfaces: 4096, classes: 16, addresses: 65_536 });
    assert_eq!(config.class_order, ClassOrder::Virtuozzo);
    assert_eq!(config.attach, AttachSetting::Auto);
    assert_eq!(config.preset, Preset::Auto);
    assert_eq!(config.drain_interval, Duration::from_secs(60));
    assert_eq!(config.class_file_candidates().len(), 3);
    assert!(!config.node.is_empty());
    assert_eq!(config.api, None);
    assert!(!config.skb_mark);
}

/// The file of the packages, in which every key is a comment: without a space behind the `#`.
const PACKAGED: &str = include_str!("../../conf/trafctl.toml");

#[test]
fn the_file_of_the_packages_changes_nothing() {
    let of_package = Config::parse(PACKAGED, Path::new("trafctl.toml")).unwrap();
    assert_eq!(format!("{of_package:?}"), format!("{:?}", parse("").unwrap()));
}

#[test]
fn each_key_in_the_file_of_the_packages_can_be_used() {
    let is_key = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && *line != "#";
    let keys: Vec<&str> = PACKAGED.lines().filter(is_key).map(|line| &line[1..]).collect();
    let config = parse(&keys.join("\n")).unwrap();
    let default = parse("").unwrap();
    assert_eq!((config.limits, config.preset), (default.limits, default.preset));
    assert_eq!((config.class_order, config.attach), (default.class_order, default.attach));
    assert_eq!((config.drain_interval, config.retention), (default.drain_interval, default.retention));
    assert_eq!((config.calendar, config.skb_mark), (default.calendar, default.skb_mark));
    assert_eq!((config.containers.len(), config.rules.len(), config.uplinks.len()), (1, 1, 1));
    assert!(config.api.is_some() && config.identity_command.is_some());
}

#[test]
fn the_pages_show_the_defaults() {
    for page in [include_str!("../../../docs/configuration.md"), include_str!("../../../docs/ledger.md")] {
        let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        assert_eq!(parse(block).unwrap(), parse("").unwrap());
    }
}

#[test]
fn every_key_reaches_its_field() {
    let config = parse(
        "class_file = '/c'\nclass_order = 'longest-prefix'\nnode = 'n1'\nattach = 'clsact'\nvz_conf_dir = \
         '/v'\n\
         [limits]\ncontainers = 3\ninterfaces = 4\nclasses = 5\naddresses = 6\n\
         [host]\npreset = 'proxmox'\n[identities]\ncommand = ['/bin/ids', '-a']\ntimeout = \
         '3s'\n[[interfaces.rule]]\npattern = '^x(?<container>.+)$'\nkind = 'container'\n\
         [[container]]\nid = '{ABCDEF01-2345-6789-abcd-ef0123456789}'\nname = 'shop'\ninterfaces = ['a']\nmacs = \
         ['00:18:51:AA:bb:cc']\n\
         addresses = ['10.0.0.5', '2001:db8:5::/64']\n[drain]\ninterval = '1m 30s'\n\
         [shaping]\nenabled = true\n\
         [ledger]\nenabled = false\ntime_zone = 'Europe/Berlin'\nbilling_day = 15\n\
         [retention]\nfive_minutes = '40d'\nhours = '25 months'\n\
         [api]\nlisten = 'unix:/run/a.sock'\n",
    )
    .unwrap();
    assert_eq!(config.class_file_candidates(), [PathBuf::from("/c")]);
    assert_eq!((config.class_order, config.attach), (ClassOrder::LongestPrefix, AttachSetting::Clsact));
    assert_eq!((config.node.as_str(), config.vz_conf_dir.as_path()), ("n1", Path::new("/v")));
    assert_eq!(config.limits, Limits { containers: 3, interfaces: 4, classes: 5, addresses: 6 });
    assert_eq!((config.preset, config.rules.len()), (Preset::Proxmox, 1));
    let words = vec!["/bin/ids".to_owned(), "-a".to_owned()];
    assert_eq!(config.identity_command, Some(IdentityCommand { words, timeout: Duration::from_secs(3) }));
    let container = &config.containers[0];
    assert_eq!(container.id.as_str(), "abcdef01-2345-6789-abcd-ef0123456789");
    assert_eq!(container.name.as_deref(), Some("shop"));
    assert_eq!(container.macs, [[0, 0x18, 0x51, 0xaa, 0xbb, 0xcc]]);
    assert_eq!(
        container.addresses,
        ["10.0.0.5/32".parse().unwrap(), "2001:db8:5::/64".parse::<IpNet>().unwrap()]
    );
    assert_eq!(config.drain_interval, Duration::from_secs(90));
    assert!(config.skb_mark);
    assert_eq!((config.ledger_enabled, config.calendar.billing_day()), (false, 15));
    assert_eq!(config.calendar.zone_name(), "Europe/Berlin");
    let retention = config.retention;
    assert_eq!((retention.five_minutes_days, retention.hours_months), (40, 25));
    assert_eq!(config.api, Some(Listen::Unix("/run/a.sock".into())));
}

#[test]
fn the_node_is_a_name_or_a_table() {
    let config = parse("[node]\nuplinks = ['eth0', 'eth1']\nname = 'n2'\n").unwrap();
    assert_eq!(
        (config.node.as_str(), config.uplinks.as_slice()),
        ("n2", &["eth0", "eth1"].map(String::from)[..])
    );
    let config = parse("node = 'n1'\n").unwrap();
    assert_eq!((config.node.as_str(), config.uplinks.len()), ("n1", 0));
    assert!(!parse("[node]\nuplinks = ['eth0']\n").unwrap().node.is_empty());
}

#[test]
fn attach_is_a_method_or_a_table() {
    let parsed = |text: &str| parse(text).map(|config| (config.attach, config.expedite)).unwrap();
    assert_eq!(parsed(""), (AttachSetting::Auto, true));
    assert_eq!(parsed("attach = 'tcx'\n"), (AttachSetting::Tcx, true));
    assert_eq!(parsed("[attach]\nmethod = 'tcx'\n"), (AttachSetting::Tcx, true));
    assert_eq!(parsed("[attach]\nexpedite = false\n"), (AttachSetting::Auto, false));
    assert_eq!(
        parsed("[attach]\nmethod = 'clsact'\nexpedite = false\n[limits]\nclasses = 2\n"),
        (AttachSetting::Clsact, false)
    );
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let cases = [
        (
            "\nnonsense = 1\n",
            "t.toml:2:1: unknown field `nonsense`, expected one of `class_file`, `class_order`, `classes`, `node`, \
             `attach`, `shaping`, `vz_conf_dir`, ",
        ),
        ("attach = 'xdp'\n", "t.toml:1:10: unknown variant `xdp`"),
        (
            "attach = 3\n",
            "t.toml:1:10: invalid type: integer `3`, expected the method, or a table with `method`",
        ),
        ("[attach]\nmethod = 'xdp'\n", "t.toml:2:10: unknown variant `xdp`"),
        ("[attach]\nspeed = 1\n", "t.toml:2:1: unknown field `speed`, expected `method` or `expedite`"),
        ("[limits]\n\nclasses = 256\n", "t.toml:3:11: classes = 256 is out of range; write 1 to 255"),
        ("[limits]\ncontainers = -1\n", "t.toml:2:14: containers = -1 is out of range; write 1 to 1000000"),
        (
            "[limits]\naddresses = 4294967296\n",
            "t.toml:2:13: addresses = 4294967296 is out of range; write 1 to 16000000",
        ),
        (
            "[limits]\ninterfaces = 99999999999999999999\n",
            "t.toml:2:14: interfaces = 99999999999999999999 is out of range; write 2 to 1000000",
        ),
        ("[[container]]\nid = 'a b'\n", "t.toml:2:6: container id \"a b\" is not usable"),
        ("[[container]]\nid = '1'\naddresses = ['10.0.0.1', '10.0.0.1/24']\n", "t.toml:3:26: "),
        (
            "[[container]]\nid = '1'\nname = \"a\\u0007b\"\n",
            "t.toml:3:8: \"a\\u{7}b\" is not a name; write 1 to 255 bytes in one line",
        ),
        (
            "[[container]]\nid = '1'\nmacs = ['00:11']\n",
            "t.toml:3:9: \"00:11\" is not a hardware address; write 00:18:51:aa:bb:cc",
        ),
        (
            "[[container]]\nid = '1'\ninterfaces = ['far-too-long-for-a-name']\n",
            "t.toml:3:15: \"far-too-long-for-a-name\" is not an interface name; write 1 to 15",
        ),
        (
            "[[container]]\nid = '1'\ninterfaces = ['a0']\n[[container]]\nid = '2'\ninterfaces = ['a0']\n",
            "t.toml:6:15: a0 already belongs to container 1; name it",
        ),
        (
            "[[interfaces.rule]]\npattern = '^a$'\nkind = 'container'\n",
            "t.toml:2:11: a pattern of kind \"container\" has no group `container`; add one",
        ),
        ("[[interfaces.rule]]\npattern = '('\nkind = 'ignore'\n", "t.toml:2:11: "),
        ("[drain]\ninterval = '50ms'\n", "t.toml:2:12: \"50ms\" is too short; write 100ms to 24h"),
        ("[drain]\ninterval = '25h'\n", "t.toml:2:12: \"25h\" is too long; write 100ms to 24h"),
        (
            "[drain]\ninterval = '1000000000h'\n",
            "t.toml:2:12: \"1000000000h\" is too long; write 100ms to 24h",
        ),
        ("[drain]\ninterval = '-5s'\n", "t.toml:2:12: \"-5s\" is negative; write 100ms to 24h"),
        (
            "[identities]\ntimeout = '99999999999999999999s'\n",
            "t.toml:2:11: \"99999999999999999999s\" is too long; write 1ms to 1m",
        ),
        (
            "[retention]\nfive_minutes = '1000000000000h'\n",
            "t.toml:2:16: \"1000000000000h\" is too long; write a whole number of days from 1d to 65535d",
        ),
        (
            "[ledger]\nbilling_day = 300\n",
            "t.toml:2:15: billing_day = 300 is not a day of a month; write 1 to 31",
        ),
        (
            "[ledger]\nbilling_day = -1\n",
            "t.toml:2:15: billing_day = -1 is not a day of a month; write 1 to 31",
        ),
        ("[drain]\ninterval = 'soon'\n", "t.toml:2:12: \"soon\" is not a duration; write "),
        (
            "[ledger]\nbilling_day = 32\n",
            "t.toml:2:15: billing_day = 32 is not a day of a month; write 1 to 31",
        ),
        (
            "[retention]\nfive_minutes = '0d'\n",
            "t.toml:2:16: \"0d\" is out of range; write a whole number of days from 1d to 65535d",
        ),
        ("[retention]\nfive_minutes = '35'\n", "t.toml:2:16: \"35\" is not a whole number of days; write "),
        ("[retention]\nhours = '2 years'\n", "t.toml:2:9: \"2 years\" is not a number of months; write "),
        ("[retention]\nhours = '70000 months'\n", "t.toml:2:9: \"70000 months\" is out of range; write "),
        ("[retention]\ndays = '1d'\n", "t.toml:2:1: unknown field `days`"),
        ("[api]\nlisten = '0.0.0.0:9177'\n", "t.toml:2:10: 0.0.0.0 is not a loopback address"),
        ("[api]\nport = 1\n", "t.toml:2:1: unknown field `port`"),
        ("[shaping]\nenabled = 'yes'\n", "t.toml:2:11: invalid type: string \"yes\", expected a boolean"),
        ("[mark]\nenabled = 'yes'\n", "t.toml:2:11: invalid type: string \"yes\", expected a boolean"),
        ("[shaping]\nshift = 5\n", "t.toml:2:1: unknown field `shift`"),
        (
            "[shaping]\nenabled = true\n\n[mark]\nenabled = true\n",
            "t.toml:4:1: [mark] is the former name of [shaping], and the file has both; remove [mark]",
        ),
        ("node = ''\n", "t.toml:1:8: the node's name is empty"),
        ("[node]\nname = ''\n", "t.toml:2:8: the node's name is empty"),
        ("[node]\nuplinks = ['eth0', '']\n", "t.toml:2:20: \"\" is not an interface name"),
        ("[node]\nuplink = 'eth0'\n", "t.toml:2:1: unknown field `uplink`"),
        ("node = 3\n", "t.toml:1:8: invalid type: integer `3`, expected the node's name, or a table"),
        ("[identities]\ncommand = ['ids']\n", "t.toml:2:11: the command has no absolute path; write ["),
        ("[identities]\ntimeout = '2m'\n", "t.toml:2:11: \"2m\" is too long; write 1ms to 1m"),
        ("[identities]\ntimeout = '0s'\n", "t.toml:2:11: \"0s\" is too short; write 1ms to 1m"),
        ("[[container]]\nid = '0'\n", "t.toml:2:6: container id \"0\" is not usable: it is the node itself"),
        (
            "[[interfaces.rule]]\npattern = '^v(?<container>.)$'\nkind = 'mapped'\n",
            "t.toml:2:11: only a pattern of kind \"container\" may have a group",
        ),
        (
            "[[container]]\nid = '1'\nmacs = ['00-18-51-aa-bb-cc']\n[[container]]\nid = '2'\nmacs = \
             ['001851AABBCC']\n",
            "t.toml:6:9: 001851AABBCC already belongs to container 1",
        ),
        ("a = \n", "t.toml:1:"),
    ];
    for (text, expected) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(expected), "{text:?} gave {error:?}");
        assert!(!error.contains('\n'), "{error:?} is one line");
    }
}

#[test]
fn the_former_mark_table_still_works_with_a_hint() {
    let config = parse("[mark]\nenabled = true\n").unwrap();
    assert!(config.skb_mark);
    assert_eq!(
        config.renamed_key_hint(),
        Some("[mark] in the configuration is the former name of [shaping]; rename it")
    );
    let config = parse("[shaping]\nenabled = true\n").unwrap();
    assert_eq!((config.skb_mark, config.renamed_key_hint()), (true, None));
    assert!(!parse("[mark]\n").unwrap().skb_mark);
}

#[test]
fn a_named_file_must_exist_and_the_cause_is_printed_once() {
    let error = Config::load(Some(Path::new("/nonexistent/t.toml"))).unwrap_err();
    assert_eq!(
        format!("{:#}", anyhow::Error::from(error)),
        "cannot read the configuration /nonexistent/t.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn limits_that_differ_from_those_in_force_are_named_with_both_values() {
    let in_force = Limits { containers: 3, interfaces: 4, classes: 5, addresses: 6 };
    assert_eq!(in_force.difference(&in_force), None);
    let wanted = Limits { containers: 30, interfaces: 4, classes: 5, addresses: 60 };
    assert_eq!(
        wanted.difference(&in_force).as_deref(),
        Some("containers = 30 (3 in force), addresses = 60 (6 in force)")
    );
}

#[test]
fn a_zone_that_nobody_knows_keeps_nothing_from_being_counted() {
    let config = parse("[ledger]\ntime_zone = 'Europe/Nowhere'\nbilling_day = 7\n").unwrap();
    let calendar = &config.calendar;
    assert_eq!((calendar.zone_name(), calendar.billing_day()), ("Europe/Nowhere", 7));
    assert!(!calendar.zone_is_known());
}
