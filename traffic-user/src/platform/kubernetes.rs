//! Kubernetes: the names of pods, from the directories of their logs.

use super::{
    Reading,
    root::{Reader, Root},
};

/// One directory for each pod of this node: `NAMESPACE_NAME_UID`. None of the three contains an underscore.
const LOGS: &str = "/var/log/pods";

/// Reads the kubelet's directories.
pub(super) fn read(root: &Root) -> Reading {
    let mut reader = Reader::new(root);
    reader.note_evidence(&[LOGS, "/var/lib/kubelet"]);
    for directory in reader.names_in(LOGS) {
        let mut parts = directory.split('_');
        if let (Some(namespace), Some(name), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        {
            reader.found.names.push((id.to_owned(), format!("{namespace}/{name}")));
        }
    }
    reader.found
}
