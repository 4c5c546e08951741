//! The owner of each local address, for interfaces that containers share.
//!
//! There are three sources, and a later one overrides the earlier: Virtuozzo's files, the configuration, and
//! the list that `trafctl address` keeps in the state directory. [`crate::node`] writes the result into the
//! kernel's maps.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use traffic_model::{ContainerId, notation::parse_prefix};

use crate::{config::Config, ownership::vz_conf::VzConf, state_file};

/// Name of the list in the state directory.
const FILE_NAME: &str = "addresses";

/// The source of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `IP_ADDRESS=` in a Virtuozzo file.
    VzConf,
    /// `[[container]]` in the configuration.
    Config,
    /// `trafctl address add`.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VzConf => "Virtuozzo's file",
            Self::Config => "configuration",
            Self::CommandLine => "command line",
        })
    }
}

/// One address with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressEntry {
    /// The address or prefix.
    pub prefix: IpNet,
    /// The owner.
    pub container: ContainerId,
    /// Where it was found.
    pub source: Source,
}

/// An address that two containers claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The entry that counts.
    pub winner: AddressEntry,
    /// The entry that is overridden.
    pub loser: AddressEntry,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { winner, loser } = self;
        write!(
            f,
            "{} is claimed by container {} ({}) and container {} ({}); it is counted for {}",
            winner.prefix, loser.container, loser.source, winner.container, winner.source, winner.container
        )
    }
}

/// All addresses with their owners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressOwners {
    /// Sorted by prefix, each once.
    pub entries: Vec<AddressEntry>,
    /// Addresses with two claims.
    pub conflicts: Vec<Conflict>,
}

impl AddressOwners {
    /// Merges the sources.
    pub fn merge(vz_conf: &VzConf, config: &Config, listed: &[(IpNet, ContainerId)]) -> Self {
        let vz = vz_conf.containers.iter().flat_map(|container| {
            let entry = |&address: &IpAddr| (IpNet::from(address), container.id.clone(), Source::VzConf);
            container.addresses.iter().map(entry)
        });
        let config = config.containers.iter().flat_map(|container| {
            let entry = |&prefix: &IpNet| (prefix, container.id.clone(), Source::Config);
            container.addresses.iter().map(entry)
        });
        let listed = listed.iter().map(|(prefix, id)| (*prefix, id.clone(), Source::CommandLine));

        let aliases = vz_conf.aliases();
        let mut entries: BTreeMap<IpNet, AddressEntry> = BTreeMap::new();
        let mut conflicts = Vec::new();
        for (prefix, container, source) in vz.chain(config).chain(listed) {
            let container = aliases.get(&container).cloned().unwrap_or(container);
            let winner = AddressEntry { prefix, container, source };
            if let Some(loser) = entries.insert(prefix, winner.clone())
                && loser.container != winner.container
            {
                conflicts.push(Conflict { winner, loser });
            }
        }
        Self { entries: entries.into_values().collect(), conflicts }
    }
}

/// The list that `trafctl address` keeps.
#[derive(Clone, Debug)]
pub struct AddressFile {
    path: PathBuf,
}

impl AddressFile {
    /// The list in this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE_NAME) }
    }

    /// Reads the list. It is empty if the file does not exist.
    ///
    /// # Errors
    /// When the file cannot be read or a line is wrong.
    pub fn read(&self) -> anyhow::Result<Vec<(IpNet, ContainerId)>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        };
        let mut entries = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let place = || format!("{}:{}", self.path.display(), at + 1);
            let (prefix, id) = line
                .split_once(char::is_whitespace)
                .with_context(|| format!("{}: no container follows the address", place()))?;
            let prefix = parse_prefix(prefix).map_err(anyhow::Error::msg).with_context(place)?;
            let id = ContainerId::of_container(id.trim()).with_context(place)?;
            entries.push((prefix, id));
        }
        Ok(entries)
    }

    /// Assigns an address to a container, given by all its ids, the main one first. Succeeds if the container
    /// has it already.
    ///
    /// # Errors
    /// When the list assigns it to another container, or cannot be written.
    pub fn add(&self, prefix: IpNet, container: &[ContainerId]) -> anyhow::Result<()> {
        let main = container.first().context("an address needs an owner")?;
        let mut entries = self.read()?;
        match entries.iter().find(|(listed, _)| *listed == prefix) {
            Some((_, owner)) if container.contains(owner) => return Ok(()),
            Some((_, owner)) => bail!(
                "{prefix} belongs to container {owner}; remove it first with `trafctl address remove \
                 {prefix}`"
            ),
            None => entries.push((prefix, main.clone())),
        }
        self.write(&entries)
    }

    /// Removes an address from the list.
    ///
    /// # Errors
    /// When the list does not contain it, or cannot be written.
    pub fn remove(&self, prefix: IpNet) -> anyhow::Result<()> {
        let mut entries = self.read()?;
        let before = entries.len();
        entries.retain(|(listed, _)| *listed != prefix);
        if entries.len() == before {
            bail!(
                "{prefix} was not assigned with `trafctl address add`; `trafctl address list` shows where \
                 it comes from"
            );
        }
        self.write(&entries)
    }

    fn write(&self, entries: &[(IpNet, ContainerId)]) -> anyhow::Result<()> {
        let mut text = "# address or prefix, container; kept by `trafctl address`\n".to_owned();
        for (prefix, container) in entries {
            text += &format!("{prefix} {container}\n");
        }
        state_file::replace(&self.path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_later_source_overrides_with_a_warning() {
        let vz =
            crate::ownership::vz_conf::parse(Path::new("101.conf"), "IP_ADDRESS=\"10.0.0.1/24 10.0.0.2\"\n");
        let config = Config::parse(
            "[[container]]\nid = '102'\naddresses = ['10.0.0.2', '10.0.0.3']\n",
            Path::new("t.toml"),
        )
        .unwrap();
        let listed = [(net("10.0.0.3/32"), id("103")), (net("10.0.0.1/32"), id("101"))];
        let merged = AddressOwners::merge(&vz, &config, &listed);
        let owners: Vec<_> = merged
            .entries
            .iter()
            .map(|entry| format!("{} {} {}", entry.prefix, entry.container, entry.source))
            .collect();
        assert_eq!(
            owners,
            ["10.0.0.1/32 101 command line", "10.0.0.2/32 102 configuration", "10.0.0.3/32 103 command line"]
        );
        assert_eq!(
            merged.conflicts.len(),
            2,
            "the same owner twice is not a conflict: {:?}",
            merged.conflicts
        );
        assert_eq!(
            merged.conflicts[0].to_string(),
            "10.0.0.2/32 is claimed by container 101 (Virtuozzo's file) and container 102 (configuration); \
             it is counted for 102"
        );
    }

    #[test]
    fn the_list_is_kept_and_refuses_a_second_owner() {
        let directory = tempfile::tempdir().unwrap();
        let file = AddressFile::new(&directory.path().join("state"));
        assert_eq!(file.read().unwrap(), []);
        file.add(net("10.0.0.1/32"), &[id("101")]).unwrap();
        file.add(net("2001:db8::/64"), &[id("102")]).unwrap();
        file.add(net("10.0.0.1/32"), &[id("101")]).unwrap();
        assert!(
            file.add(net("10.0.0.1/32"), &[id("103")])
                .unwrap_err()
                .to_string()
                .contains("belongs to container 101")
        );
        assert_eq!(
            file.read().unwrap(),
            [(net("10.0.0.1/32"), id("101")), (net("2001:db8::/64"), id("102"))]
        );
        file.remove(net("10.0.0.1/32")).unwrap();
        assert!(file.remove(net("10.0.0.1/32")).is_err());
        assert_eq!(file.read().unwrap().len(), 1);

        fs::write(directory.path().join("state/addresses"), "# comment\n\n10.0.0.1\n").unwrap();
        let error = format!("{:#}", file.read().unwrap_err());
        assert!(error.ends_with("addresses:3: no container follows the address"), "{error}");
    }
}
