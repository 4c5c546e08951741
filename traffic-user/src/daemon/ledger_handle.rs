//! The ledger of a running daemon. It may be out of reach, at the start or later: a full disk, a damaged file, one that was
//! moved away. Counting goes on in the kernel meanwhile, each drain tries again, and the first one that succeeds takes up
//! everything.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use traffic_classes::ClassTable;
use traffic_ledger::{DrainTrigger, FileIdentity, GapReason, LedgerError};

use crate::{
    api::drain_health::DrainHealth,
    config::Config,
    drain::{self, DaemonLock, Drainer},
    kernel::maps::Maps,
};

/// The ledger, unless the configuration wants none.
pub(super) struct LedgerHandle {
    /// As it was at the start: what is kept does not change its node, zone or retention under way.
    config: Config,
    state_dir: PathBuf,
    /// Held as long as the daemon runs, from when it could be taken.
    only_one: Option<DaemonLock>,
    open: Option<Open>,
    /// Why it could not be opened lately.
    failing: Option<GapReason>,
    health: Arc<DrainHealth>,
}

/// A ledger within reach.
struct Open {
    books: Drainer,
    file: FileIdentity,
    /// Whether the class table in force is kept in it.
    has_table: bool,
}

impl LedgerHandle {
    /// Opens the ledger, if one is wanted.
    ///
    /// # Errors
    /// When it must not be written as things are: it is of a newer version, no ledger, or of another calendar. That it
    /// can't be had now is only said.
    pub(super) fn open(
        config: &Config,
        state_dir: &Path,
        only_one: Option<DaemonLock>,
    ) -> anyhow::Result<Self> {
        let mut books = Self {
            config: config.clone(),
            state_dir: state_dir.to_owned(),
            only_one,
            open: None,
            failing: None,
            health: Arc::default(),
        };
        if config.ledger_enabled
            && let Err(error) = books.reach()
        {
            if is_final(&error) {
                return Err(error);
            }
            tracing::error!(
                "{error:#}. Counting goes on without the ledger, and every drain tries it again; what is counted until then \
                 is booked when it can be written"
            );
        }
        Ok(books)
    }

    /// Whether there is to be a ledger.
    pub(super) const fn are_kept(&self) -> bool {
        self.config.ledger_enabled
    }

    /// What the drains came to so far, for those who watch.
    pub(super) const fn health(&self) -> &Arc<DrainHealth> {
        &self.health
    }

    /// Takes over of a new configuration what can change under way.
    pub(super) fn follow(&mut self, config: &Config) {
        self.config.drain_interval = config.drain_interval;
        if let Some(open) = &mut self.open {
            open.books.set_interval(config.drain_interval);
        }
        if (&config.calendar, config.retention) != (&self.config.calendar, self.config.retention)
            || config.ledger_enabled != self.config.ledger_enabled
            || config.node != self.config.node
        {
            tracing::warn!(
                "[ledger] or the node's name has changed: that takes effect when trafctl is started anew"
            );
        }
    }

    /// LedgerHandle what the counters grew by. The caller holds the lock on the pinned state.
    ///
    /// # Errors
    /// When the counters can't be read or nothing could be written; the next drain catches up.
    pub(super) fn drain(&mut self, maps: &Maps, trigger: DrainTrigger) -> anyhow::Result<()> {
        if !self.are_kept() {
            return Ok(());
        }
        let booked = self.reach().and_then(|open| open.books.drain(maps, trigger));
        match &booked {
            Ok(gaps) => self.health.succeeded(jiff::Timestamp::now(), *gaps),
            Err(_) => self.health.failed(),
        }
        booked.map(drop)
    }

    /// Whether there is a ledger within reach that may not have the class table in force.
    pub(super) fn lack_table(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.has_table)
    }

    /// The class table in force may be another one now.
    pub(super) fn note_other_table(&mut self) {
        if let Some(open) = &mut self.open {
            open.has_table = false;
        }
    }

    /// See [`Drainer::keep_table`]; a ledger out of reach gets it later.
    ///
    /// # Errors
    /// As [`Drainer::keep_table`].
    pub(super) fn keep_table(
        &mut self,
        maps: &Maps,
        table: impl FnOnce() -> anyhow::Result<ClassTable>,
    ) -> anyhow::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let kept = open.books.keep_table(maps, table);
        open.has_table = kept.is_ok();
        kept
    }

    /// See [`Drainer::maintain`].
    ///
    /// # Errors
    /// When the ledger can't be written.
    pub(super) fn maintain(&mut self) -> anyhow::Result<bool> {
        self.open.as_mut().map_or(Ok(false), |open| open.books.maintain())
    }

    /// The ledger at its place, opened if it is not.
    fn reach(&mut self) -> anyhow::Result<&mut Open> {
        let path = drain::ledger_path(&self.state_dir);
        if let Some(open) = self.open.take_if(|open| FileIdentity::of(&path).ok() != Some(open.file)) {
            open.books.leave();
            tracing::error!(
                "{} is not the file any more that was opened, or is gone: from now on the one of that name is kept",
                path.display()
            );
        }
        if self.open.is_none() {
            let opened = self.try_open(&path);
            if let Err(error) = &opened {
                self.failing = Some(reason_of(error))
                    .filter(|&reason| reason == GapReason::DiskFull)
                    .or(self.failing)
                    .or(Some(GapReason::LedgerUnwritable));
            }
            self.open = Some(opened?);
            self.failing = None;
        }
        self.open.as_mut().context("the ledger is not open")
    }

    fn try_open(&mut self, path: &Path) -> anyhow::Result<Open> {
        if self.only_one.is_none() {
            self.only_one = Some(drain::lock_daemon(&self.state_dir)?);
        }
        if let Some(aside) = traffic_ledger::set_aside_anothers_log(path)? {
            tracing::warn!(
                "another file than {} was in use here: what its log still held is set aside as {}",
                path.display(),
                aside.display()
            );
        }
        let mut books = Drainer::open(&self.config, &self.state_dir)?;
        let file = FileIdentity::of(path).with_context(|| format!("cannot look at {}", path.display()))?;
        if let Some(reason) = self.failing {
            tracing::info!("the ledger {} is within reach again", path.display());
            books.failed_before(reason);
        }
        Ok(Open { books, file, has_table: false })
    }
}

/// Whether trying again changes nothing, and going on would only hide it.
fn is_final(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(
            LedgerError::Newer { .. }
                | LedgerError::Foreign { .. }
                | LedgerError::CalendarChanged { .. }
                | LedgerError::Calendar(_)
        )
    )
}

fn reason_of(error: &anyhow::Error) -> GapReason {
    let no_room = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::StorageFull);
    if no_room || matches!(error.downcast_ref(), Some(LedgerError::Full(_))) {
        GapReason::DiskFull
    } else {
        GapReason::LedgerUnwritable
    }
}
