//! Reacts to changes of the class file and of Virtuozzo's container files.

use std::mem;

use anyhow::{Context as _, bail};
use traffic_classes::ClassTable;
use traffic_ledger::DrainTrigger;

use super::class_file::FollowedClassFile;
use crate::{
    class_source,
    daemon::{
        file_watch::Changed,
        worker::{Worker, log_failure},
    },
    kernel::{load::ProgramChoice, tables},
};

/// Added to a message about a class file that cannot be loaded.
const STAYS: &str = "the table in force stays in force";

impl Worker {
    /// Switches to another class table. What was counted so far is drained under the old one first.
    pub(super) fn load_classes(&mut self, table: ClassTable) -> anyhow::Result<()> {
        let mut session = self.host.begin(ProgramChoice::Pinned)?;
        let prepared = tables::prepare(session.maps(), &table, &|_, _| {})?;
        self.ledger.drain(session.maps(), DrainTrigger::Event)?;
        prepared.switch(session.maps_mut())?;
        tracing::info!("{}", class_source::in_force(&table));
        log_failure("keeping the class table", self.ledger.store_class_table(session.maps(), || Ok(table)));
        Ok(())
    }

    pub(super) fn files_changed(&mut self, changed: Changed) {
        if changed.classes {
            log_failure("following the class file", self.follow_class_file());
        }
        if changed.container_files {
            log_failure("following container files", self.resync());
        }
        // Tests wait for the first of these: it ends the start, which lists everything once more.
        tracing::debug!("changed files were read");
    }

    /// Loads the class file if it differs from the one that was examined last. A file that is refused or gone
    /// is reported once, and the table in force stays.
    pub(super) fn follow_class_file(&mut self) -> anyhow::Result<()> {
        let seen = class_source::look(self.host.config());
        if seen != self.classes.seen {
            self.classes = FollowedClassFile { seen, waiting: false };
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

    /// Switches to the table of the class file that was just examined, unless it is empty.
    pub(super) fn take_over(&mut self, table: ClassTable) -> anyhow::Result<()> {
        let tried_before = mem::replace(&mut self.classes.waiting, true);
        if table.is_empty() {
            // Its writer has most likely truncated it and not written it yet. An empty table would put all
            // traffic into class 0.
            if !tried_before {
                tracing::warn!("the class file contains no network; {STAYS} until it does");
            }
            return Ok(());
        }
        self.load_classes(table).context(STAYS)?;
        self.classes.waiting = false;
        Ok(())
    }
}
