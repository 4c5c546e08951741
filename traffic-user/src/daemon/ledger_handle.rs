//! The ledger of the running daemon, opened when needed.
//!
//! The ledger may be unavailable at the start or later: a full disk, a damaged file, a file that was moved.
//! The kernel keeps counting, each drain tries again, and the first one that succeeds catches up.

use std::{
    io, mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use traffic_ledger::{DrainTrigger, FileState, Gap, GapReason, Ledger, LedgerError};
use traffic_model::Snapshot;

use super::{checkpoints::Checkpoints, ledger_opening::Opening, noted_gaps::NotedGaps};
use crate::{
    api::drain_health::DrainHealth,
    config::Config,
    drain::{self, DaemonLock, Drainer, LedgerLook},
    health::{Components, Part},
    kernel::maps::Maps,
    ownership::ContainerNames,
    platform::inside::Inside,
    shipping, time,
};

/// How long a drain waits for another writer of the ledger. Start hooks wait for the lock that it holds, so a
/// longer wait is spent without the lock, until the next attempt.
const PATIENCE: Duration = Duration::from_millis(300);

/// The daemon's ledger, unless the configuration disables it.
pub(super) struct LedgerHandle {
    /// The configuration at the start. A reload does not change the node's name, the calendar or the
    /// retention.
    config: Config,
    state_dir: PathBuf,
    /// Taken as soon as possible, and held until the daemon ends.
    daemon_lock: Option<DaemonLock>,
    opened: Option<OpenLedger>,
    opening: Option<Opening>,
    /// Why the last attempts to open the ledger failed.
    open_failure: Option<GapReason>,
    /// Gaps that no counter shows, until a drain has stored them.
    noted: NotedGaps,
    health: Arc<DrainHealth>,
    components: Arc<Components>,
    /// The state of the ledger at the look that was kept last.
    looked_at: Option<FileState>,
    checkpoints: Checkpoints,
}

/// An available ledger.
struct OpenLedger {
    drainer: Drainer,
    /// Whether the ledger holds the active class table, or was asked to keep it.
    has_class_table: bool,
}

impl LedgerHandle {
    /// Opens the ledger, if it is enabled. A failure is noted, and drains try again: counting does not depend
    /// on it, and whoever corrects the cause need not know that a process must be restarted.
    pub(super) fn open(
        config: &Config,
        state_dir: &Path,
        daemon_lock: Option<DaemonLock>,
        components: Arc<Components>,
    ) -> Self {
        let mut handle = Self {
            config: config.clone(),
            state_dir: state_dir.to_owned(),
            daemon_lock,
            opened: None,
            opening: None,
            open_failure: None,
            noted: NotedGaps::default(),
            health: Arc::default(),
            components,
            looked_at: None,
            checkpoints: Checkpoints::default(),
        };
        if config.ledger_enabled {
            match handle.open_if_needed() {
                Ok(_) => handle.components.works(Part::Ledger),
                Err(error) => handle.components.failed(Part::Ledger, &error),
            }
        } else {
            handle.components.disabled(Part::Ledger);
        }
        handle
    }

    /// Whether the configuration enables the ledger.
    pub(super) const fn is_enabled(&self) -> bool {
        self.config.ledger_enabled
    }

    /// Results of the drains so far, for the metrics.
    pub(super) const fn health(&self) -> &Arc<DrainHealth> {
        &self.health
    }

    /// Applies the parts of a new configuration that may change while the daemon runs.
    pub(super) fn apply_config(&mut self, config: &Config) {
        self.config.drain_interval = config.drain_interval;
        self.config.ship.clone_from(&config.ship);
        if let Some(opened) = &mut self.opened {
            opened.drainer.set_interval(config.drain_interval);
        }
        if config.delivered_classes != self.config.delivered_classes {
            self.config.delivered_classes.clone_from(&config.delivered_classes);
            let stored = self.opened.as_ref().map(|opened| opened.drainer.bill_delivered(config));
            if let Some(Err(error)) = stored {
                tracing::warn!("[classes.bill] is not in force before a restart: {error}");
            }
        }
        if (&config.calendar, config.retention) != (&self.config.calendar, self.config.retention)
            || config.ledger_enabled != self.config.ledger_enabled
            || config.node != self.config.node
        {
            tracing::warn!(
                "the node's name or its ledger settings have changed; restart trafctl to apply them"
            );
        }
    }

    /// Writes what the counters grew by, and returns the reading; `None` without a ledger. The caller holds the lock
    /// on the pinned state.
    ///
    /// # Errors
    /// When the counters cannot be read or the ledger cannot be written. The next drain catches up.
    pub(super) fn drain(&mut self, maps: &Maps, trigger: DrainTrigger) -> anyhow::Result<Option<Snapshot>> {
        if !self.is_enabled() {
            return Ok(None);
        }
        let noted = self.noted.all().to_vec();
        let drained = self.open_if_needed().and_then(|opened| {
            opened.drainer.note_gaps(&noted);
            opened.drainer.drain_reading(maps, trigger)
        });
        match &drained {
            Ok((drained, _)) => {
                self.noted.clear();
                self.health.succeeded(time::now_or_end(), *drained);
                self.components.works(Part::Ledger);
                match self.opened.as_ref().and_then(|opened| opened.drainer.ledger().unknown_zone()) {
                    Some(problem) => self.components.failed_because(Part::TimeZone, &problem),
                    None => self.components.works(Part::TimeZone),
                }
                if let Some(opened) = &self.opened {
                    let ledger = opened.drainer.ledger();
                    let again = || ledger.checkpoint();
                    match self.checkpoints.problem(drained.checkpointed, ledger.path(), again) {
                        Some(problem) => self.components.failed_because(Part::LedgerCheckpoint, &problem),
                        None => self.components.works(Part::LedgerCheckpoint),
                    }
                }
            }
            Err(error) => self.note_failure(error),
        }
        drained.map(|(_, reading)| Some(reading))
    }

    /// Has the next drain store what people call the containers.
    pub(super) fn note_names(&mut self, names: &ContainerNames) {
        if let Some(opened) = &mut self.opened {
            opened
                .drainer
                .note_names(names.iter().map(|(id, name)| (id.to_string(), name.to_owned())).collect());
        }
    }

    /// Has the next drains record what these devices in containers carry.
    pub(super) fn note_inside(&mut self, devices: &[Inside]) {
        if let Some(opened) = &mut self.opened {
            opened.drainer.note_inside(devices);
        }
    }

    /// Has the next drain that succeeds store these gaps.
    pub(super) fn note_gaps(&mut self, gaps: Vec<Gap>) {
        if self.is_enabled() {
            self.noted.extend(gaps);
        }
    }

    /// Notes a drain that failed, here or before it could begin.
    pub(super) fn note_failure(&self, error: &anyhow::Error) {
        self.health.failed();
        self.components.failed(Part::Ledger, error);
    }

    /// Whether the open ledger may lack the active class table. It is asked once; the caller sees to it.
    pub(super) fn needs_class_table(&mut self) -> bool {
        self.opened.as_mut().is_some_and(|opened| !mem::replace(&mut opened.has_class_table, true))
    }

    /// Records that another class table may be active now.
    pub(super) fn class_table_changed(&mut self) {
        if let Some(opened) = &mut self.opened {
            opened.has_class_table = false;
        }
    }

    /// The ledger, if it is open.
    pub(super) fn opened(&mut self) -> Option<&mut Ledger> {
        self.opened.as_mut().map(|opened| opened.drainer.ledger_mut())
    }

    /// Keeps a look at the ledger for whoever asks for the status, if it has changed since the last one.
    pub(super) fn keep_look(&mut self) {
        let Some(opened) = &self.opened else { return };
        let ledger = opened.drainer.ledger();
        let Some(state) = FileState::of(ledger.path()) else { return };
        if self.looked_at.as_ref() != Some(&state) {
            // If it fails, whoever asks opens the ledger.
            if let Err(error) = LedgerLook::keep(ledger, &state, &self.state_dir) {
                tracing::debug!("cannot keep a look at the ledger: {error:#}");
            }
            self.looked_at = Some(state);
        }
    }

    /// See [`Drainer::maintain`]. What the stores have not verified stays, if `[ship] required` says so.
    ///
    /// # Errors
    /// As [`Drainer::maintain`].
    pub(super) fn maintain(&mut self) -> anyhow::Result<bool> {
        let Some(opened) = &mut self.opened else { return Ok(false) };
        let ship = &self.config.ship;
        shipping::hold(opened.drainer.ledger_mut(), &self.state_dir, ship)
            .context("cannot find out what the stores have verified; nothing is dropped")?;
        let unfinished = opened.drainer.maintain()?;
        let of = (ship, self.config.retention);
        let held = shipping::held(opened.drainer.ledger(), &self.state_dir, of, time::now_or_end())?;
        self.health.holds(ship.required.then(|| held.map(|held| held.rows.since)));
        Ok(unfinished)
    }

    /// The open ledger. Opens the file at its path if none is open, or if another file is there now.
    fn open_if_needed(&mut self) -> anyhow::Result<&mut OpenLedger> {
        let path = drain::ledger_path(&self.state_dir);
        self.close_if_replaced();
        if self.opened.is_none() {
            let opened = self.try_open(&path);
            if let Err(error) = &opened {
                self.open_failure = Some(gap_reason(error))
                    .filter(|&reason| reason == GapReason::DiskFull)
                    .or(self.open_failure)
                    .or(Some(GapReason::LedgerUnwritable));
            }
            self.opened = Some(opened?);
            self.open_failure = None;
        }
        self.opened.as_mut().context("the ledger is not open")
    }

    /// Closes the ledger if it, its log or the log's index is no longer at its path: nobody else would see
    /// what is written there.
    fn close_if_replaced(&mut self) {
        let Some(opened) = self.opened.take_if(|opened| opened.drainer.replaced_file().is_some()) else {
            return;
        };
        let replaced = opened.drainer.replaced_file().map(|path| path.display().to_string());
        tracing::error!(
            "{} was replaced or removed; opening the ledger again, as it is there now",
            replaced.unwrap_or_default()
        );
        opened.drainer.close_replaced();
    }

    fn try_open(&mut self, path: &Path) -> anyhow::Result<OpenLedger> {
        if self.daemon_lock.is_none() {
            self.daemon_lock = Some(drain::lock_daemon(&self.state_dir)?);
        }
        if self.opening.is_none()
            && let Some(aside) = traffic_ledger::set_aside_anothers_log(path)?
        {
            tracing::warn!(
                "another file than {} was in use here; the rows in its log were kept as {}",
                path.display(),
                aside.display()
            );
        }
        let mut opening = match self.opening.take() {
            Some(opening) => opening,
            None => {
                let (config, state_dir) = (self.config.clone(), self.state_dir.clone());
                Opening::start(move |progress| Drainer::open(&config, &state_dir, progress))?
            }
        };
        let Some(opened) = opening.result() else {
            let doing = opening.text();
            self.opening = Some(opening);
            bail!("the ledger {} is not ready: {doing}", path.display());
        };
        let mut drainer = opened?;
        drainer.set_patience(PATIENCE)?;
        if let Some(reason) = self.open_failure {
            tracing::info!("the ledger {} is available again", path.display());
            drainer.note_earlier_failure(reason);
        }
        Ok(OpenLedger { drainer, has_class_table: false })
    }
}

/// Whether the ledger only waits for another writer.
pub(super) fn is_busy(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(LedgerError::Busy(_)))
}

fn gap_reason(error: &anyhow::Error) -> GapReason {
    let storage_full = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::StorageFull);
    if storage_full || matches!(error.downcast_ref(), Some(LedgerError::Full(_))) {
        GapReason::DiskFull
    } else {
        GapReason::LedgerUnwritable
    }
}
