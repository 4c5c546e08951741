//! systemd-nspawn: the machines that are registered with systemd-machined.
//!
//! The name of an interface is cut where the machine's name is long (`ve-customer8D2N`), so that only these files
//! have the true one.

use std::collections::HashMap;

use super::{
    Member, Place, Platform, Reading,
    root::{Reader, Root},
};

/// One file for each machine, under its name.
const MACHINES: &str = "/run/systemd/machines";

/// Reads machined's files.
pub(super) fn read(root: &Root) -> Reading {
    let mut reader = Reader::new(root);
    // Beside the files are links such as `unit:machine-web.scope`.
    for name in reader.names_in(MACHINES).into_iter().filter(|name| !name.contains(':')) {
        let path = format!("{MACHINES}/{name}");
        let Some(bytes) = reader.read(&path) else { continue };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let values: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        // Libvirt and others register machines too. Those have files of their own.
        if values.get("SERVICE") != Some(&"systemd-nspawn") {
            continue;
        }
        let machine = values.get("NAME").copied().unwrap_or(&name);
        match values.get("LEADER").and_then(|pid| pid.parse().ok()) {
            Some(pid) => reader.found.members.push(Member {
                platform: Platform::Nspawn,
                id: machine.to_owned(),
                place: Place::Process(pid, path.clone()),
                may_be_another: false,
            }),
            None => reader.problem(&path, &"it has no LEADER="),
        }
        reader.found.evidence.push(path);
    }
    if !reader.names_in("/var/lib/machines").is_empty() {
        reader.note_evidence(&["/var/lib/machines"]);
    }
    reader.found
}
