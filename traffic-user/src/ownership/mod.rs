//! Which container an interface or an address belongs to, merged from all sources.
//!
//! - [`interface_rules`]: the role of an interface, from its name, from lists, or from the command's answers.
//! - [`addresses`]: the owner of each local address on shared interfaces.
//! - [`address_file`]: the list that `trafctl address` keeps.
//! - [`names`]: what people call containers.
//! - [`vz_conf`]: Virtuozzo's container files.
//! - [`identity_command`]: the command under `[identities]`.
//!
//! The configuration's rules and lists come from [`crate::config`]. What is then attached is decided in
//! [`crate::node`].

pub mod address_file;
pub mod addresses;
mod descendants;
pub mod identity_command;
pub mod interface_rules;
mod known;
pub mod names;
pub mod vz_conf;

pub use known::{UnknownContainer, ids_in_ledger, resolve};
pub use names::{AmbiguousName, ContainerNames};

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use traffic_model::ContainerId;

use crate::{
    config::Config,
    ownership::{
        address_file::{AddressFile, ListedAddresses},
        addresses::AddressOwners,
        interface_rules::NameRules,
        vz_conf::VzConf,
    },
};

/// Most problems that are listed one by one.
const SHOWN_PROBLEMS: usize = 20;

/// The owners of interfaces and addresses at one reading of the files.
#[derive(Debug)]
pub struct Ownership {
    /// The rules that find an interface's owner.
    pub rules: NameRules,
    /// The owners of addresses.
    pub addresses: AddressOwners,
    vz: VzConf,
    listed: ListedAddresses,
}

impl Ownership {
    /// Reads Virtuozzo's files and the list in the state directory. What is unusable in them becomes a
    /// problem, and everything else is used. For a file that cannot be read now, the result of the `earlier`
    /// reading is kept.
    ///
    /// # Errors
    /// When a preset's rules are invalid.
    pub fn read(config: &Config, state_dir: &Path, earlier: Option<&Self>) -> anyhow::Result<Self> {
        let vz = vz_conf::scan(&config.vz_conf_dir, earlier.map(|earlier| &earlier.vz));
        let listed = AddressFile::new(state_dir).read(earlier.map(|earlier| &earlier.listed));
        let addresses = AddressOwners::merge(&vz, config, &listed.entries);
        Ok(Self { rules: NameRules::new(config, &vz)?, addresses, vz, listed })
    }

    /// Reads the list in the state directory again, which other processes change.
    pub fn read_list_again(&mut self, config: &Config, state_dir: &Path) {
        let listed = AddressFile::new(state_dir).read(Some(&self.listed));
        if listed != self.listed {
            self.addresses = AddressOwners::merge(&self.vz, config, &listed.entries);
            self.listed = listed;
        }
    }

    /// What people call the containers, with the names that platforms know.
    pub fn names(&self, config: &Config, of_platforms: &BTreeMap<ContainerId, String>) -> ContainerNames {
        ContainerNames::merge(config, &self.vz, of_platforms, |id| self.rules.main_id(id))
    }

    /// What cannot be used of the files: each costs the containers concerned their addresses or interfaces.
    /// And which addresses two containers claim: one of them pays for the other.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<_> = self.messages().collect();
        let more = problems.len().saturating_sub(SHOWN_PROBLEMS);
        if more > 0 {
            problems.truncate(SHOWN_PROBLEMS);
            problems.push(format!("... and {more} more problems of files that name owners; see the log"));
        }
        problems
    }

    /// Whether everything that names owners could be read. If not, an address that no longer has an owner may
    /// still have one.
    pub fn is_complete(&self) -> bool {
        !self.listed.is_unknown && self.vz.is_complete
    }

    /// Whether every line of the list in the state directory is used.
    pub fn uses_whole_list(&self) -> bool {
        self.listed.problems.is_empty()
    }

    /// Logs what is wrong, except what the earlier reading already caused.
    pub fn log_warnings(&self, earlier: Option<&Self>) {
        let known: HashSet<String> = earlier.map(Self::messages).into_iter().flatten().collect();
        for message in self.messages().filter(|message| !known.contains(message)) {
            tracing::warn!("{message}");
        }
    }

    fn messages(&self) -> impl Iterator<Item = String> {
        let of_vz = self.vz.diagnostics.iter().map(ToString::to_string);
        let conflicts = self.addresses.conflicts.iter().map(ToString::to_string);
        self.listed.problems.iter().cloned().chain(of_vz).chain(conflicts)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_a_problem_and_what_was_read_before_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("addresses"), "10.0.0.1 101\n10.0.0.2\n").unwrap();
        fs::write(at("305.conf"), "IP_ADDRESS=\"10.0.3.5\"\n").unwrap();
        let config = format!("vz_conf_dir = {:?}\n", directory.path());
        let config = Config::parse(&config, Path::new("t.toml")).unwrap();
        let first = Ownership::read(&config, directory.path(), None).unwrap();
        let owners = |of: &Ownership| -> Vec<_> {
            of.addresses.entries.iter().map(|entry| format!("{} {}", entry.prefix, entry.container)).collect()
        };
        let both = ["10.0.0.1/32 101", "10.0.3.5/32 305"];
        assert_eq!(owners(&first), both);
        let problems = first.problems();
        assert!(problems[0].contains("addresses:2: the line is skipped"), "{problems:?}");
        assert!(!first.uses_whole_list());

        for name in ["addresses", "305.conf"] {
            fs::remove_file(at(name)).unwrap();
            crate::files::tests::make_fifo(&at(name));
        }
        let later = Ownership::read(&config, directory.path(), Some(&first)).unwrap();
        assert_eq!(owners(&later), both);
        let problems = later.problems();
        assert!(problems[0].contains("it is a FIFO") && problems[0].contains("read before"), "{problems:?}");
        assert!(problems[1].contains("305.conf: cannot read it: it is a FIFO"), "{problems:?}");
        let fresh = Ownership::read(&config, directory.path(), None).unwrap();
        assert_eq!((owners(&fresh).len(), fresh.problems().len()), (0, 2));
    }

    #[test]
    fn two_containers_with_one_address_are_a_problem_that_names_both() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("305.conf"), "IP_ADDRESS=\"10.0.3.5\"\n").unwrap();
        fs::write(directory.path().join("306.conf"), "IP_ADDRESS=\"10.0.3.5 10.0.3.6\"\n").unwrap();
        let config = format!("vz_conf_dir = {:?}\n", directory.path());
        let config = Config::parse(&config, Path::new("t.toml")).unwrap();
        let ownership = Ownership::read(&config, directory.path(), None).unwrap();
        assert_eq!(
            ownership.problems(),
            [
                "10.0.3.5/32 is claimed by container 305 (Virtuozzo's file) and container 306 (Virtuozzo's file); it is \
              counted for 306"
            ]
        );
        assert!(ownership.is_complete(), "a conflict hides nothing");
    }

    #[test]
    fn a_directory_that_had_containers_does_not_lose_them_all_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let conf = directory.path().join("conf");
        let config = Config::parse(&format!("vz_conf_dir = {conf:?}\n"), Path::new("t.toml")).unwrap();
        let read = |earlier: Option<&Ownership>| {
            let ownership = Ownership::read(&config, directory.path(), earlier).unwrap();
            let known =
                (ownership.addresses.entries.len(), ownership.problems().len(), ownership.is_complete());
            (ownership, known)
        };
        assert_eq!(read(None).1, (0, 0, true), "no Virtuozzo");
        fs::create_dir(&conf).unwrap();
        for id in 5..8 {
            fs::write(conf.join(format!("30{id}.conf")), format!("IP_ADDRESS=\"10.0.3.{id}\"\n")).unwrap();
        }
        let (first, known) = read(None);
        assert_eq!(known, (3, 0, true));
        fs::remove_file(conf.join("305.conf")).unwrap();
        let (second, known) = read(Some(&first));
        assert_eq!(known, (2, 0, true), "a container was destroyed");
        fs::rename(&conf, directory.path().join("elsewhere")).unwrap();
        let (third, known) = read(Some(&second));
        assert_eq!(known, (2, 1, false), "the file system was unmounted");
        assert_eq!(read(Some(&third)).1, (2, 1, false), "and still is");
        fs::rename(directory.path().join("elsewhere"), &conf).unwrap();
        assert_eq!(read(Some(&third)).1, (2, 0, true));
    }

    #[test]
    fn another_process_change_of_the_list_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::parse("vz_conf_dir = '/nonexistent'\n", Path::new("t.toml")).unwrap();
        let mut ownership = Ownership::read(&config, directory.path(), None).unwrap();
        fs::write(directory.path().join("addresses"), "10.0.0.1 101\n").unwrap();
        ownership.read_list_again(&config, directory.path());
        assert_eq!(ownership.addresses.entries.len(), 1);
    }
}
