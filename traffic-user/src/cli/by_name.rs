//! A name in place of an id, for commands that cannot be undone.
//!
//! A name can pass to another container at any moment. So it is accepted where a command only shows what it would
//! do, and that shows the id. What is done needs the id.

use anyhow::bail;
use traffic_model::ContainerId;

use crate::{
    cli::{Global, confirm::Confirm},
    config::Config,
    drain::ledger_path,
    kernel::{counters, load},
};

impl Global {
    /// The container that was meant. What is no id of a counted or recorded container may be the name of one.
    ///
    /// # Errors
    /// For a name of several containers, and for any name where the command is to do it.
    pub(super) fn meant(
        &self,
        config: &Config,
        typed: &ContainerId,
        confirm: Confirm,
    ) -> anyhow::Result<ContainerId> {
        let ids = self.all_ids(config, std::slice::from_ref(typed))?;
        let is_counted = || {
            let snapshot = load::open(&self.pinned()).and_then(|maps| counters::read(&maps, &config.node));
            snapshot.is_ok_and(|snapshot| ids.iter().any(|id| snapshot.containers().contains(id)))
        };
        if self.is_recorded(&ids)? || is_counted() {
            return Ok(typed.clone());
        }
        match self.named(config, typed.as_str())? {
            Some(id) if confirm.yes => bail!(
                "{typed} is the name of container {id}; this cannot be undone, so write {id} in place of the name"
            ),
            Some(id) => Ok(id),
            None => Ok(typed.clone()),
        }
    }

    fn is_recorded(&self, ids: &[ContainerId]) -> anyhow::Result<bool> {
        if !ledger_path(&self.state_dir).try_exists()? {
            return Ok(false);
        }
        let ledger = self.ledger()?;
        for id in ids {
            if ledger.knows_container(id.as_str())? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
