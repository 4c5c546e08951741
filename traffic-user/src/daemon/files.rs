//! What the worker does with a finished configuration or class table, and with changes of files.

use anyhow::Context as _;
use traffic_ledger::DrainTrigger;

use super::class_loader::{Delivery, Handover};
use crate::{
    daemon::{file_watch::Changed, mailbox::WorkerEvent, worker::Worker},
    kernel::{
        load::{self, ProgramChoice},
        tables::Prepared,
    },
    node::Host,
};

impl Worker {
    pub(super) fn files_changed(&mut self, changed: Changed) {
        if changed.classes {
            self.loader.follow();
        }
        if changed.container_files {
            self.resync_or_retry("following container files");
        }
        // Tests wait for the first of these: it ends the start, which lists everything once more.
        tracing::debug!("changed files were read");
    }

    /// Puts in force what the loader has finished.
    pub(super) fn take_delivery(&mut self, delivery: Delivery) {
        let Delivery { what, done } = delivery;
        let result = match what {
            Handover::Table(prepared) => self.switch_classes(*prepared),
            Handover::Host(host) => self.take_over_host(*host),
        };
        // The loader waits for it, as long as the process lives.
        drop(done.send(result));
    }

    /// Switches to another class table. What was counted so far is drained under the old one first.
    fn switch_classes(&mut self, prepared: Prepared) -> anyhow::Result<()> {
        let bpffs = &self.host.bpffs;
        let _lock = bpffs.lock()?;
        let mut maps = load::open(bpffs)?;
        self.ledger.drain(&maps, DrainTrigger::Event).context("the ledger must be drained first")?;
        prepared.switch(&mut maps)
    }

    /// Takes over another configuration. The loader asks for the resync once the class table is in force too:
    /// a listing can take seconds while other processes hold the kernel's lock.
    fn take_over_host(&mut self, mut host: Host) -> anyhow::Result<()> {
        host.held = self.host.held.clone();
        host.adopt_survey(self.host.policy.survey().clone());
        self.ledger.apply_config(host.config());
        let (new, old) = (host.config(), self.host.config());
        let other_program = new.skb_mark != old.skb_mark || new.limits != old.limits;
        self.host = host;
        self.config.set(self.host.config());
        self.host.keep_good_files();
        self.report(WorkerEvent::Reloaded(Box::new(self.host.config().clone())));
        if other_program && self.logs_faults {
            tracing::warn!(
                "[shaping] or [limits] has changed: with --log-faults the change takes effect when trafctl is \
                 restarted"
            );
        } else if other_program {
            // Another variant of the program, or the same one on larger maps.
            let replaced = self.host.begin(ProgramChoice::Current).map(drop);
            self.log_or_retry("replacing the program", replaced);
        }
        Ok(())
    }
}
