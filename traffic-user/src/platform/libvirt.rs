//! Libvirt: which tap belongs to which machine, from the state of running machines.

use super::{
    NamedInterface, Platform, Reading,
    root::{Reader, Root},
};

/// The state of running machines, one file each: `NAME.xml`.
const STATE: &str = "/run/libvirt/qemu";

/// Reads libvirt's files.
pub(super) fn read(root: &Root) -> Reading {
    let mut reader = Reader::new(root);
    reader.note_evidence(&[STATE, "/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"]);
    for name in reader.names_in(STATE).into_iter().filter(|name| name.ends_with(".xml")) {
        let path = format!("{STATE}/{name}");
        let Some(bytes) = reader.read(&path) else { continue };
        match machine(&String::from_utf8_lossy(&bytes)) {
            Ok(machine) => {
                let interfaces = machine.interfaces.into_iter().map(|interface| NamedInterface {
                    platform: Platform::Libvirt,
                    id: machine.uuid.clone(),
                    interface,
                    source: path.clone(),
                });
                reader.found.interfaces.extend(interfaces);
                reader.found.names.push((machine.uuid, machine.name));
            }
            Err(error) => reader.problem(&path, &error),
        }
    }
    reader.found
}

struct Machine {
    name: String,
    uuid: String,
    /// The names of its interfaces on the host.
    interfaces: Vec<String>,
}

/// The machine in a file whose root is `domstatus`, with the machine as `domain` in it.
fn machine(text: &str) -> Result<Machine, String> {
    let document = roxmltree::Document::parse(text).map_err(|error| error.to_string())?;
    let domain = document.descendants().find(|node| node.has_tag_name("domain"));
    let domain = domain.ok_or("it has no <domain>")?;
    let child = |name: &str| {
        let node = domain.children().find(|node| node.has_tag_name(name));
        node.and_then(|node| node.text()).map(|text| text.trim().to_owned())
    };
    let devices = domain.children().filter(|node| node.has_tag_name("devices"));
    let interfaces = devices.flat_map(|devices| devices.children()).filter(|node| {
        // A host device that is passed through has no interface on the host.
        node.has_tag_name("interface") && node.attribute("type") != Some("hostdev")
    });
    let targets = interfaces.flat_map(|interface| interface.children());
    let targets = targets.filter(|node| node.has_tag_name("target"));
    Ok(Machine {
        name: child("name").ok_or("it has no <name>")?,
        uuid: child("uuid").ok_or("it has no <uuid>")?,
        interfaces: targets.filter_map(|node| Some(node.attribute("dev")?.to_owned())).collect(),
    })
}
