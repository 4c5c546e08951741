//! Files in the state directory, replaced atomically: at every instant there is either the old file or the
//! new one.
//!
//! Used by reset baselines, the address list and the record of the loaded class file. The ledger has its own
//! transactions.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::Context as _;

/// Reads a file. `None` if it does not exist.
///
/// # Errors
/// When the file exists and cannot be read.
pub fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Replaces a file, or creates it with its directory. The file is readable by owner and group only. After
/// return it survives a power loss.
///
/// # Errors
/// When any step fails. The old file is kept then.
pub fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let attempt = || -> io::Result<()> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let fresh = path.with_file_name(name);
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o640).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(directory)?.sync_all()
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_no_other_file_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/marks.json");
        assert_eq!(read(&path).unwrap(), None);
        replace(&path, b"a longer first content").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"second"[..]));
        let names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["marks.json"]);
        // The message names the path.
        let error = format!("{:#}", replace(&path.join("below/a/file"), b"").unwrap_err());
        assert!(error.starts_with("cannot write ") && error.contains("below/a/file"), "{error}");
    }
}
