//! Messages between the event loop and the worker.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aya::Ebpf;

use super::{class_loader::Delivery, file_watch::Changed};
use crate::{
    api::{Source, drain_health::DrainHealth},
    config::Config,
    net::events::Batch,
    ownership::identity_command::Answers,
    platform::survey::Survey,
};

/// Work that waits for the worker.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Events of interfaces.
    pub events: Option<Batch>,
    /// Resync: compare all interfaces with what is attached.
    pub resync: bool,
    /// Drain the counters.
    pub drain: bool,
    /// Look whether a threshold of a quota was reached since the last drain.
    pub look: bool,
    /// Roll up and drop older rows of the ledger.
    pub maintain: bool,
    /// Read the configuration again.
    pub reload: bool,
    /// Files that changed.
    pub files: Changed,
    /// A configuration or a class table that is to be put in force.
    pub delivery: Option<Delivery>,
    /// What the identity command answered.
    pub answers: Option<Answers>,
    /// A later look at the platforms on this host.
    pub survey: Option<Survey>,
    /// Drain once more and end.
    pub stop: bool,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.events.is_none()
            && self.answers.is_none()
            && self.survey.is_none()
            && self.delivery.is_none()
            && self.files == Changed::default()
            && !(self.resync || self.drain || self.look || self.maintain || self.reload || self.stop)
    }
}

/// Holds the work that the loop posts, and flags that both sides read at any time.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    work: Mutex<Work>,
    posted: Condvar,
    /// Whether the identity command or the platforms are being asked.
    pub is_asking: AtomicBool,
    /// Whether any interface's container is unknown.
    pub is_waiting: AtomicBool,
    stopping: AtomicBool,
    /// What the worker does.
    pub worker: Progress,
    /// What the thread does that loads classes.
    pub loader: Progress,
}

/// What a thread does at the moment, and since when.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Option<(&'static str, Instant)>>);

impl Progress {
    /// Begins a piece of work, which ends when the result is dropped.
    pub fn begin(&self, doing: &'static str) -> Busy<'_> {
        self.set(Some((doing, Instant::now())));
        Busy(self)
    }

    /// The present work and its time so far; `None` without work.
    pub fn now(&self) -> Option<(&'static str, Duration)> {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.map(|(doing, since)| (doing, since.elapsed()))
    }

    fn set(&self, work: Option<(&'static str, Instant)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = work;
    }
}

/// A piece of work.
#[derive(Debug)]
pub(super) struct Busy<'a>(&'a Progress);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl Mailbox {
    /// Adds work.
    pub fn post(&self, add: impl FnOnce(&mut Work)) {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        add(&mut work);
        if work.stop {
            self.stopping.store(true, Ordering::Relaxed);
        }
        drop(work);
        self.posted.notify_one();
    }

    /// Whether the process is to end, so that work that can be left should be. Stays so once the end is taken
    /// from the mailbox.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
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
    /// Another process writes the ledger; the drain should be repeated soon.
    DrainSoon,
    /// When to look next whether a threshold of a quota was reached; `None` for not before the next drain.
    LookAt(Option<Instant>),
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
    /// The results of drains; `None` if no ledger is kept.
    pub drains: Option<Arc<DrainHealth>>,
    /// The object of the program, as the source of its log lines.
    pub log: Option<Ebpf>,
}
