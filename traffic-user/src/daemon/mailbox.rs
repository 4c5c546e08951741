//! Messages between the event loop and the worker.

use std::sync::{Condvar, Mutex, PoisonError, atomic::AtomicBool};

use aya::Ebpf;

use super::file_watch::Changed;
use crate::{api::Source, config::Config, net::events::Batch, ownership::identity_command::Answers};

/// Work that waits for the worker.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Events of interfaces.
    pub events: Option<Batch>,
    /// Resync: compare all interfaces with what is attached.
    pub resync: bool,
    /// Drain the counters.
    pub drain: bool,
    /// Roll up and drop older rows of the ledger.
    pub maintain: bool,
    /// Read the configuration again.
    pub reload: bool,
    /// Files that changed.
    pub files: Changed,
    /// What the identity command answered.
    pub answers: Option<Answers>,
    /// Drain once more and end.
    pub stop: bool,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.events.is_none()
            && self.answers.is_none()
            && self.files == Changed::default()
            && !(self.resync || self.drain || self.maintain || self.reload || self.stop)
    }
}

/// Holds the work that the loop posts, and flags that both sides read at any time.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    work: Mutex<Work>,
    posted: Condvar,
    /// Whether the identity command is being asked.
    pub is_asking: AtomicBool,
    /// Whether any interface's container is unknown.
    pub is_waiting: AtomicBool,
}

impl Mailbox {
    /// Adds work.
    pub fn post(&self, add: impl FnOnce(&mut Work)) {
        add(&mut self.work.lock().unwrap_or_else(PoisonError::into_inner));
        self.posted.notify_one();
    }

    /// Whether the process is to end, so that work that can be left should be.
    pub fn is_stopping(&self) -> bool {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).stop
    }

    /// Waits for work and takes all of it.
    pub fn take(&self) -> Work {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        while work.is_empty() {
            work = self.posted.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut work)
    }
}

/// What the worker reports to the loop.
pub(super) enum WorkerEvent {
    /// The start is done.
    Started(Box<Started>),
    /// The start failed.
    Failed(anyhow::Error),
    /// The identity command should be asked.
    Ask,
    /// Something failed that the next resync repeats, so a resync should follow soon.
    Retry,
    /// Maintenance of the ledger has more to do.
    MaintenanceLeft,
    /// Another configuration is in force.
    Reloaded(Box<Config>),
    /// A reload is over, with or without success.
    ReloadDone,
    /// The last work is done.
    Stopped,
}

/// What the loop needs from the start.
pub(super) struct Started {
    /// The configuration.
    pub config: Config,
    /// What the API answers from.
    pub source: Source,
    /// The object of the program, as the source of its log lines.
    pub log: Option<Ebpf>,
}
