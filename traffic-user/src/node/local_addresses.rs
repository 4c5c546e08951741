//! Which addresses are a container's or the node's own, told to the program.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use ipnet::IpNet;
use traffic_common::ADDRESS_WITHOUT_SLOT;
use traffic_model::ContainerId;

use crate::{
    kernel::{maps::Maps, tables},
    node::{Host, Session},
};

/// How more addresses find room.
pub const MORE_ADDRESSES: &str =
    "raise `addresses` under [limits], then start anew with `trafctl detach --purge` and `trafctl attach`";

/// How many addresses were last said to have found no room.
#[derive(Debug, Default)]
pub(super) struct SaidFull(Cell<usize>);

impl SaidFull {
    /// Says it if it is news. `text` is given their number and one of them.
    fn say<T: Display>(&self, without_room: &[T], text: impl FnOnce(&str) -> String) {
        if self.0.replace(without_room.len()) == without_room.len() {
            return;
        }
        if let Some(first) = without_room.first() {
            tracing::error!("{}", text(&format!("{} ({first}, ...)", without_room.len())));
        }
    }
}

impl Host {
    /// The configured addresses with the slots of their owners.
    pub(super) fn addresses(
        &self,
        mut slot: impl FnMut(&ContainerId) -> anyhow::Result<Option<u32>>,
    ) -> anyhow::Result<BTreeMap<IpNet, u32>> {
        let entries = self.identities.addresses.entries.iter();
        entries
            .map(|entry| Ok((entry.prefix, slot(&entry.container)?.unwrap_or(ADDRESS_WITHOUT_SLOT))))
            .collect()
    }

    /// Whether a container has an address by configuration, and so needs no interface to be there.
    pub fn owns_address(&self, id: &str) -> bool {
        self.identities.addresses.entries.iter().any(|entry| entry.container.as_str() == id)
    }

    /// The configured addresses that the program does not know.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn addresses_missing(&self, maps: &Maps) -> anyhow::Result<Vec<IpNet>> {
        let in_force = tables::addresses_in_force(maps)?;
        let configured = self.identities.addresses.entries.iter().map(|entry| entry.prefix.trunc());
        Ok(configured.filter(|prefix| !in_force.contains(prefix)).collect())
    }

    /// Tells the program the node's own addresses, if there is an uplink to tell them on.
    ///
    /// # Errors
    /// When they can't be listed or written.
    pub async fn sync_node_addresses(&self, session: &mut Session) -> anyhow::Result<()> {
        let own = if self.config.uplinks.is_empty() {
            BTreeSet::new()
        } else {
            self.netlink.own_addresses().await?
        };
        let without_room = tables::sync_node_addresses(&mut session.loaded.maps, &own)?;
        self.said_full_for_node.say(&without_room, |named| {
            format!("there is no room for {named} of the node's own addresses: what they send and get is not counted for it")
        });
        Ok(())
    }

    /// Brings the kernel's local addresses into line with the configuration's. For which of them there is no room is said
    /// once, and the others are in force.
    ///
    /// # Errors
    /// When a map can't be written.
    pub fn sync_addresses(&self, session: &mut Session) -> anyhow::Result<()> {
        let wanted = self.addresses(|id| self.container_slot(session, id))?;
        let without_room = tables::sync_addresses(&mut session.loaded.maps, &wanted)?;
        self.said_full.say(&without_room, |named| {
            format!(
                "there is no room for {named} of the containers' addresses: on shared interfaces their packets are counted as \
                 no_container; {MORE_ADDRESSES}"
            )
        });
        Ok(())
    }
}
