//! The list of addresses that `trafctl address` keeps in the state directory: `ADDRESS CONTAINER`, one per
//! line, and `#` for comments.
//!
//! Administrators edit it too, and it may be damaged. A line that cannot be used costs only that line and is
//! reported; changes keep such lines and comments as they are. [`super::addresses`] merges the entries with
//! those of the other sources.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use traffic_model::{ContainerId, notation::parse_prefix};

use crate::{
    files,
    state_file::{self, StateLock},
};

/// Name of the list in the state directory.
const FILE_NAME: &str = "addresses";
/// Name of the copy of the list that was last read or written. It counts while the list is gone.
const COPY_NAME: &str = "addresses.last-good";
/// Largest list, in bytes: about a million addresses.
const MOST_BYTES: u64 = 32 << 20;
/// Longest usable line, in bytes. An IPv6 prefix and an id of the greatest length need less.
const LONGEST_LINE: usize = 1024;
/// The first line of a new list.
const HEADING: &[u8] = b"# address or prefix, container; kept by `trafctl address`\n";

/// The list that `trafctl address` keeps.
#[derive(Clone, Debug)]
pub struct AddressFile {
    state_dir: PathBuf,
    path: PathBuf,
}

/// What the list contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedAddresses {
    /// The usable lines, in their order. For a prefix that is listed twice, the later line counts.
    pub entries: Vec<(IpNet, ContainerId)>,
    /// Each line that is skipped, with its place and what is wrong with it; or what is wrong with the file.
    pub problems: Vec<String>,
    /// Whether the file cannot be read, and nothing was read of it before.
    pub is_unknown: bool,
}

impl ListedAddresses {
    fn owner(&self, prefix: IpNet) -> Option<&ContainerId> {
        self.entries.iter().rfind(|(listed, _)| *listed == prefix).map(|(_, owner)| owner)
    }
}

impl AddressFile {
    /// The list in this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), path: state_dir.join(FILE_NAME) }
    }

    /// Reads the list. It is empty if the file does not exist.
    ///
    /// A list that was in use and is gone, empty, unreadable or without one usable line costs no address: those of the copy are used,
    /// or the `earlier` ones. A list that is meant to be empty still has its heading.
    pub fn read(&self, earlier: Option<&ListedAddresses>) -> ListedAddresses {
        let mut lines = Vec::new();
        let what = match state_file::read(&self.path, MOST_BYTES) {
            Ok(Some(bytes)) if bytes.is_empty() => Ok("is empty"),
            Ok(Some(bytes)) if self.is_damaged(&bytes) => {
                lines = self.parse(&bytes).problems;
                Ok("has no usable line")
            }
            Ok(Some(bytes)) => return self.parse(&bytes),
            Ok(None) => Ok("is gone"),
            Err(error) => Err(error),
        };
        let entries = match earlier {
            Some(earlier) if !earlier.entries.is_empty() => earlier.entries.clone(),
            _ => self.copy().map(|copy| self.parse(&copy).entries).unwrap_or_default(),
        };
        let problem = match (&what, entries.len()) {
            (Ok("has no usable line"), 0) => {
                Some(format!("{}: the list has no usable line; write ADDRESS CONTAINER", self.path.display()))
            }
            (Ok(_), 0) => None,
            (Ok(what), _) => Some(format!(
                "{}: the list {what}; the addresses that were read before are used; the next `trafctl address \
                 add` or `remove` restores it, and a line with `#` says that no address is listed",
                self.path.display()
            )),
            (Err(error), 0) => Some(format!("{error:#}; until then its addresses are not counted")),
            (Err(error), _) => {
                Some(format!("{error:#}; until then the addresses that were read before are used"))
            }
        };
        let is_unknown = problem.is_some() && entries.is_empty();
        ListedAddresses { entries, problems: problem.into_iter().chain(lines).collect(), is_unknown }
    }

    /// Keeps a copy of the list, as far as it has usable lines. While another process writes files there, it
    /// is left to the next call.
    ///
    /// # Errors
    /// When the copy cannot be written.
    pub fn keep(&self) -> anyhow::Result<()> {
        let Ok(Some(bytes)) = state_file::read(&self.path, MOST_BYTES) else { return Ok(()) };
        if bytes.is_empty()
            || self.is_damaged(&bytes)
            || self.copy().map_or_else(|| self.parse(&bytes).entries.is_empty(), |copy| copy == bytes)
        {
            return Ok(());
        }
        match StateLock::try_take(&self.state_dir)? {
            Some(lock) => lock.replace(COPY_NAME, &bytes, MOST_BYTES),
            None => Ok(()),
        }
    }

    fn copy(&self) -> Option<Vec<u8>> {
        state_file::read(&self.state_dir.join(COPY_NAME), MOST_BYTES).ok().flatten()
    }

    /// Assigns an address to a container, given by all its ids, the main one first. Succeeds if the container
    /// has it already.
    ///
    /// # Errors
    /// When the list assigns it to another container, or cannot be written.
    pub fn add(&self, prefix: IpNet, container: &[ContainerId]) -> anyhow::Result<()> {
        let main = container.first().context("an address needs an owner")?;
        let lock = StateLock::take(&self.state_dir)?;
        let mut bytes = self.bytes()?;
        match self.parse(&bytes).owner(prefix) {
            Some(owner) if container.contains(owner) => return Ok(()),
            Some(owner) => bail!(
                "{prefix} belongs to container {owner}; remove it first with `trafctl address remove \
                 {prefix}`"
            ),
            None => {}
        }
        if bytes.is_empty() {
            bytes.extend_from_slice(HEADING);
        } else if !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(format!("{prefix} {main}\n").as_bytes());
        self.write(&lock, &bytes)
    }

    /// Removes an address from the list.
    ///
    /// # Errors
    /// When the list does not contain it, or cannot be written.
    pub fn remove(&self, prefix: IpNet) -> anyhow::Result<()> {
        let lock = StateLock::take(&self.state_dir)?;
        let bytes = self.bytes()?;
        let is_of_prefix = |line: &[u8]| matches!(entry(line), Ok(Some((listed, _))) if listed == prefix);
        let mut kept: Vec<u8> = bytes
            .split_inclusive(|&byte| byte == b'\n')
            .filter(|line| !is_of_prefix(line))
            .flatten()
            .copied()
            .collect();
        if kept.len() == bytes.len() {
            bail!(
                "{prefix} was not assigned with `trafctl address add`; `trafctl address list` shows where \
                 it comes from"
            );
        }
        if kept.is_empty() {
            kept.extend_from_slice(HEADING);
        }
        self.write(&lock, &kept)
    }

    fn write(&self, lock: &StateLock, bytes: &[u8]) -> anyhow::Result<()> {
        lock.replace(FILE_NAME, bytes, MOST_BYTES)?;
        // The list itself is written, and the daemon makes up for a missing copy.
        if let Err(error) = lock.replace(COPY_NAME, bytes, MOST_BYTES) {
            tracing::warn!("cannot keep a copy of the list: {error:#}");
        }
        Ok(())
    }

    /// The list, or its copy if it is gone, empty or damaged.
    fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let listed = state_file::read(&self.path, MOST_BYTES)?.filter(|bytes| !bytes.is_empty());
        if let Some(bytes) = listed.as_ref().filter(|bytes| !self.is_damaged(bytes)) {
            return Ok(bytes.clone());
        }
        Ok(self.copy().or(listed).unwrap_or_default())
    }

    /// Whether the whole list is unusable. What a command wrote is not: it may have removed all but such lines.
    fn is_damaged(&self, bytes: &[u8]) -> bool {
        let listed = self.parse(bytes);
        listed.entries.is_empty()
            && !listed.problems.is_empty()
            && self.copy().is_none_or(|copy| copy != bytes)
    }

    fn parse(&self, bytes: &[u8]) -> ListedAddresses {
        let mut listed = ListedAddresses::default();
        for (number, line) in (1..).zip(files::without_mark(bytes).split(|&byte| byte == b'\n')) {
            match entry(line) {
                Ok(Some(entry)) => listed.entries.push(entry),
                Ok(None) => {}
                Err(why) => {
                    let place = format!("{}:{number}", self.path.display());
                    listed.problems.push(format!("{place}: the line is skipped: {why}"));
                }
            }
        }
        listed
    }
}

/// The entry of a line; `None` for a blank line or a comment.
fn entry(line: &[u8]) -> Result<Option<(IpNet, ContainerId)>, String> {
    let line = files::without_mark(line);
    if line.len() > LONGEST_LINE {
        return Err(format!("it is longer than {LONGEST_LINE} bytes; write ADDRESS CONTAINER"));
    }
    if line.contains(&0) {
        return Err("it contains zero bytes, as after a crash; assign the address again".to_owned());
    }
    let Ok(text) = std::str::from_utf8(line) else {
        return Err("it is not UTF-8 text; write ADDRESS CONTAINER".to_owned());
    };
    let text = text.split('#').next().unwrap_or("").trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (prefix, id) = text
        .split_once(char::is_whitespace)
        .ok_or_else(|| "no container follows the address; write ADDRESS CONTAINER".to_owned())?;
    let prefix = parse_prefix(prefix)?;
    let id = ContainerId::of_container(id.trim()).map_err(|error| error.to_string())?;
    Ok(Some((prefix, id)))
}

#[cfg(test)]
mod tests;
