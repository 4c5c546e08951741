//! Files in the state directory that are replaced as a whole: at every instant there is the old one or the new one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::Context as _;

/// Reads a file; `None` where there is none.
///
/// # Errors
/// When it is there and can't be read.
pub fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Puts a file in place of the one that is there, if any, and makes its directory if need be. What is in it is for root
/// and its group. When this returns, it outlasts a loss of power.
///
/// # Errors
/// When something of this fails; the old file is still there then.
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
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/marks.json");
        assert_eq!(read(&path).unwrap(), None);
        replace(&path, b"a longer first content").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"second"[..]));
        let names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["marks.json"]);
        // What is in the way is named.
        let error = format!("{:#}", replace(&path.join("below/a/file"), b"").unwrap_err());
        assert!(error.starts_with("cannot write ") && error.contains("below/a/file"), "{error}");
    }
}
