//! Virtuozzo's file for each container, `/etc/vz/conf/ID.conf`: its addresses and interfaces.
//!
//! - `parse`: one file's text. The files are shell assignments, read without a shell.
//! - `same`: which files and ids belong to the same container.
//!
//! This file owns the types and the scan of the directory. [`super::NameRules`] and [`super::addresses`] use
//! the result.

mod parse;
mod same;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use traffic_model::ContainerId;

use crate::files;

pub use parse::parse;

/// The content of all files.
#[derive(Clone, Debug, Default)]
pub struct VzConf {
    /// One entry for each file, with ids settled by [`VzConf::settled`].
    pub containers: Vec<VzContainer>,
    /// The same as read, before ids were settled.
    as_read: Vec<VzContainer>,
    /// What could not be read. Everything else is used.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether each file and the directory could be read.
    pub is_complete: bool,
}

impl VzConf {
    /// Decides which files and ids belong to the same container.
    #[must_use]
    pub fn settled(mut self) -> Self {
        self.as_read.clone_from(&self.containers);
        same::settle(&mut self);
        self
    }

    /// For each alias of a container, the id that the container is counted under.
    pub fn aliases(&self) -> HashMap<ContainerId, ContainerId> {
        let one = |container: &VzContainer| {
            let id = container.id.clone();
            container.aliases.clone().into_iter().map(move |alias| (alias, id.clone()))
        };
        self.containers.iter().flat_map(one).collect()
    }
}

/// One container's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VzContainer {
    /// The file.
    pub path: PathBuf,
    /// The id, from the file's name.
    pub id: ContainerId,
    /// Other ids of the container (`VEID`, `CTID`, `UUID`).
    pub aliases: Vec<ContainerId>,
    /// Its name for people (`NAME`).
    pub name: Option<String>,
    /// Its addresses (`IP_ADDRESS`). A mask in the file is that of the surrounding network and is ignored.
    pub addresses: Vec<IpAddr>,
    /// Its interfaces (`NETIF`).
    pub interfaces: Vec<VzInterface>,
}

/// One entry of `NETIF`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VzInterface {
    /// Hardware address inside the container.
    pub mac: Option<[u8; 6]>,
    /// Name on the host.
    pub host_name: Option<String>,
    /// Hardware address on the host.
    pub host_mac: Option<[u8; 6]>,
}

/// A part of a file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.message),
        }
    }
}

/// Reads all container files of a directory. A directory that does not exist has none, unless it had some. For a file that cannot
/// be read now, the result of the `earlier` scan is kept.
pub fn scan(directory: &Path, earlier: Option<&VzConf>) -> VzConf {
    let mut all = VzConf { is_complete: true, ..VzConf::default() };
    let add_error = |all: &mut VzConf, path: &Path, error: &io::Error| {
        let message = format!("cannot read it: {error}");
        all.diagnostics.push(Diagnostic { path: path.to_owned(), line: 0, message });
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            // Containers do not all vanish at once, but a file system can be unmounted.
            let had_containers = earlier.is_some_and(|earlier| !earlier.as_read.is_empty());
            if error.kind() == io::ErrorKind::NotFound && !directory.is_symlink() && !had_containers {
                return all;
            }
            return kept(directory, earlier, &error);
        }
    };
    let paths: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = match paths {
        Ok(paths) => paths,
        // A part of a listing would take the containers in the other part for removed.
        Err(error) => return kept(directory, earlier, &error),
    };
    paths.retain(|path| is_container(path));
    paths.sort();
    for path in paths {
        // A description may contain bytes that are not UTF-8; the keys used here never do.
        match files::read(&path, files::MOST_CONTAINER_FILE_BYTES) {
            Ok(bytes) => {
                let one = parse(&path, &String::from_utf8_lossy(files::without_mark(&bytes)));
                all.containers.extend(one.containers);
                all.diagnostics.extend(one.diagnostics);
            }
            // The file was removed after the listing.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {}
            Err(error) => {
                add_error(&mut all, &path, &error);
                all.is_complete = false;
                let kept = earlier.and_then(|earlier| earlier.as_read.iter().find(|c| c.path == path));
                all.containers.extend(kept.cloned());
            }
        }
    }
    all.settled()
}

/// The result of the earlier scan, for a directory that cannot be listed now.
fn kept(directory: &Path, earlier: Option<&VzConf>, error: &io::Error) -> VzConf {
    let message = format!("cannot list it: {error}");
    let diagnostics = vec![Diagnostic { path: directory.to_owned(), line: 0, message }];
    let containers = earlier.map(|earlier| earlier.as_read.clone()).unwrap_or_default();
    VzConf { containers, diagnostics, ..VzConf::default() }.settled()
}

/// Whether the file is named `ID.conf` with a number or a UUID. `0.conf` is the node's own; samples and
/// backups have other names.
fn is_container(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
    let number =
        !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_digit()) && stem.bytes().any(|b| b != b'0');
    let bare = stem.trim_start_matches('{').trim_end_matches('}');
    let uuid = bare.len() == 36 && bare.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    path.extension().is_some_and(|extension| extension == "conf") && (number || uuid)
}
