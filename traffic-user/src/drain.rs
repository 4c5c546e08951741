//! From the kernel's counters into the ledger: when to drain, and what must wait for a drain.
//!
//! Every drain happens under the lock on the pinned state, so that no change of classes, slots or maps comes between a
//! reading and its booking. `trafctl run` drains regularly; other commands do before they change what a reading means.

use std::{
    fs::{self, File},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use traffic_classes::ClassTable;
use traffic_ledger::{DrainContext, DrainTrigger, GapReason, Ledger, LedgerConfig, LedgerError};
use traffic_model::ContainerId;

use crate::{
    config::Config,
    kernel::{counters, maps::Maps},
    render,
};

/// Name of the ledger in the state directory.
const LEDGER: &str = "ledger.sqlite";
/// Name of the file by whose lock a second daemon knows the first.
const DAEMON_LOCK: &str = "run.lock";

/// Where the ledger of this state directory is.
pub fn ledger_path(state_dir: &Path) -> PathBuf {
    state_dir.join(LEDGER)
}

/// How the ledger is kept, by the configuration.
pub fn ledger_config(config: &Config) -> LedgerConfig {
    LedgerConfig { calendar: config.calendar.clone(), retention: config.retention, ..LedgerConfig::default() }
}

/// Held by the one daemon of a state directory; let go by the kernel when the process ends in whatever way.
#[derive(Debug)]
pub struct DaemonLock {
    _file: File,
}

/// Another daemon holds the lock.
#[derive(Debug, thiserror::Error)]
#[error("another `trafctl run` keeps the ledger in {0}; only one may")]
pub struct OtherDaemon(PathBuf);

/// Makes the state directory and takes the daemon's lock in it.
///
/// # Errors
/// With [`OtherDaemon`] when another one holds it, and when the directory can't be written.
pub fn lock_daemon(state_dir: &Path) -> anyhow::Result<DaemonLock> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(state_dir)
        .with_context(|| format!("cannot create {}", state_dir.display()))?;
    let path = state_dir.join(DAEMON_LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DaemonLock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OtherDaemon(state_dir.to_owned()).into()),
        Err(error) => {
            Err(std::io::Error::from(error)).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// The ledger with what a drain needs besides.
#[derive(Debug)]
pub struct Drainer {
    ledger: Ledger,
    node: String,
    interval: Duration,
}

impl Drainer {
    /// Opens the ledger, or makes it.
    ///
    /// # Errors
    /// When it can't be opened, is of a newer version, or was made for another calendar.
    pub fn open(config: &Config, state_dir: &Path) -> anyhow::Result<Self> {
        let path = ledger_path(state_dir);
        let ledger = Ledger::open(&path, ledger_config(config))
            .with_context(|| format!("cannot open the ledger {}", path.display()))?;
        // What customers are billed from is not for everybody, wherever the directory may be.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        Ok(Self { ledger, node: config.node.clone(), interval: config.drain_interval })
    }

    /// Opens the ledger only if there is one: a node on which no daemon ever ran has none.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_existing(config: &Config, state_dir: &Path) -> anyhow::Result<Option<Self>> {
        if !fs::exists(ledger_path(state_dir)).context("cannot look for the ledger")? {
            return Ok(None);
        }
        Self::open(config, state_dir).map(Some)
    }

    /// Closes a ledger whose file was moved. What its log holds goes into that file first, unless a reader is in the way:
    /// then it stays in the log, which [`traffic_ledger::set_aside_anothers_log`] keeps.
    pub fn leave(self) {
        if let Err(error) = self.ledger.checkpoint() {
            tracing::warn!("cannot move the last rows into the ledger that was moved: {error:#}");
        }
    }

    /// Plans drains at another interval than so far.
    pub const fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// See [`Ledger::failed_before`].
    pub const fn failed_before(&mut self, reason: GapReason) {
        self.ledger.failed_before(reason);
    }

    /// Reads all counters and books what they grew by; gives the number of gaps found. The caller holds the lock on the
    /// pinned state.
    ///
    /// # Errors
    /// When the counters can't be read or nothing could be written; the next drain catches up.
    pub fn drain(&mut self, maps: &Maps, trigger: DrainTrigger) -> anyhow::Result<usize> {
        let started = Instant::now();
        let snapshot = counters::read(maps, &self.node)?;
        let outcome = self
            .ledger
            .drain(&snapshot, DrainContext { interval: self.interval, trigger })
            .with_context(|| format!("cannot book the counters in {}", self.ledger.path().display()))?;
        for gap in &outcome.gaps {
            tracing::warn!("gap: {}", render::ledger::gap_line(gap));
        }
        tracing::debug!(
            "drained in {:.1} ms: {} rows of classes, {} of faults, {} of interfaces",
            started.elapsed().as_secs_f64() * 1000.0,
            outcome.traffic_rows,
            outcome.fault_rows,
            outcome.interface_rows
        );
        Ok(outcome.gaps.len())
    }

    /// Keeps the class table in force beside the figures counted under it, unless it is there. `table` is asked for it
    /// only then; one that is not the table in force is not kept.
    ///
    /// # Errors
    /// When the table can't be had or the ledger not be written.
    pub fn keep_table(
        &self,
        maps: &Maps,
        table: impl FnOnce() -> anyhow::Result<ClassTable>,
    ) -> anyhow::Result<()> {
        let info = counters::class_table(maps)?;
        if self.ledger.class_table(&info.hash_hex())?.is_some() {
            return Ok(());
        }
        let table = table()?;
        if table.hash() != info.hash {
            tracing::warn!(
                "the class file is not the table in force, which therefore can't be kept in the ledger"
            );
            return Ok(());
        }
        // As a class file, so that it can be read and loaded again.
        let text: String =
            table.entries().map(|entry| format!("{} {}\n", entry.class, entry.prefix)).collect();
        self.ledger
            .keep_class_table(&info, text.as_bytes())
            .context("cannot keep the class table in the ledger")
    }

    /// Frees an id for a new owner; gives the label under which the old one's figures stay.
    ///
    /// # Errors
    /// As [`Ledger::retire`].
    pub fn retire(&self, container: &ContainerId) -> Result<String, LedgerError> {
        self.ledger.retire(container.as_str(), Timestamp::now())
    }

    /// Sums up what is over and drops what was kept long enough, for a fifth of a second: longer, and drains and news of
    /// interfaces would wait. True when work is left, so that the next call should come soon.
    ///
    /// # Errors
    /// When the ledger can't be written.
    pub fn maintain(&mut self) -> anyhow::Result<bool> {
        const TIME: Duration = Duration::from_millis(200);
        let done = self
            .ledger
            .maintain_for(Timestamp::now(), TIME)
            .context("cannot sum up the ledger's older rows")?;
        Ok(done.left)
    }
}

/// Drains before a change after which a reading would mean something else: another class table, other maps. Without a
/// ledger there is nothing to keep.
///
/// # Errors
/// When there is a ledger and it can't be written: the change must not be made then.
pub fn drain_before_change(config: &Config, state_dir: &Path, maps: &Maps) -> anyhow::Result<()> {
    match Drainer::open_existing(config, state_dir)? {
        Some(mut bookkeeper) => bookkeeper.drain(maps, DrainTrigger::Event).map(drop),
        None => Ok(()),
    }
}
