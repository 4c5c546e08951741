//! Writes a picture where it was asked for. Web servers read it at any time, so it is replaced as a whole.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, bail};

use crate::time;

/// Writes the bytes to a file, or to standard output if it is `-`. A symbolic link is followed. A file that is
/// there keeps its owner and its mode.
///
/// # Errors
/// When there is something else than a regular file, or a step fails. What was there is kept then.
pub(super) fn write(
    path: &Path,
    bytes: &[u8],
    to_stdout: impl FnOnce(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if path == Path::new("-") {
        return to_stdout(bytes);
    }
    let there = match fs::metadata(path) {
        Ok(there) if there.is_file() => Some(there),
        Ok(_) => bail!(
            "cannot write {}: it is not a regular file; name another file, or - for standard output",
            path.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
    };
    let attempt = || -> anyhow::Result<()> {
        let target = if there.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
        let mut fresh = target.as_os_str().to_owned();
        fresh.push(format!(".{:016x}.new", time::random_number()?));
        let fresh = Path::new(&fresh);
        let written = || -> io::Result<()> {
            let mut file = File::options().write(true).create_new(true).mode(0o644).open(fresh)?;
            file.write_all(bytes)?;
            if let Some(there) = &there {
                // Whoever may not give files away keeps them.
                let _kept = std::os::unix::fs::fchown(&file, Some(there.uid()), Some(there.gid()));
                file.set_permissions(Permissions::from_mode(there.mode() & 0o777))?;
            }
            file.sync_all()?;
            fs::rename(fresh, &target)
        };
        written().map_err(|error| {
            let _nothing_to_remove = fs::remove_file(fresh);
            error.into()
        })
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        write(path, bytes, |_| panic!("this is a file"))
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a.png"), dir.path().join("link"));
        to_file(&file, b"one").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("a.png", &link).unwrap();
        to_file(&link, b"two").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn nothing_else_than_a_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        crate::files::tests::make_fifo(&fifo);
        for path in [dir.path(), Path::new("/dev/null"), &fifo] {
            let error = format!("{:#}", to_file(path, b"x").unwrap_err());
            assert!(error.contains("is not a regular file"), "{error}");
        }
        let nowhere = dir.path().join("none/a.png");
        let error = format!("{:#}", to_file(&nowhere, b"x").unwrap_err());
        assert!(error.starts_with(&format!("cannot write {}: ", nowhere.display())), "{error}");
        let mut printed: Vec<u8> = Vec::new();
        write(Path::new("-"), b"x", |bytes| {
            printed.extend(bytes);
            Ok(())
        })
        .unwrap();
        assert_eq!(printed, b"x");
    }
}
