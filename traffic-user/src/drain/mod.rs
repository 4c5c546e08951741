//! Drains the kernel's counters into the ledger, and decides what must wait for a drain.
//!
//! Every drain holds the lock on the pinned state, so that no change of classes, slots or maps comes between
//! a reading and its recording. `trafctl run` drains regularly. Other commands drain before they change what
//! a reading means. `binding` keeps counters out of the ledger of another installation; `lock` keeps a second
//! daemon out, and `other_counters` a second set of counters; `machine` names the machine whose ledger it is;
//! `excess` finds what was counted too often, `bypass` what passed attached interfaces unseen, `inside` what devices
//! in containers carried past all interfaces; `attached` tells one attach of an interface from the next.

mod attached;
mod binding;
mod bypass;
mod excess;
mod inside;
mod lock;
mod look;
mod machine;
mod other_counters;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Timestamp;
use traffic_classes::ClassTable;
use traffic_ledger::{
    Attribution, DrainContext, DrainTrigger, Gap, GapReason, Ledger, LedgerConfig, LedgerError, OnProgress,
};
use traffic_model::local_time::LocalTime;
use traffic_model::{ContainerId, DropReading, Snapshot};

use crate::{
    config::Config,
    kernel::{
        bpffs::Bpffs,
        counters,
        drops::{self, Drops},
        maps::Maps,
    },
    platform::inside::Inside,
    time,
};
use binding::Binding;
use bypass::BypassWatch;
use excess::{ExcessWatch, KernelSide};
use inside::InsideWatch;

pub use binding::{NoLedger, OtherLedger};
pub use lock::{DaemonLock, OtherDaemon, lock_daemon};
pub use look::LedgerLook;
pub use machine::problem as machine_problem;

/// Name of the ledger in the state directory.
const LEDGER: &str = "ledger.sqlite";

/// Path of the ledger in a state directory.
pub fn ledger_path(state_dir: &Path) -> PathBuf {
    state_dir.join(LEDGER)
}

/// A name of this machine that no other has; `None` if nothing names it, or if this user cannot tell.
pub fn machine_id() -> Option<String> {
    // Other users cannot read all that makes the name, and would take it for another machine's.
    rustix::process::geteuid().is_root().then(machine::id).flatten()
}

/// The ledger's settings in the configuration.
pub fn ledger_config(config: &Config) -> LedgerConfig {
    LedgerConfig {
        calendar: config.calendar.clone(),
        retention: config.retention,
        machine: machine::id(),
        delivered: config.delivered_classes.clone(),
        ..LedgerConfig::default()
    }
}

/// An open ledger that drains write to.
#[derive(Debug)]
pub struct Drainer {
    ledger: Ledger,
    node: String,
    interval: Duration,
    /// Whether the log says that the binding cannot be written.
    binding_failure_logged: bool,
    excess: ExcessWatch,
    bypass: BypassWatch,
    inside: InsideWatch,
    comparison_failure_logged: bool,
    drop_failure_logged: bool,
}

/// What a drain found besides what it wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// New gaps.
    pub gaps: usize,
    /// Buffers counted beyond what the kernel's statistics show, on all interfaces.
    pub excess_skbs: u64,
    /// Whether the main file of the ledger holds everything.
    pub checkpointed: bool,
}

impl Drainer {
    /// Opens or creates the ledger.
    ///
    /// # Errors
    /// When the ledger cannot be opened, has a newer schema, or follows another calendar.
    pub fn open(config: &Config, state_dir: &Path, progress: &OnProgress) -> anyhow::Result<Self> {
        Self::open_as(ledger_config(config), config, state_dir, progress)
    }

    fn open_as(
        settings: LedgerConfig,
        config: &Config,
        state_dir: &Path,
        progress: &OnProgress,
    ) -> anyhow::Result<Self> {
        let path = ledger_path(state_dir);
        let ledger = Ledger::open_with_progress(&path, settings, progress)
            .with_context(|| format!("cannot open the ledger {}", path.display()))?;
        // Billing data is not for everyone, wherever the directory may be.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        Ok(Self {
            ledger,
            node: config.node.clone(),
            interval: config.drain_interval,
            binding_failure_logged: false,
            excess: ExcessWatch::default(),
            bypass: BypassWatch::default(),
            inside: InsideWatch::default(),
            comparison_failure_logged: false,
            drop_failure_logged: false,
        })
    }

    /// As [`Self::open_existing`], but a ledger of another machine continues on this one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_adopting(config: &Config, state_dir: &Path) -> anyhow::Result<Option<Self>> {
        Self::open_existing_as(config, state_dir, LedgerConfig { adopt: true, ..ledger_config(config) })
    }

    /// Opens the ledger if it exists. A node that never ran the daemon has none.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_existing(config: &Config, state_dir: &Path) -> anyhow::Result<Option<Self>> {
        Self::open_existing_as(config, state_dir, ledger_config(config))
    }

    fn open_existing_as(
        config: &Config,
        state_dir: &Path,
        settings: LedgerConfig,
    ) -> anyhow::Result<Option<Self>> {
        let path = ledger_path(state_dir);
        if !fs::exists(&path).with_context(|| format!("cannot look for the ledger {}", path.display()))? {
            return Ok(None);
        }
        Self::open_as(settings, config, state_dir, &(Arc::new(|_| {}) as OnProgress)).map(Some)
    }

    /// Opens the ledger for a drain that must precede a change of these counters. Returns `None` if there is
    /// no ledger and the counters belong to none, so that nothing is left to drain. The caller holds the lock
    /// on the pinned state.
    ///
    /// # Errors
    /// With [`NoLedger`] when the counters belong to a ledger that is not in this state directory; when the
    /// daemon of the state directory keeps other counters; else as [`Self::open`].
    pub fn open_before_change(
        config: &Config,
        state_dir: &Path,
        maps: &Maps,
    ) -> anyhow::Result<Option<Self>> {
        let existing = Self::open_existing(config, state_dir)?;
        let snapshot = counters::read(maps, &config.node)?;
        match &existing {
            Some(drainer) => {
                other_counters::refuse_daemon_elsewhere(&drainer.ledger, &snapshot, &maps.pinned_in)
            }
            None => Binding::of_pins(&maps.pinned_in).check_unbound(&ledger_path(state_dir), &snapshot),
        }
        .with_context(|| format!("cannot drain the counters in {}", maps.pinned_in.display()))?;
        Ok(existing)
    }

    /// See [`Ledger::replaced_file`].
    pub fn replaced_file(&self) -> Option<&Path> {
        self.ledger.replaced_file()
    }

    /// Closes a ledger of which a file was moved, replaced or removed. A ledger that was moved keeps its log,
    /// which is written into it first. If a reader prevents that, the log keeps the rows and
    /// [`traffic_ledger::set_aside_anothers_log`] preserves it.
    pub fn close_replaced(self) {
        if !self.ledger.was_moved() {
            return self.ledger.close_without_log();
        }
        if let Err(error) = self.ledger.checkpoint() {
            tracing::warn!("cannot write the last rows into the ledger that was moved: {error:#}");
        }
    }

    /// Changes the planned interval between drains.
    pub const fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// See [`Ledger::bill_delivered`].
    ///
    /// # Errors
    /// As [`Ledger::bill_delivered`].
    pub fn bill_delivered(&self, config: &Config) -> Result<(), LedgerError> {
        self.ledger.bill_delivered(&config.delivered_classes)
    }

    /// See [`Ledger::set_patience`].
    ///
    /// # Errors
    /// As [`Ledger::set_patience`].
    pub fn set_patience(&mut self, patience: Duration) -> Result<(), LedgerError> {
        self.ledger.set_patience(patience)
    }

    /// See [`Ledger::note_earlier_failure`].
    pub const fn note_earlier_failure(&mut self, reason: GapReason) {
        self.ledger.note_earlier_failure(reason);
    }

    /// See [`Ledger::note_gaps`].
    pub fn note_gaps(&mut self, gaps: &[Gap]) {
        self.ledger.note_gaps(gaps);
    }

    /// Has the next drains record what these devices in containers carry, and no others.
    pub fn note_inside(&mut self, devices: &[Inside]) {
        self.inside.note(devices);
    }

    /// See [`Ledger::note_names`].
    pub fn note_names(&mut self, names: BTreeMap<String, String>) {
        self.ledger.note_names(names);
    }

    /// Reads all counters and writes what they grew by. The caller holds the lock on the pinned state.
    ///
    /// # Errors
    /// With [`OtherLedger`] when the counters belong to another ledger. When the counters cannot be read or
    /// the ledger cannot be written, the next drain catches up.
    pub fn drain(&mut self, maps: &Maps, trigger: DrainTrigger) -> anyhow::Result<Drained> {
        self.drain_reading(maps, trigger).map(|(drained, _)| drained)
    }

    /// As [`Self::drain`], and returns the reading as well.
    ///
    /// # Errors
    /// As [`Self::drain`].
    pub fn drain_reading(
        &mut self,
        maps: &Maps,
        trigger: DrainTrigger,
    ) -> anyhow::Result<(Drained, Snapshot)> {
        let started = Instant::now();
        let drops = self.read_drops(maps);
        let mut snapshot = Snapshot { drops, ..counters::read(maps, &self.node)? };
        let excess_skbs = match self.compare(maps, &mut snapshot) {
            Ok(excess_skbs) => {
                self.comparison_failure_logged = false;
                excess_skbs
            }
            Err(error) => {
                if !std::mem::replace(&mut self.comparison_failure_logged, true) {
                    tracing::warn!("cannot compare the counters with the interfaces' statistics: {error:#}");
                }
                0
            }
        };
        let binding = Binding::of_pins(&maps.pinned_in);
        let (pins, path) = (maps.pinned_in.display(), self.ledger.path().display());
        let what = format!("cannot drain the counters in {pins} into {path}");
        binding.check(&self.ledger, &snapshot).context(what.clone())?;
        other_counters::check(&self.ledger, &snapshot, &maps.pinned_in).context(what.clone())?;
        let context = DrainContext { interval: self.interval, trigger };
        let outcome = self.ledger.drain(&snapshot, context).context(what)?;
        self.bind(&binding, &snapshot, &maps.pinned_in);
        for gap in &outcome.gaps {
            tracing::warn!("gap: {}", gap.text(&LocalTime::of(self.ledger.calendar())));
        }
        tracing::debug!(
            "drained in {:.1} ms: {} rows of classes, {} of faults, {} of interfaces, {} of drops",
            started.elapsed().as_secs_f64() * 1000.0,
            outcome.traffic_rows,
            outcome.fault_rows,
            outcome.interface_rows,
            outcome.drop_rows
        );
        let checkpointed = outcome.checkpointed;
        Ok((Drained { gaps: outcome.gaps.len(), excess_skbs, checkpointed }, snapshot))
    }

    /// Reads the counters of drops, if there are any. A failure stops no accounting: the next drain catches up.
    fn read_drops(&mut self, maps: &Maps) -> Option<DropReading> {
        match drops::read(&Bpffs::new(&maps.pinned_in), maps) {
            Ok(found) => {
                self.drop_failure_logged = false;
                found.map(Drops::into_reading)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.drop_failure_logged, true) {
                    tracing::warn!("cannot read the counters of drops for the ledger: {error:#}");
                }
                None
            }
        }
    }

    /// Compares a reading with the kernel's statistics: what was counted too often, and what passed unseen. A failure
    /// stops no accounting. Returns how many buffers were counted too often.
    fn compare(&mut self, maps: &Maps, snapshot: &mut Snapshot) -> anyhow::Result<u64> {
        let kernel = KernelSide::read(maps)?;
        let excess_skbs = self.excess.compare(&kernel, snapshot)?;
        self.bypass.compare(maps, &kernel, snapshot)?;
        self.inside.add(&kernel.netlink, snapshot);
        Ok(excess_skbs)
    }

    /// Binds the drained counters to this ledger. A failure does not stop accounting, and is logged once.
    fn bind(&mut self, binding: &Binding, snapshot: &Snapshot, pinned_in: &Path) {
        let bound = binding.bind(&self.ledger, snapshot);
        match bound.and_then(|_| other_counters::record(&self.ledger, pinned_in)) {
            Ok(()) => self.binding_failure_logged = false,
            Err(error) => {
                if !std::mem::replace(&mut self.binding_failure_logged, true) {
                    tracing::warn!("cannot record which ledger the counters belong to: {error:#}");
                }
            }
        }
    }

    /// Binds the counters to this ledger although they were drained into another one. Returns when they began
    /// to count, or `None` if they already belong to this ledger. The caller holds the lock on the pinned
    /// state.
    ///
    /// # Errors
    /// When the counters cannot be read or the binding cannot be written.
    pub fn adopt(&self, maps: &Maps) -> anyhow::Result<Option<Timestamp>> {
        let snapshot = counters::read(maps, &self.node)?;
        let bound = Binding::of_pins(&maps.pinned_in).bind(&self.ledger, &snapshot)?;
        Ok(bound.then_some(snapshot.epoch_created))
    }

    /// The ledger.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The ledger, for changes that are no drain.
    pub const fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Stores the active class table in the ledger, unless it is already there. `table` is called only if it
    /// is not; a table other than the active one is not stored.
    ///
    /// # Errors
    /// When `table` fails or the ledger cannot be written.
    pub fn store_class_table(
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
                "cannot store the active class table in the ledger: the class file holds another table; \
                 run `trafctl classes load`"
            );
            return Ok(());
        }
        // In the form of a class file, so that it can be read and loaded again.
        let text: String =
            table.entries().map(|entry| format!("{} {}\n", entry.class, entry.prefix)).collect();
        self.ledger
            .store_class_table(&info, text.as_bytes())
            .context("cannot store the class table in the ledger")
    }

    /// Frees an id for a new owner. Returns the label that keeps the old owner's figures.
    ///
    /// # Errors
    /// As [`Ledger::retire`].
    pub fn retire(&self, container: &ContainerId) -> Result<String, LedgerError> {
        self.ledger.retire(container.as_str(), time::now_or_end())
    }

    /// Gives everything recorded of a pending owner to a container. `None` if nothing is.
    ///
    /// # Errors
    /// As [`Ledger::attribute`].
    pub fn attribute(
        &mut self,
        pending: &str,
        owner: &ContainerId,
        reason: &str,
    ) -> Result<Option<Attribution>, LedgerError> {
        self.ledger.attribute(pending, owner, reason, time::now_or_end())
    }

    /// Runs the ledger's maintenance for 200 ms; longer calls would delay drains and interface events.
    /// Returns whether work is left, so that the next call should come soon.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub fn maintain(&mut self) -> anyhow::Result<bool> {
        const TIME: Duration = Duration::from_millis(200);
        let done = self
            .ledger
            .maintain_for(time::now()?, TIME)
            .context("cannot sum or drop the ledger's older rows")?;
        Ok(done.unfinished)
    }
}

/// Refuses to delete counters whose last drain would go into the ledger of a daemon that keeps others. To be asked
/// before a command takes the lock of the counters' own daemon.
///
/// # Errors
/// In that case, and when the counters cannot be read.
pub fn refuse_other_daemons(config: &Config, state_dir: &Path, maps: &Maps) -> anyhow::Result<()> {
    // Without a ledger that can be read, the drain itself says what is wrong.
    let Ok(ledger) = Ledger::open_read_only(&ledger_path(state_dir)) else { return Ok(()) };
    let snapshot = counters::read(maps, &config.node)?;
    other_counters::refuse_daemon_elsewhere(&ledger, &snapshot, &maps.pinned_in)
}

/// Drains before a change that gives readings another meaning, such as another class table or other maps.
/// Does nothing if there is no ledger and the counters belong to none.
///
/// # Errors
/// When the drain fails, or the counters belong to a ledger that is not in this state directory. The change
/// must not be made then.
pub fn drain_before_change(config: &Config, state_dir: &Path, maps: &Maps) -> anyhow::Result<()> {
    match Drainer::open_before_change(config, state_dir, maps)? {
        Some(mut drainer) => drainer.drain(maps, DrainTrigger::Event).map(drop),
        None => Ok(()),
    }
}

/// What [`Drainer::adopt`] would return.
///
/// # Errors
/// When the counters or the binding cannot be read.
pub fn preview_adopt(ledger: &Ledger, node: &str, maps: &Maps) -> anyhow::Result<Option<Timestamp>> {
    let snapshot = counters::read(maps, node)?;
    let is_bound = Binding::of_pins(&maps.pinned_in).is_bound(ledger, &snapshot)?;
    Ok((!is_bound).then_some(snapshot.epoch_created))
}
