//! The root directory of the host, which tests replace by a folder of their own, and reading what is below it.
//!
//! Everything here is lenient: what does not exist is absent, and anything else that cannot be read is a problem
//! that costs only itself.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Reading;
use crate::files;

/// Largest file of a platform that is read, in bytes. A container's configuration has a few kilobytes.
const MOST_BYTES: u64 = 4 << 20;
/// Most entries of a directory that are looked at.
const MOST_ENTRIES: usize = 100_000;
/// Most problems that one platform reports one by one.
const MOST_PROBLEMS: usize = 10;

/// The root directory.
#[derive(Clone, Debug)]
pub(super) struct Root(PathBuf);

impl Root {
    /// The root directory in this place: `/`, except in tests.
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The place of an absolute path.
    pub(super) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A place as it is called on the host.
    pub(super) fn shown(&self, place: &Path) -> String {
        let path = place.strip_prefix(&self.0).map(|rest| Path::new("/").join(rest));
        path.unwrap_or_else(|_| place.to_owned()).display().to_string()
    }
}

/// What one reader has found so far, and the root that it reads below.
pub(super) struct Reader<'r> {
    root: &'r Root,
    pub(super) found: Reading,
}

impl<'r> Reader<'r> {
    pub(super) fn new(root: &'r Root) -> Self {
        Self { root, found: Reading::default() }
    }

    /// Notes each of these paths that exists as evidence for the platform.
    pub(super) fn note_evidence(&mut self, paths: &[&str]) {
        let exist = paths.iter().filter(|path| self.root.at(path).exists());
        let exist: Vec<String> = exist.map(|&path| path.to_owned()).collect();
        self.found.evidence.extend(exist);
    }

    /// The names in a directory, sorted; none where it does not exist.
    pub(super) fn names_in(&mut self, directory: &str) -> Vec<String> {
        let list = || -> io::Result<Vec<String>> {
            let entries = fs::read_dir(self.root.at(directory))?.take(MOST_ENTRIES);
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        match list() {
            Ok(mut names) => {
                names.sort_unstable();
                names
            }
            Err(error) if is_absent(&error) => Vec::new(),
            Err(error) => {
                self.problem(directory, &error);
                Vec::new()
            }
        }
    }

    /// A file; `None` where it does not exist or cannot be read.
    pub(super) fn read(&mut self, path: &str) -> Option<Vec<u8>> {
        match files::read(&self.root.at(path), MOST_BYTES) {
            Ok(bytes) => Some(bytes),
            Err(error) if is_absent(&error) => None,
            Err(error) => {
                self.problem(path, &error);
                None
            }
        }
    }

    /// A file of JSON.
    pub(super) fn read_json<T: serde::de::DeserializeOwned>(&mut self, path: &str) -> Option<T> {
        let bytes = self.read(path)?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(path, &format!("it is not as expected: {error}"));
                None
            }
        }
    }

    /// Notes what is wrong with a file. The platforms write their files while containers start and stop, so that
    /// a problem that was found once may be gone the next time.
    pub(super) fn problem(&mut self, path: &str, what: &dyn std::fmt::Display) {
        if self.found.problems.len() < MOST_PROBLEMS {
            self.found.problems.push(format!("{path}: cannot use it: {what}"));
        }
    }
}

/// A file may be removed between listing and reading.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
