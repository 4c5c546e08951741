//! A name for this machine that its clones do not share, for the ledger.
//!
//! A clone that keeps the machine id still has another product UUID in its firmware. The name is a hash: a
//! ledger may leave the node, and the machine id should not.

use std::{io, path::Path};

use sha2::{Digest as _, Sha256};
use traffic_model::hex;

use crate::files;

const MACHINE_ID: &str = "/etc/machine-id";
/// Only root can read it. Containers and some boards have none.
const PRODUCT_UUID: &str = "/sys/class/dmi/id/product_uuid";
/// Bytes. Both are a line.
const LARGEST: u64 = 4096;

/// The name of this machine; `None` where nothing tells it from others, or while its id cannot be read: an
/// unreadable file is no sign of another machine.
pub(super) fn id() -> Option<String> {
    let machine_id = read(Path::new(MACHINE_ID)).ok()?;
    let product_uuid = read(Path::new(PRODUCT_UUID)).ok().flatten();
    name(machine_id.as_deref(), product_uuid.as_deref())
}

/// Why the machine's id cannot be read, as a problem, if so.
pub fn problem() -> Option<String> {
    let error = read(Path::new(MACHINE_ID)).err()?;
    Some(format!(
        "cannot read {MACHINE_ID}: {error}; until that is corrected, whether the ledger belongs to this machine is \
         not checked"
    ))
}

/// The line of a file; `None` if there is no such file.
fn read(path: &Path) -> io::Result<Option<String>> {
    match files::read_text(path, LARGEST) {
        Ok(text) => Ok(Some(text.trim().to_ascii_lowercase())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(None),
        Err(error) => Err(error),
    }
}

fn name(machine_id: Option<&str>, product_uuid: Option<&str>) -> Option<String> {
    // systemd writes `uninitialized` during the first boot of an image.
    let machine_id = machine_id.filter(|id| !id.is_empty() && *id != "uninitialized");
    if machine_id.is_none() && product_uuid.is_none() {
        return None;
    }
    let uuid = product_uuid.map(in_one_byte_order).unwrap_or_default();
    let hash = Sha256::digest(format!("trafctl machine\n{}\n{uuid}\n", machine_id.unwrap_or_default()));
    Some(hex(&hash[..16]))
}

/// A firmware update can change the byte order in which the first three fields are shown. Of both orders,
/// this is the one that sorts first.
fn in_one_byte_order(uuid: &str) -> String {
    let swapped: Vec<String> = uuid
        .split('-')
        .enumerate()
        .map(|(at, field)| match at {
            0..=2 if field.is_ascii() => {
                field.as_bytes().rchunks(2).map(String::from_utf8_lossy).collect::<String>()
            }
            _ => field.to_owned(),
        })
        .collect();
    let swapped = swapped.join("-");
    if uuid <= swapped.as_str() { uuid.to_owned() } else { swapped }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "11223344-5566-7788-99aa-bbccddeeff00";
    const OTHER: &str = "11223344-5566-7788-99aa-bbccddeeff01";
    const SWAPPED: &str = "44332211-6655-8877-99aa-bbccddeeff00";

    #[test]
    fn a_clone_has_another_name() {
        let original = name(Some("a"), Some(UUID));
        assert_ne!(original, name(Some("a"), Some(OTHER)), "a clone with the same machine id");
        assert_ne!(original, name(Some("b"), Some(UUID)), "another container on the same board");
        assert_ne!(name(Some("a"), None), name(Some("b"), None));
        assert_eq!(original, name(Some("a"), Some(SWAPPED)), "after a firmware update");
        assert_eq!(original.map(|name| name.len()), Some(32));
    }

    #[test]
    fn an_id_that_cannot_be_read_is_not_one_that_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        for (path, reason) in files::tests::odd_files(directory.path()) {
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(reason), "{}: {error}", path.display());
        }
        assert_eq!(read(&directory.path().join("missing")).unwrap(), None);
    }

    #[test]
    fn a_machine_that_nothing_names_has_no_name() {
        assert_eq!(name(None, None), None);
        assert_eq!(name(Some("uninitialized"), None), None);
        assert_eq!(name(Some(""), None), None);
        assert!(name(None, Some(UUID)).is_some());
    }
}
