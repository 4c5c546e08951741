//! LXC: only what shows that it is on this host. Its containers are known by their cgroups.

use super::{
    Reading,
    root::{Reader, Root},
};

/// Looks for LXC.
pub(super) fn read(root: &Root) -> Reading {
    let mut reader = Reader::new(root);
    if !reader.names_in("/var/lib/lxc").is_empty() {
        reader.note_evidence(&["/var/lib/lxc"]);
    }
    reader.note_evidence(&["/usr/bin/lxc-start"]);
    reader.found
}
