//! Tests of the parser and of the scan.

use proptest::prelude::*;

use super::*;

const SAMPLE: &str = r#"# Configuration of container 101
ONBOOT="yes"
DESCRIPTION="Zoë's web server; IP_ADDRESS=no"

 VE_ROOT='/vz/root/$VEID'
export VEID="101"
UUID="{2B2A3D9C-6F2E-4A77-9C15-0A1B2C3D4E5F}"
IP_ADDRESS="10.0.0.5/255.255.255.0 10.0.0.6/24 192.0.2.7 2001:db8::5/64"   # four of them
NETIF="ifname=eth0,mac=00:18:51:AA:BB:CC,host_ifname=veth101.0,host_mac=FE:FF:FF:AA:BB:CC,bridge=br0;ifname=eth1,mac=00:18:51:AA:BB:CD,host_ifname=veth101.1"
DISTRIBUTION=debian-12
"#;

#[test]
fn a_file_of_virtuozzo_is_parsed() {
    let all = parse(Path::new("/etc/vz/conf/101.conf"), SAMPLE);
    assert_eq!(all.diagnostics, []);
    let container = &all.containers[0];
    assert_eq!(container.id.as_str(), "101");
    let aliases: Vec<_> = container.aliases.iter().map(ContainerId::as_str).collect();
    assert_eq!(aliases, ["2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f"]);
    let addresses: Vec<_> = container.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.5", "10.0.0.6", "192.0.2.7", "2001:db8::5"]);
    assert_eq!(container.interfaces.len(), 2);
    assert_eq!(container.interfaces[0].host_name.as_deref(), Some("veth101.0"));
    assert_eq!(container.interfaces[0].mac, Some([0, 0x18, 0x51, 0xaa, 0xbb, 0xcc]));
    assert_eq!(container.interfaces[0].host_mac, Some([0xfe, 0xff, 0xff, 0xaa, 0xbb, 0xcc]));
    assert_eq!(container.interfaces[1].host_mac, None);
}

#[test]
fn wrong_values_are_reported_and_the_rest_is_used() {
    let text = "IP_ADDRESS=\"10.0.0.5 10.0.0.999\"\nNETIF=\"mac=zz;host_ifname=veth7.0\"\nVEID='a b'\n";
    let all = parse(Path::new("7.conf"), text);
    let reported: Vec<_> = all.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(reported[0], "7.conf:1: \"10.0.0.999\" is not an IP address");
    assert_eq!(reported[1], "7.conf:2: \"zz\" is not a hardware address");
    assert!(reported[2].starts_with("7.conf:3: container id"));
    assert_eq!(all.containers[0].addresses.len(), 1);
    assert_eq!(all.containers[0].interfaces[0].host_name.as_deref(), Some("veth7.0"));
}

#[test]
fn wrong_lines_are_reported() {
    let text = "IP_ADDRESS=\"10.0.0.5\nnonsense\nA B=\"x\"\nIP_ADDRESS=10.0.0.6 10.0.0.7\nOFFLINE=\"no\" # fine\n\
                NETIF=\"ifname\"\nNETIF=\"host_ifname=far-too-long-for-linux\"\nVEID=0\nNAME=\"\"; export NAME\n";
    let all = parse(Path::new("7.conf"), text);
    let reported: Vec<_> = all.diagnostics.iter().map(ToString::to_string).collect();
    let expected = [
        "7.conf:1: the quotation mark",
        "7.conf:2: the line is not an assignment",
        "7.conf:3: the text before =",
        "7.conf:4: text follows the value",
        "7.conf:6: \"ifname\" is not a KEY=VALUE",
        "7.conf:7: \"far-too-long-for-linux\" is not an interface name",
        "7.conf:8: container id \"0\" is not usable",
    ];
    assert_eq!(reported.len(), expected.len(), "{reported:#?}");
    for (message, expected) in reported.iter().zip(expected) {
        assert!(message.starts_with(expected), "{message}");
    }
    assert_eq!(all.containers[0].addresses, [] as [IpAddr; 0]);
}

#[test]
fn an_unreadable_file_keeps_its_earlier_content() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("7.conf");
    fs::write(&path, "IP_ADDRESS=10.0.0.5\n").unwrap();
    let first = scan(directory.path(), None);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let second = scan(directory.path(), Some(&first));
    assert_eq!(second.containers, first.containers);
    assert_eq!(second.diagnostics.len(), 1);
    fs::remove_dir(&path).unwrap();
    assert_eq!(scan(directory.path(), Some(&second)).containers, []);
}

#[test]
fn only_container_files_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let names = [
        "101.conf",
        "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f.conf",
        "0.conf",
        "vz.conf",
        "ve-basic.conf-sample",
        "102.conf.bak",
        "networks_classes",
    ];
    for name in names {
        fs::write(directory.path().join(name), "IP_ADDRESS=10.0.0.1\n").unwrap();
    }
    let all = scan(directory.path(), None);
    let ids: Vec<_> = all.containers.iter().map(|container| container.id.to_string()).collect();
    assert_eq!(ids, ["101", "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f"]);
    assert!(scan(Path::new("/nonexistent"), None).containers.is_empty());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*", value in "[a-z=,;\"' 0-9:./]*") {
        parse(Path::new("1.conf"), &text);
        parse(Path::new("1.conf"), &format!("NETIF={value}\nIP_ADDRESS=\"{value}\n"));
    }
}
