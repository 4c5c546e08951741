//! Which container an interface or an address belongs to, merged from all sources.
//!
//! - [`interface_rules`]: the role of an interface, from its name, from lists, or from the command's answers.
//! - [`addresses`]: the owner of each local address on shared interfaces, and the list that `trafctl address`
//!   keeps.
//! - [`vz_conf`]: Virtuozzo's container files.
//! - [`identity_command`]: the command under `[identities]`.
//!
//! The configuration's rules and lists come from [`crate::config`]. What is then attached is decided in
//! [`crate::node`].

pub mod addresses;
pub mod identity_command;
pub mod interface_rules;
mod known;
pub mod vz_conf;

pub use known::{UnknownContainer, resolve};

use std::path::Path;

use crate::{
    config::Config,
    ownership::{
        addresses::{AddressFile, AddressOwners},
        interface_rules::NameRules,
        vz_conf::VzConf,
    },
};

/// The owners of interfaces and addresses at one reading of the files.
#[derive(Debug)]
pub struct Ownership {
    /// The rules that find an interface's owner.
    pub rules: NameRules,
    /// The owners of addresses.
    pub addresses: AddressOwners,
    vz: VzConf,
    warnings: Vec<String>,
}

impl Ownership {
    /// Reads Virtuozzo's files and the list in the state directory. Unusable parts of the former become
    /// warnings. For a file that cannot be read now, the result of the `earlier` reading is kept.
    ///
    /// # Errors
    /// When the list cannot be read or has a wrong line.
    pub fn read(config: &Config, state_dir: &Path, earlier: Option<&Self>) -> anyhow::Result<Self> {
        let vz = vz_conf::scan(&config.vz_conf_dir, earlier.map(|earlier| &earlier.vz));
        let addresses = AddressOwners::merge(&vz, config, &AddressFile::new(state_dir).read()?);
        let warnings = vz
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .chain(addresses.conflicts.iter().map(ToString::to_string));
        let warnings = warnings.collect();
        Ok(Self { rules: NameRules::new(config, &vz)?, warnings, addresses, vz })
    }

    /// Logs the warnings, except those that the earlier reading already caused.
    pub fn log_warnings(&self, earlier: Option<&Self>) {
        let known = earlier.map_or(&[][..], |earlier| &earlier.warnings);
        for warning in self.warnings.iter().filter(|warning| !known.contains(warning)) {
            tracing::warn!("{warning}");
        }
    }
}
