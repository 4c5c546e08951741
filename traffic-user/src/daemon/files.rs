//! Acting on changes of files while the daemon runs: the class file, and Virtuozzo's container files.

use std::mem;

use anyhow::{Context as _, bail};
use traffic_classes::ClassTable;
use traffic_ledger::DrainTrigger;

use crate::{
    class_source,
    config::Config,
    daemon::{
        file_watch::Changed,
        worker::{Worker, log_failure},
    },
    kernel::{load::ProgramChoice, tables},
};

/// What becomes of the table in force when another can't be had.
const STAYS: &str = "the table in force stays in force";

/// The class file as the daemon follows it.
pub(super) struct Classes {
    /// What was looked at last, in force or refused.
    seen: class_source::Seen,
    /// It is good, but could not be loaded; it is tried again.
    waiting: bool,
}

impl Classes {
    /// The file as it is now.
    pub(super) fn look(config: &Config) -> Self {
        Self { seen: class_source::look(config), waiting: false }
    }

    /// Whether a good file is still to be loaded.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }
}

impl Worker {
    /// Puts a class table in force; what was counted so far is booked under the old one.
    pub(super) fn load_classes(&mut self, table: ClassTable) -> anyhow::Result<()> {
        let mut session = self.host.begin(ProgramChoice::Pinned)?;
        let prepared = tables::prepare(session.maps(), &table, &|_, _| {})?;
        self.ledger.drain(session.maps(), DrainTrigger::Event)?;
        prepared.switch(session.maps_mut())?;
        tracing::info!("{} prefixes in {} classes are in force", table.len(), table.classes_in_use().len());
        log_failure("keeping the class table", self.ledger.store_class_table(session.maps(), || Ok(table)));
        Ok(())
    }

    pub(super) fn files_changed(&mut self, changed: Changed) {
        if changed.classes {
            log_failure("following the class file", self.follow_class_file());
        }
        if changed.identities {
            log_failure("following container files", self.resync());
        }
        // Tests wait for the first of these: it ends the start, which lists everything once more.
        tracing::debug!("changed files were read");
    }

    /// Loads the class file if it is another than the one looked at last. One that is refused, or that is gone, is said
    /// once, and the table in force stays.
    pub(super) fn follow_class_file(&mut self) -> anyhow::Result<()> {
        let seen = class_source::look(self.host.config());
        if seen != self.classes.seen {
            self.classes = Classes { seen, waiting: false };
        } else if !self.classes.waiting {
            return Ok(());
        }
        match &self.classes.seen {
            class_source::Seen::Nothing => {
                tracing::warn!("the class file is gone; {STAYS}");
                return Ok(());
            }
            class_source::Seen::Unreadable { path, reason } => {
                bail!("cannot read {}: {reason}; {STAYS}", path.display())
            }
            class_source::Seen::File { .. } => {}
        }
        let table = class_source::configured_table(self.host.config()).context(STAYS)?;
        self.take_over(table)
    }

    /// Puts the table of the class file just looked at in force, if it is one.
    pub(super) fn take_over(&mut self, table: ClassTable) -> anyhow::Result<()> {
        let tried_before = mem::replace(&mut self.classes.waiting, true);
        if table.is_empty() {
            // Most likely its writer has emptied it and not written yet; nobody means all traffic to be class 0.
            if !tried_before {
                tracing::warn!("the class file names no network: the table in force stays until it does");
            }
            return Ok(());
        }
        self.load_classes(table).context(STAYS)?;
        self.classes.waiting = false;
        Ok(())
    }
}
