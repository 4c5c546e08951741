//! Virtuozzo's files of containers: whatever is in them, two customers never become one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use trafctl::ownership::vz_conf::{VzConf, VzContainer, parse};
use traffic_model::ContainerId;

/// The files that a zero byte separates from each other.
const NAMES: [&str; 4] = [
    "101.conf",
    "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f.conf",
    "102.conf",
    "9c152b2a-6f2e-4a77-9c15-0a1b2c3d4e5f.conf",
];

/// Checks up to four files of one directory.
pub fn check(data: &[u8]) {
    let mut all = VzConf::default();
    for (name, bytes) in NAMES.iter().zip(data.split(|&byte| byte == 0)) {
        let text = String::from_utf8_lossy(bytes);
        let one = parse(Path::new(name), &text);
        well_formed(&one, name, text.lines().count());
        all.containers.extend(one.containers);
        all.diagnostics.extend(one.diagnostics);
    }
    let files = all.containers.len();
    let settled = all.settled();
    assert_eq!(settled.containers.len(), files);
    nobody_is_two(&settled);
}

fn well_formed(one: &VzConf, name: &str, lines: usize) {
    for diagnostic in &one.diagnostics {
        assert!((1..=lines).contains(&diagnostic.line), "{diagnostic}");
    }
    let [container] = one.containers.as_slice() else { panic!("a file is of one container: {one:?}") };
    assert_eq!(format!("{}.conf", container.id), name);
    assert!(!container.aliases.contains(&container.id));
    for interface in &container.interfaces {
        assert!(interface.host_name.as_ref().is_none_or(|name| (1..16).contains(&name.len())));
    }
    if let Some(text) = written(container) {
        let again = parse(Path::new(name), &text);
        assert_eq!(again.diagnostics, [], "{text}");
        assert_eq!(again.containers, one.containers, "{text}");
    }
}

/// The same as Virtuozzo would write it, unless a name has characters that no interface's has.
fn written(container: &VzContainer) -> Option<String> {
    let mac = |mac: &[u8; 6]| mac.map(|byte| format!("{byte:02X}")).join(":");
    let mut interfaces = Vec::new();
    for interface in &container.interfaces {
        let mut pairs = vec!["ifname=eth0".to_owned()];
        pairs.extend(interface.mac.as_ref().map(|address| format!("mac={}", mac(address))));
        if let Some(name) = &interface.host_name {
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)).then_some(())?;
            pairs.push(format!("host_ifname={name}"));
        }
        pairs.extend(interface.host_mac.as_ref().map(|address| format!("host_mac={}", mac(address))));
        interfaces.push(pairs.join(","));
    }
    let addresses: Vec<String> = container.addresses.iter().map(ToString::to_string).collect();
    let mut text = format!("IP_ADDRESS=\"{}\"\nNETIF=\"{}\"\n", addresses.join(" "), interfaces.join(";"));
    for (key, alias) in ["VEID", "CTID", "UUID"].iter().zip(&container.aliases) {
        text += &format!("{key}=\"{alias}\"\n");
    }
    Some(text)
}

/// Each id leads to one container, which goes by one number and one UUID at the most.
fn nobody_is_two(all: &VzConf) {
    let main = all.aliases();
    let mut ids: BTreeMap<&ContainerId, BTreeSet<&ContainerId>> = BTreeMap::new();
    for container in &all.containers {
        let own = main.get(&container.id).unwrap_or(&container.id);
        assert!(!main.contains_key(own), "{own} leads further: {all:?}");
        for alias in &container.aliases {
            assert_eq!(main.get(alias), Some(own), "{alias} is of two: {all:?}");
        }
        ids.entry(own).or_default().extend(container.aliases.iter().chain([&container.id, own]));
    }
    for (container, ids) in ids {
        let uuids = ids.iter().filter(|id| id.is_uuid()).count();
        assert!(uuids <= 1 && ids.len() - uuids <= 1, "{container} goes by {ids:?}: {all:?}");
    }
}
