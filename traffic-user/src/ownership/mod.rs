//! Whose interface and whose address is what, put together from all places where it is written.

pub mod addresses;
pub mod identity_command;
pub mod interface_rules;
mod known;
pub mod vz_conf;

pub use known::UnknownContainer;

use std::path::Path;

use crate::{
    config::Config,
    ownership::{
        addresses::{AddressFile, AddressOwners},
        interface_rules::InterfaceRules,
        vz_conf::VzConf,
    },
};

/// What is known of containers' interfaces and addresses at one reading.
#[derive(Debug)]
pub struct Ownership {
    /// Whose interface it is.
    pub naming: InterfaceRules,
    /// Whose address it is.
    pub addresses: AddressOwners,
    vz: VzConf,
    complaints: Vec<String>,
}

impl Ownership {
    /// Reads Virtuozzo's files and the list in the state directory. What can't be used of the former is a complaint; of a
    /// file that can't be read now, what an `earlier` reading found still holds.
    ///
    /// # Errors
    /// When the list can't be read or has a wrong line.
    pub fn read(config: &Config, state_dir: &Path, earlier: Option<&Self>) -> anyhow::Result<Self> {
        let vz = vz_conf::scan(&config.vz_conf_dir, earlier.map(|earlier| &earlier.vz));
        let addresses = AddressOwners::merge(&vz, config, &AddressFile::new(state_dir).read()?);
        let complaints = vz
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .chain(addresses.conflicts.iter().map(ToString::to_string));
        let complaints = complaints.collect();
        Ok(Self { naming: InterfaceRules::new(config, &vz)?, complaints, addresses, vz })
    }

    /// Logs the complaints, but for those that were made of an earlier reading already.
    pub fn complain(&self, earlier: Option<&Self>) {
        let known = earlier.map_or(&[][..], |earlier| &earlier.complaints);
        for complaint in self.complaints.iter().filter(|complaint| !known.contains(complaint)) {
            tracing::warn!("{complaint}");
        }
    }
}
