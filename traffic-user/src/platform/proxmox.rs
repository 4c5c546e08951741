//! Proxmox VE: the names of containers and machines. Their interfaces have the id in their names.

use super::{
    Reading,
    root::{Reader, Root},
};

/// One file for each container and machine of this node: `ID.conf`. The directories are links to those of the
/// node, in a file system that a daemon serves.
const DIRECTORIES: [(&str, &str); 2] = [("/etc/pve/lxc", "hostname"), ("/etc/pve/qemu-server", "name")];

/// Reads Proxmox's files.
pub(super) fn read(root: &Root) -> Reading {
    let mut reader = Reader::new(root);
    reader.note_evidence(&["/etc/pve/nodes", "/etc/pve/lxc", "/etc/pve/qemu-server"]);
    for (directory, key) in DIRECTORIES {
        for file in reader.names_in(directory) {
            let Some(id) = file.strip_suffix(".conf") else { continue };
            if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            let Some(bytes) = reader.read(&format!("{directory}/{file}")) else { continue };
            if let Some(name) = value(&String::from_utf8_lossy(&bytes), key) {
                reader.found.names.push((id.to_owned(), name));
            }
        }
    }
    reader.found
}

/// The value of a key in the part that is in force: what follows a line `[NAME]` is a snapshot's.
fn value(text: &str, key: &str) -> Option<String> {
    let lines = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    let mut pairs = lines.filter_map(|line| line.split_once(':'));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}
