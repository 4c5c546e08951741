//! The file with the secret key of statements and the secret for salts. Nobody but its owner may read it.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use traffic_statement::{Salts, SecretKey};

use crate::{files, state_file};

/// The name of the file in the state directory.
const NAME: &str = "statement.key";
/// Who may read it.
const MODE: u32 = 0o600;
/// Any of these says that others may read it.
const OTHERS: u32 = 0o077;
const MOST_BYTES: u64 = 4096;

/// Where the file is unless another one is named.
pub fn default_path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// What is in the file.
#[derive(Debug)]
pub struct Keys {
    /// Signs statements.
    pub key: SecretKey,
    /// Hides the records of other containers.
    pub salts: Salts,
}

impl Keys {
    /// New ones.
    ///
    /// # Errors
    /// When the name cannot be one, or the system has no random bytes.
    pub fn generate(name: &str) -> anyhow::Result<Self> {
        Ok(Self { key: SecretKey::generate(name)?, salts: Salts::generate()? })
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing, others may read it, or it is none. No error shows any of it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let there = match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "there is no key for statements in {}; `trafctl statement key --new NAME` makes one",
                path.display()
            ),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        if there.mode() & OTHERS != 0 {
            bail!(
                "others than its owner may read the secret key {}; make a new one if they may have, or `chmod 600` it",
                path.display()
            );
        }
        let text =
            files::read_text(path, MOST_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("cannot use {}; restore it from a copy", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let &[key, salts] = lines.as_slice() else { bail!("it has not two lines with secrets") };
        Ok(Self { key: SecretKey::parse(key)?, salts: Salts::parse(salts)? })
    }

    /// A new key of the same name, with the same salts: the log goes on.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn successor(&self) -> anyhow::Result<Self> {
        Ok(Self { key: SecretKey::generate(self.key.public().name())?, salts: self.salts()? })
    }

    /// The secret for salts once more, for a log that goes with it.
    ///
    /// # Errors
    /// Never: it is what was parsed.
    pub fn salts(&self) -> anyhow::Result<Salts> {
        Ok(Salts::parse(&self.salts.secret_text())?)
    }

    fn text(&self) -> String {
        format!(
            "# The secret key of statements. Keep a copy where only you can read it: without these two lines, later\n\
             # statements do not continue the log of earlier ones. Its public key:\n# {}\n{}\n{}\n",
            self.key.public(),
            self.key.secret_text(),
            self.salts.secret_text()
        )
    }

    /// Writes them to a file, which they replace as a whole. After return, it survives a power loss.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace(&self, path: &Path) -> anyhow::Result<()> {
        state_file::replace_with_mode(path, self.text().as_bytes(), MOST_BYTES, MODE)
    }

    /// Writes them to a file that must not exist.
    ///
    /// # Errors
    /// When it exists, or cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = self.text();
        let mut file = match File::options().write(true).create_new(true).mode(MODE).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
                "{} exists, and statements that were made with it would no longer be continued; move it away first",
                path.display()
            ),
            other => other.with_context(|| format!("cannot write {}", path.display()))?,
        };
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_directory(path));
        if written.is_err() {
            // A part of a key is no use, and would be in the way of the next one.
            let _nothing_to_remove = fs::remove_file(path);
        }
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Makes the name of a file survive a power loss.
///
/// # Errors
/// When the directory cannot be read or written.
pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_written_once_and_read_only_while_nobody_else_can() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let missing = format!("{:#}", Keys::read(&path).unwrap_err());
        assert!(missing.contains("trafctl statement key --new"), "{missing}");
        let keys = Keys::generate("billing.example.com").unwrap();
        keys.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Keys::read(&path).unwrap().key.secret_text(), keys.key.secret_text());
        let again = format!("{:#}", Keys::generate("other").unwrap().write(&path).unwrap_err());
        assert!(again.contains("move it away"), "{again}");
        for mode in [0o640, 0o604, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = format!("{:#}", Keys::read(&path).unwrap_err());
            assert!(error.contains("others than its owner"), "{error}");
        }
    }

    #[test]
    fn a_damaged_file_is_refused_and_not_shown() {
        let keys = Keys::generate("billing.example.com").unwrap();
        let (key, salts) = (keys.key.secret_text(), keys.salts.secret_text());
        for text in [String::new(), key.clone(), format!("{salts}\n{key}"), format!("{key}x\n{salts}")] {
            let error = format!("{:#}", Keys::parse(&text).unwrap_err());
            assert!(!error.contains(&key[30..]) && !error.contains(&salts[8..]), "{error}");
        }
    }
}
