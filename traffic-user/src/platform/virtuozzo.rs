//! Virtuozzo and OpenVZ: only what shows that they are on this host. Their container files are read in
//! [`crate::ownership`].

use super::{
    Reading,
    root::{Reader, Root},
};

/// Looks for Virtuozzo.
pub(super) fn read(root: &Root) -> Reading {
    let mut reader = Reader::new(root);
    reader.note_evidence(&["/proc/vz/version", "/proc/vz/veinfo", "/etc/vz/vz.conf", "/etc/vz/conf"]);
    reader.found
}
