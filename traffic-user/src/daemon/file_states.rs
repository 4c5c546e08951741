//! The files that are followed, as they were at one moment: tells whether they changed where the kernel does
//! not.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::file_watch::Changed;

/// What changes when a file is written or replaced: device, inode, size, and the time of the last change.
type Stat = (u64, u64, u64, i64, i64);

/// The states of the class files and of the containers' files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileStates {
    classes: Vec<Option<Stat>>,
    containers: BTreeMap<OsString, Option<Stat>>,
    /// Found changed, and compared once more before that is reported: its writer may not be done.
    unsettled: Changed,
}

impl FileStates {
    pub(super) fn read(class_files: &[PathBuf], directory: &Path) -> Self {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let conf = entries.filter(|entry| entry.file_name().as_bytes().ends_with(b".conf"));
        Self {
            classes: class_files.iter().map(|path| stat(path)).collect(),
            containers: conf.map(|entry| (entry.file_name(), stat(&entry.path()))).collect(),
            unsettled: Changed::default(),
        }
    }

    /// Reads the states again. Returns what changed before and is at rest now.
    pub(super) fn compare(&mut self, class_files: &[PathBuf], directory: &Path) -> Changed {
        let now = Self::read(class_files, directory);
        let changed = Changed {
            classes: now.classes != self.classes,
            container_files: now.containers != self.containers,
        };
        let settled = Changed {
            classes: self.unsettled.classes && !changed.classes,
            container_files: self.unsettled.container_files && !changed.container_files,
        };
        *self = Self { unsettled: changed, ..now };
        settled
    }

    /// Whether anything changed that was not reported.
    pub(super) fn is_outdated(&self, class_files: &[PathBuf], directory: &Path) -> bool {
        *self != Self::read(class_files, directory)
    }
}

/// Links are followed: the target is what counts.
fn stat(path: &Path) -> Option<Stat> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_is_reported_once_when_it_is_at_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let class_files = [path("first"), path("second")];
        let mut states = FileStates::read(&class_files, directory.path());
        let mut compare = || states.compare(&class_files, directory.path());
        assert_eq!(compare(), Changed::default());
        fs::write(path("second"), "1").unwrap();
        assert_eq!(compare(), Changed::default(), "it may still be written");
        fs::write(path("second"), "12").unwrap();
        assert_eq!(compare(), Changed::default());
        assert_eq!(compare(), Changed { classes: true, container_files: false });
        assert_eq!(compare(), Changed::default());

        fs::write(path("target"), "").unwrap();
        symlink(path("target"), path("101.conf")).unwrap();
        fs::write(path("unrelated"), "").unwrap();
        assert_eq!(compare(), Changed::default());
        assert_eq!(compare(), Changed { classes: false, container_files: true });
        fs::write(path("target"), "more").unwrap();
        assert_eq!(compare(), Changed::default());
        assert_eq!(compare(), Changed { classes: false, container_files: true });
        fs::remove_file(path("101.conf")).unwrap();
        compare();
        assert_eq!(compare(), Changed { classes: false, container_files: true });
        // A name that cannot be looked at is not a change each time.
        symlink(path("loop.conf"), path("loop.conf")).unwrap();
        compare();
        compare();
        assert_eq!(compare(), Changed::default());
    }
}
