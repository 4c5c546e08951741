//! Files of passwords in PostgreSQL's format, for stores of both kinds: `host:port:database:user:password`, one a line.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// A file of passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is left out while it does not exist.
    pub may_be_missing: bool,
}

impl PasswordFile {
    /// One that somebody named.
    pub fn required(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), may_be_missing: false }
    }

    /// One that is looked for at its usual place.
    pub fn usual(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), may_be_missing: true }
    }
}

/// Bytes. A line for each of some stores.
const MOST_PASSWORD_BYTES: u64 = 1 << 20;

/// Why a URL is refused.
pub(crate) const PASSWORD_IN_URL: &str = "a URL with a password can be read by others; remove it, and put a line \
                               HOST:PORT:DATABASE:USER:PASSWORD into the password file";

/// The password of the first line whose host, port, database and user are those of a store.
///
/// # Errors
/// When a file cannot be read, or others than its owner may read it.
pub(crate) fn find(
    files: &[PasswordFile],
    is_its: impl Fn([&str; 4]) -> bool,
) -> Result<Option<String>, String> {
    for PasswordFile { path, may_be_missing } in files {
        // Whatever else keeps it from being read is an error: its password would be the one.
        let is_missing =
            || fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if *may_be_missing && is_missing() {
            continue;
        }
        let text = read_secret(path).map_err(|reason| format!("{}: {reason}", path.display()))?;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let fields = fields(line);
            let [host, port, database, user, password] = &fields[..] else { continue };
            if is_its([host, port, database, user]) {
                return Ok(Some(password.clone()));
            }
        }
    }
    Ok(None)
}

/// Whether a field is meant for a value: `*` is for all.
pub(crate) fn fits(field: &str, value: &str) -> bool {
    field == "*" || field == value
}

/// The fields of a line, in which `\:` and `\\` stand for the characters themselves.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields.last_mut().into_iter().for_each(|last| last.extend(characters.next())),
            other => fields.last_mut().into_iter().for_each(|last| last.push(other)),
        }
    }
    fields
}

fn read_secret(path: &Path) -> Result<String, String> {
    // Not opened before it is known to be a file: a FIFO would wait.
    let kind = fs::metadata(path).map_err(|error| error.to_string())?;
    if !kind.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if kind.permissions().mode() & 0o077 != 0 {
        return Err("others may read it; run `chmod 600` on it".to_owned());
    }
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    match file.take(MOST_PASSWORD_BYTES).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_file_that_is_not_there_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let look = |name: &str| find(&[PasswordFile::usual(at(name))], |_| true);
        assert_eq!(look("nothing"), Ok(None));
        assert_eq!(look("none/pgpass"), Ok(None));
        symlink("gone", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        fs::write(at("file"), "").unwrap();
        for name in ["dangling", "loop", "file/pgpass"] {
            let error = look(name).unwrap_err();
            assert!(error.contains(&at(name).display().to_string()), "{name}: {error}");
        }
    }
}
