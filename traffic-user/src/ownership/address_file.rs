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
    /// A list that was in use and is gone, empty or unreadable costs no address: those of the copy are used,
    /// or the `earlier` ones. A list that is meant to be empty still has its heading.
    pub fn read(&self, earlier: Option<&ListedAddresses>) -> ListedAddresses {
        let what = match state_file::read(&self.path, MOST_BYTES) {
            Ok(Some(bytes)) if !bytes.is_empty() => return self.parse(&bytes),
            Ok(Some(_)) => Ok("is empty"),
            Ok(None) => Ok("is gone"),
            Err(error) => Err(error),
        };
        let entries = match earlier {
            Some(earlier) if !earlier.entries.is_empty() => earlier.entries.clone(),
            _ => self.copy().map(|copy| self.parse(&copy).entries).unwrap_or_default(),
        };
        let problem = match (&what, entries.len()) {
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
        ListedAddresses { entries, problems: problem.into_iter().collect(), is_unknown }
    }

    /// Keeps a copy of the list, as far as it has usable lines. While another process writes files there, it
    /// is left to the next call.
    ///
    /// # Errors
    /// When the copy cannot be written.
    pub fn keep(&self) -> anyhow::Result<()> {
        let Ok(Some(bytes)) = state_file::read(&self.path, MOST_BYTES) else { return Ok(()) };
        if bytes.is_empty()
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

    /// The list, or its copy if it is gone or empty.
    fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let listed = state_file::read(&self.path, MOST_BYTES)?.filter(|bytes| !bytes.is_empty());
        Ok(listed.or_else(|| self.copy()).unwrap_or_default())
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
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::files::tests::{at_once, odd_files};

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn parse(bytes: &[u8]) -> ListedAddresses {
        AddressFile::new(Path::new("/state")).parse(bytes)
    }

    #[test]
    fn the_list_is_kept_and_refuses_a_second_owner() {
        let directory = tempfile::tempdir().unwrap();
        let file = AddressFile::new(&directory.path().join("state"));
        assert_eq!(file.read(None), ListedAddresses::default());
        file.add(net("10.0.0.1/32"), &[id("101")]).unwrap();
        file.add(net("2001:db8::/64"), &[id("102")]).unwrap();
        file.add(net("10.0.0.1/32"), &[id("101")]).unwrap();
        let refused = file.add(net("10.0.0.1/32"), &[id("103")]).unwrap_err().to_string();
        assert!(refused.contains("belongs to container 101"), "{refused}");
        let entries = [(net("10.0.0.1/32"), id("101")), (net("2001:db8::/64"), id("102"))];
        assert_eq!(file.read(None).entries, entries);
        file.remove(net("10.0.0.1/32")).unwrap();
        assert!(file.remove(net("10.0.0.1/32")).is_err());
        assert_eq!(file.read(None).entries, entries[1..]);
    }

    #[test]
    fn a_bad_line_costs_only_that_line() {
        let bad: [(&[u8], &str); 9] = [
            (b"10.0.0.1", "no container follows the address"),
            (b"10.0.0.300 7", "is neither an address nor a prefix"),
            (b"10.0.0.1/24 7", "has host bits set"),
            (b"0.0.0.0/0 7", "every address to one container"),
            (b"10.0.0.1 a b", "container id"),
            (b"10.0.0.1 0", "the node itself"),
            (b"10.0.0.1 caf\xe9", "is not UTF-8"),
            (b"10.0.0.1\0 7", "zero bytes"),
            (b"\0\0\0\0\0\0\0\0", "zero bytes"),
        ];
        let good = [(net("10.0.0.2/32"), id("102")), (net("2001:db8::/64"), id("103"))];
        for (line, why) in bad {
            let text = [b"# list\n10.0.0.2 102 # the first\n", line, b"\n\n 2001:db8::/64\t103"].concat();
            let listed = parse(&text);
            assert_eq!(listed.entries, good, "{why}");
            assert_eq!(listed.problems.len(), 1, "{:?}", listed.problems);
            let problem = &listed.problems[0];
            assert!(problem.starts_with("/state/addresses:3: the line is skipped: "), "{problem}");
            assert!(problem.contains(why), "{problem}");
        }
        let long = [b"10.0.0.2 102\n10.0.0.1 ", &[b'7'; 10 << 20][..], b"\n2001:db8::/64 103\n"].concat();
        let listed = parse(&long);
        assert_eq!(listed.entries, good);
        assert!(listed.problems[0].contains("longer than 1024 bytes") && listed.problems[0].len() < 200);
    }

    #[test]
    fn line_ends_and_marks_of_other_systems_are_accepted() {
        let listed = parse(b"\xef\xbb\xbf10.0.0.2 102\r\n# comment\r\n\r\n2001:db8::/64 103\r\n");
        assert_eq!(listed.entries, [(net("10.0.0.2/32"), id("102")), (net("2001:db8::/64"), id("103"))]);
        assert_eq!(listed.problems, [""; 0]);
    }

    #[test]
    fn changes_keep_bad_lines_and_comments() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let file = AddressFile::new(directory.path());
        fs::write(&path, b"\xef\xbb\xbf10.0.0.9 109\r\n10.0.0.1 # whose?\n\xff\n10.0.0.2 102").unwrap();
        file.add(net("10.0.0.3/32"), &[id("103")]).unwrap();
        file.remove(net("10.0.0.2/32")).unwrap();
        let kept = fs::read(&path).unwrap();
        assert_eq!(kept, b"\xef\xbb\xbf10.0.0.9 109\r\n10.0.0.1 # whose?\n\xff\n10.0.0.3/32 103\n");
        file.remove(net("10.0.0.9/32")).unwrap();
        assert_eq!(file.read(None).entries, [(net("10.0.0.3/32"), id("103"))]);
    }

    #[test]
    fn of_two_lines_for_one_address_the_later_counts_and_both_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let file = AddressFile::new(directory.path());
        fs::write(directory.path().join(FILE_NAME), "10.0.0.1 101\n10.0.0.1/32 102\n").unwrap();
        file.add(net("10.0.0.1/32"), &[id("102")]).unwrap();
        let refused = file.add(net("10.0.0.1/32"), &[id("101")]).unwrap_err().to_string();
        assert!(refused.contains("belongs to container 102"), "{refused}");
        file.remove(net("10.0.0.1/32")).unwrap();
        assert_eq!(file.read(None).entries, []);
    }

    #[test]
    fn a_list_that_is_gone_empty_or_unreadable_costs_no_address() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let file = AddressFile::new(directory.path());
        // Without a list there is nothing to miss.
        assert_eq!(file.read(None), ListedAddresses::default());
        file.keep().unwrap();
        fs::write(at(FILE_NAME), "").unwrap();
        assert_eq!(file.read(None), ListedAddresses::default());
        // Written by hand, and seen by the daemon.
        fs::write(at(FILE_NAME), "10.0.0.1 101\n10.0.0.2 102\n").unwrap();
        file.keep().unwrap();
        let both = [(net("10.0.0.1/32"), id("101")), (net("10.0.0.2/32"), id("102"))];
        let lost = |what: &str, reason: &str| {
            let listed = file.read(None);
            assert_eq!((&listed.entries[..], listed.is_unknown), (&both[..], false), "{what}");
            assert_eq!(listed.problems.len(), 1, "{what}");
            assert!(listed.problems[0].contains(reason), "{what}: {:?}", listed.problems);
            // What is lost does not become the good copy.
            file.keep().unwrap();
            assert_eq!(file.read(Some(&listed)).entries, both, "{what}");
        };
        fs::write(at(FILE_NAME), "").unwrap();
        lost("emptied", "the list is empty");
        fs::remove_file(at(FILE_NAME)).unwrap();
        lost("removed", "the list is gone");
        std::os::unix::fs::symlink(at(FILE_NAME), at(FILE_NAME)).unwrap();
        lost("a loop", "oo many levels of symbolic links");
        fs::remove_file(at(FILE_NAME)).unwrap();
        fs::create_dir(at(FILE_NAME)).unwrap();
        lost("a directory", "it is a directory");
        fs::remove_dir(at(FILE_NAME)).unwrap();
        // The next change restores it.
        file.remove(net("10.0.0.1/32")).unwrap();
        assert_eq!(file.read(None).entries, both[1..]);
        file.remove(net("10.0.0.2/32")).unwrap();
        assert_eq!(file.read(None), ListedAddresses::default(), "a heading alone is meant to list nothing");
    }

    #[test]
    fn what_is_not_a_file_of_sane_size_is_refused_at_once_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        for (at, reason) in odd_files(directory.path()) {
            let what = at.display().to_string();
            let state = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink(&at, state.path().join(FILE_NAME)).unwrap();
            let file = AddressFile::new(state.path());
            let results = at_once(&what, move || {
                let read = file.read(None).problems.pop().context("no problem");
                [
                    read.and_then(|problem| Err(anyhow::anyhow!(problem))),
                    file.add(net("10.0.0.1/32"), &[id("1")]),
                    file.remove(net("10.0.0.1/32")),
                ]
            });
            for result in results {
                let error = format!("{:#}", result.unwrap_err());
                assert!(error.contains(reason), "{what}: {error}");
            }
            assert!(state.path().join(FILE_NAME).is_symlink(), "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_or_lose_a_good_line(bytes: Vec<u8>) {
            let mut text = bytes;
            text.extend_from_slice(b"\n10.0.0.1 101\n");
            let listed = parse(&text);
            prop_assert_eq!(listed.entries.last(), Some(&(net("10.0.0.1/32"), id("101"))));
        }
    }
}
