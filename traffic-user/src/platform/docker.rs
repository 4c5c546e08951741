//! Docker: the names of containers, and which of them share another one's network.

use serde::Deserialize;

use super::{
    Reading,
    root::{Reader, Root},
};

/// Where Docker keeps its data unless its configuration names another place; the second one is the snap's.
const USUAL: [&str; 2] = ["/var/lib/docker", "/var/snap/docker/common/var-lib-docker"];
/// Its configuration.
const CONFIGURATION: &str = "/etc/docker/daemon.json";

#[derive(Deserialize)]
struct DaemonFile {
    #[serde(rename = "data-root")]
    data_root: Option<String>,
}

/// What is needed of `config.v2.json`.
#[derive(Deserialize)]
struct ContainerFile {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "State", default)]
    state: State,
    #[serde(rename = "NetworkSettings", default)]
    network: Option<Network>,
}

#[derive(Default, Deserialize)]
struct State {
    #[serde(rename = "Running", default)]
    running: bool,
}

#[derive(Default, Deserialize)]
struct Network {
    /// The file of its network namespace; empty where it uses that of another container.
    #[serde(rename = "SandboxKey", default)]
    sandbox_key: String,
}

/// Reads Docker's files.
pub(super) fn read(root: &Root) -> Reading {
    let mut reader = Reader::new(root);
    let mut places: Vec<String> = USUAL.map(str::to_owned).into();
    let configured: Option<DaemonFile> = reader.read_json(CONFIGURATION);
    places.extend(configured.and_then(|file| file.data_root));
    reader.note_evidence(&["/run/docker.sock"]);
    for place in places {
        let directory = format!("{place}/containers");
        reader.note_evidence(&[&directory]);
        for id in reader.names_in(&directory) {
            let path = format!("{directory}/{id}/config.v2.json");
            let Some(file): Option<ContainerFile> = reader.read_json(&path) else { continue };
            let name = file.name.trim_start_matches('/').to_owned();
            if !name.is_empty() {
                reader.found.names.push((file.id.clone(), name));
            }
            if file.state.running && file.network.is_some_and(|network| network.sandbox_key.is_empty()) {
                reader.found.joined.push(file.id);
            }
        }
    }
    reader.found
}
