//! The owner of each local address, for interfaces that containers share.
//!
//! There are three sources, and a later one overrides the earlier: Virtuozzo's files, the configuration, and
//! the list that `trafctl address` keeps ([`super::address_file`]). [`crate::node`] writes the result into the
//! kernel's maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use traffic_model::ContainerId;

use crate::{config::Config, ownership::vz_conf::VzConf};

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
    /// Whether it is that of a device on an uplink.
    pub is_on_uplink: bool,
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
        let on_uplink = config.containers.iter().filter(|container| container.on_uplink);
        let config = config.containers.iter().flat_map(|container| {
            let entry = |&prefix: &IpNet| (prefix, container.id.clone(), Source::Config);
            container.addresses.iter().map(entry)
        });
        let listed = listed.iter().map(|(prefix, id)| (*prefix, id.clone(), Source::CommandLine));

        let aliases = vz_conf.aliases();
        let known_as = |id: &ContainerId| aliases.get(id).cloned().unwrap_or_else(|| id.clone());
        let on_uplink: BTreeSet<ContainerId> = on_uplink.map(|container| known_as(&container.id)).collect();
        let mut entries: BTreeMap<IpNet, AddressEntry> = BTreeMap::new();
        let mut conflicts = Vec::new();
        for (prefix, container, source) in vz.chain(config).chain(listed) {
            let container = known_as(&container);
            let is_on_uplink = on_uplink.contains(&container);
            let winner = AddressEntry { prefix, container, source, is_on_uplink };
            if let Some(loser) = entries.insert(prefix, winner.clone())
                && loser.container != winner.container
            {
                conflicts.push(Conflict { winner, loser });
            }
        }
        // An address with three claims has one owner.
        for conflict in &mut conflicts {
            if let Some(last) = entries.get(&conflict.winner.prefix) {
                conflict.winner = last.clone();
            }
        }
        conflicts.retain(|conflict| conflict.winner.container != conflict.loser.container);
        Self { entries: entries.into_values().collect(), conflicts }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn each_claim_of_an_address_names_the_owner_that_counts() {
        let listed = [("10.0.0.5/32", "101"), ("10.0.0.5/32", "102"), ("10.0.0.5/32", "103")];
        let conflicts = |listed: &[(&str, &str)]| -> Vec<String> {
            let listed: Vec<_> = listed.iter().map(|(prefix, owner)| (net(prefix), id(owner))).collect();
            let config = Config::parse("", Path::new("t.toml")).unwrap();
            let merged = AddressOwners::merge(&VzConf::default(), &config, &listed);
            merged.conflicts.iter().map(ToString::to_string).collect()
        };
        let lines = conflicts(&listed);
        assert!(
            lines.len() == 2 && lines.iter().all(|line| line.ends_with("it is counted for 103")),
            "{lines:?}"
        );
        let back = conflicts(&[listed[0], listed[1], listed[0]]);
        assert_eq!(
            back,
            [
                "10.0.0.5/32 is claimed by container 102 (command line) and container 101 (command line); it is counted \
              for 101"
            ]
        );
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
}
