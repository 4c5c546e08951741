//! Virtuozzo's container files: whatever they contain, two customers are never merged.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use trafctl::ownership::vz_conf::{VzConf, VzContainer, parse};
use traffic_model::ContainerId;

/// Names of the files. Zero bytes separate the files in the input.
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
    ids_are_unambiguous(&settled);
}

fn well_formed(one: &VzConf, name: &str, lines: usize) {
    for diagnostic in &one.diagnostics {
        assert!((1..=lines).contains(&diagnostic.line), "{diagnostic}");
    }
    let [container] = one.containers.as_slice() else { panic!("a file describes one container: {one:?}") };
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

/// The file as Virtuozzo would write it. `None` if an interface name has characters that such names never
/// have.
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

/// Each id belongs to one container, which has at most one number and one UUID.
fn ids_are_unambiguous(all: &VzConf) {
    let main = all.aliases();
    let mut ids: BTreeMap<&ContainerId, BTreeSet<&ContainerId>> = BTreeMap::new();
    for container in &all.containers {
        let own = main.get(&container.id).unwrap_or(&container.id);
        assert!(!main.contains_key(own), "{own} is itself an alias: {all:?}");
        for alias in &container.aliases {
            assert_eq!(main.get(alias), Some(own), "{alias} belongs to two: {all:?}");
        }
        ids.entry(own).or_default().extend(container.aliases.iter().chain([&container.id, own]));
    }
    for (container, ids) in ids {
        let uuids = ids.iter().filter(|id| id.is_uuid()).count();
        assert!(uuids <= 1 && ids.len() - uuids <= 1, "{container} has the ids {ids:?}: {all:?}");
    }
}
