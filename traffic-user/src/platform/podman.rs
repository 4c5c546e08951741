//! Podman: the names of containers, and which of them share another one's network.

use serde::Deserialize;

use super::{
    Reading,
    root::{Reader, Root},
};

/// Where root's containers are. Those of other users have no interface on the host.
const STORAGE: &str = "/var/lib/containers/storage";

/// One entry of `containers.json`.
#[derive(Deserialize)]
struct Listed {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
}

/// What is needed of a container's OCI configuration.
#[derive(Deserialize)]
struct Specification {
    #[serde(default)]
    linux: Linux,
}

#[derive(Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

/// Reads Podman's files.
pub(super) fn read(root: &Root) -> Reading {
    let mut reader = Reader::new(root);
    reader.note_evidence(&[&format!("{STORAGE}/libpod"), "/run/podman/podman.sock"]);
    // One directory for each storage driver: `overlay-containers`, `vfs-containers`.
    for directory in reader.names_in(STORAGE).into_iter().filter(|name| name.ends_with("-containers")) {
        let directory = format!("{STORAGE}/{directory}");
        let listed: Option<Vec<Listed>> = reader.read_json(&format!("{directory}/containers.json"));
        for Listed { id, names } in listed.unwrap_or_default() {
            let path = format!("{directory}/{id}/userdata/config.json");
            let specification: Option<Specification> = reader.read_json(&path);
            if let Some(name) = names.and_then(|names| names.into_iter().next()) {
                reader.found.names.push((id.clone(), name));
            }
            if specification.is_some_and(|specification| has_joined(&specification)) {
                reader.found.joined.push(id);
            }
        }
    }
    reader.found
}

/// Whether its network namespace is that of another container's process, and not one that was made for it.
fn has_joined(specification: &Specification) -> bool {
    let network = specification.linux.namespaces.iter().find(|namespace| namespace.kind == "network");
    network.is_some_and(|network| network.path.starts_with("/proc/"))
}
