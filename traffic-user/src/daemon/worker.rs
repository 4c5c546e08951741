//! The thread that changes the node: everything that can block (the lock, the kernel, SQLite, class files)
//! runs here, one piece of work after another, and never on the event loop.
//!
//! The loop posts work into a [`Mailbox`], where work of one kind merges. The thread answers with
//! [`WorkerEvent`]s.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::mpsc::UnboundedSender;
use traffic_ledger::DrainTrigger;
use traffic_model::Snapshot;

use super::{
    api_source::{SharedConfig, SharedSources},
    class_loader::{self, ClassLoader},
    file_watch::Changed,
    follower::Follower,
    ledger_handle::{self, LedgerHandle},
    mailbox::{Mailbox, Started, Work, WorkerEvent},
    quota_follower::QuotaFollower,
    quota_looks::{Begin, QuotaLooks},
    resync,
};
use crate::{
    class_source,
    drain::DaemonLock,
    health::{Components, Part},
    kernel::{
        load::{self, Held, LoadOutcome, ProgramChoice, Restored},
        maps::Maps,
    },
    net::{events::Batch, interface::NetInterface},
    node::{AttachReport, Host, LockedKernel, Pass, Session, pass::end_of_batch},
};

/// Makes the host from the configuration and everything named in it; called again on SIGHUP.
pub(super) type MakeHost = Box<dyn Fn() -> anyhow::Result<Host> + Send>;

/// Starts the thread.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn spawn(
    mailbox: Arc<Mailbox>,
    reports: UnboundedSender<WorkerEvent>,
    setup: Setup,
) -> anyhow::Result<()> {
    let run = move || match Worker::start(&mailbox, reports.clone(), setup) {
        Err(error) => drop(reports.send(WorkerEvent::Failed(error))),
        Ok(mut worker) => {
            let mut ends = false;
            while !ends {
                ends = worker.work(mailbox.take());
            }
            // Closes the ledger, which takes its log into the main file, before the process may end.
            drop(worker);
            drop(reports.send(WorkerEvent::Stopped));
        }
    };
    thread::Builder::new().name("node".to_owned()).spawn(run).context("cannot start the node's thread")?;
    Ok(())
}

/// Makes a host to look at the node, without messages in the log.
pub(super) type Look = Arc<dyn Fn() -> anyhow::Result<Host> + Send + Sync>;

/// What the thread begins with.
pub(super) struct Setup {
    pub make_host: MakeHost,
    pub look: Look,
    pub state_dir: PathBuf,
    pub only_one: Option<DaemonLock>,
    /// Whether the program writes a log line for each fault.
    pub logs_faults: bool,
    pub quota_file: PathBuf,
    /// What the daemon holds open of the kernel's maps and programs.
    pub held: Held,
    pub components: Arc<Components>,
}

pub(super) struct Worker {
    pub(super) host: Host,
    pub(super) follower: Follower,
    pub(super) loader: ClassLoader,
    pub(super) ledger: LedgerHandle,
    pub(super) quotas: QuotaFollower,
    looks: QuotaLooks,
    pub(super) logs_faults: bool,
    /// The configuration in force, for the threads that answer requests.
    pub(super) config: SharedConfig,
    /// What is known of owners, for the threads that answer requests.
    pub(super) sources: SharedSources,
    /// Whether everything was attached once.
    is_started: bool,
    pub(super) components: Arc<Components>,
    mailbox: Arc<Mailbox>,
    reports: UnboundedSender<WorkerEvent>,
}

impl Worker {
    fn start(
        mailbox: &Arc<Mailbox>,
        reports: UnboundedSender<WorkerEvent>,
        setup: Setup,
    ) -> anyhow::Result<Self> {
        let Setup { make_host, look, state_dir, only_one, logs_faults, quota_file, held, components } = setup;
        let _busy = mailbox.worker.begin("the start");
        let mut host = make_host()?;
        host.held = Some(held);
        if let Some(hint) = host.config().renamed_key_hint() {
            tracing::warn!("{hint}");
        }
        // Before the table is read, so that a change in between is found later.
        let seen = class_source::look(host.config());
        match seen.problem(host.config()) {
            Some(problem) => components.failed_because(Part::ClassFile, &problem),
            None => components.works(Part::ClassFile),
        }
        match host.config_mistake() {
            Some(mistake) => components.failed_because(Part::Configuration, &mistake.to_string()),
            None => components.works(Part::Configuration),
        }
        host.keep_good_files();
        resync::note_owners(&components, &host);
        let ledger = LedgerHandle::open(host.config(), &state_dir, only_one, Arc::clone(&components));
        let quotas = QuotaFollower::new(quota_file, &state_dir);
        let loader = ClassLoader::start(class_loader::Setup {
            make_host,
            config: host.config().clone(),
            bpffs: host.bpffs.clone(),
            state_dir,
            seen,
            components: Arc::clone(&components),
            mailbox: Arc::clone(mailbox),
            reports: reports.clone(),
        })?;
        let mut worker = Self {
            config: SharedConfig::new(host.config()),
            host,
            follower: Follower::default(),
            loader,
            ledger,
            quotas,
            looks: QuotaLooks::default(),
            logs_faults,
            sources: SharedSources::default(),
            is_started: false,
            components,
            mailbox: Arc::clone(mailbox),
            reports,
        };
        let choice = if logs_faults { ProgramChoice::Logging } else { ProgramChoice::Current };
        let pass = worker.new_pass()?;
        worker.host.survey(&pass.interfaces);
        worker.sources.set(worker.host.policy.sources());
        let mut session = worker.host.begin(choice)?;
        let log = session.kernel.loaded.log.take();
        let session = worker.attach_all(session, pass)?;
        worker.is_started = true;
        // A ledger that cannot be written now does not keep traffic from being counted.
        let began = Begin::now();
        let drained = worker.drain_locked(session.maps(), DrainTrigger::Started);
        // Whoever hears of the start finds the lock free, and the kernel's switch as it was.
        drop(session);
        let config = worker.host.config().clone();
        let drains = worker.ledger.is_enabled().then(|| Arc::clone(worker.ledger.health()));
        let started = Started { config, source: worker.source(look), drains, log };
        worker.report(WorkerEvent::Started(Box::new(started)));
        worker.follow_quotas(began, drained.as_ref());
        Ok(worker)
    }

    /// Does the work; returns whether it was the last. What others wait for comes first.
    fn work(&mut self, work: Work) -> bool {
        let mailbox = Arc::clone(&self.mailbox);
        let begin = |doing| mailbox.worker.begin(doing);
        if work.stop {
            let _busy = begin("the last drain");
            self.stop();
            return true;
        }
        if let Some(batch) = work.events {
            let _busy = begin("following interfaces");
            let result = self.follow(batch);
            self.note_resync("following interfaces", &result);
        }
        if work.drain {
            let _busy = begin("draining");
            self.drain_in_time(DrainTrigger::Interval);
        } else if work.look {
            let _busy = begin("looking at quotas");
            self.look();
        }
        if work.reload {
            self.loader.reload();
        }
        if let Some(delivery) = work.delivery {
            let _busy = begin("putting classes or a configuration in force");
            self.take_delivery(delivery);
        }
        if work.files != Changed::default() {
            let _busy = begin("following files");
            self.files_changed(work.files);
        }
        if let Some(answers) = work.answers {
            self.host.policy.take_answers(answers);
            self.sources.set(self.host.policy.sources());
        }
        let survey_differs = work.survey.is_some_and(|survey| self.host.policy.take_survey(survey));
        if survey_differs {
            self.sources.set(self.host.policy.sources());
        }
        if work.resync || survey_differs {
            let _busy = begin("the resync");
            self.loader.retry();
            self.resync_or_retry("comparing all interfaces");
        }
        if work.maintain {
            let _busy = begin("maintaining the ledger");
            match self.ledger.maintain() {
                Ok(true) => self.report(WorkerEvent::MaintenanceLeft),
                other => log_failure("maintaining the ledger", other.map(drop)),
            }
        }
        self.ledger.keep_look();
        false
    }

    fn stop(&mut self) {
        // If this drain fails, the drain of the next start catches up.
        drop(self.drain(DrainTrigger::Event));
        if self.logs_faults {
            // Leave the quiet program behind.
            log_failure("replacing the program", self.host.begin(ProgramChoice::Current).map(drop));
        }
    }

    pub(super) fn report(&self, report: WorkerEvent) {
        // The loop is gone only when the process is about to exit.
        drop(self.reports.send(report));
    }

    pub(super) fn log_or_retry(&self, doing: &str, result: anyhow::Result<()>) {
        if result.is_err() {
            self.report(WorkerEvent::Retry);
        }
        log_failure(doing, result);
    }

    /// Acts on events of some interfaces.
    fn follow(&mut self, batch: Batch) -> anyhow::Result<()> {
        if batch.lost {
            tracing::warn!("the kernel dropped events of interfaces; starting a resync");
            self.follower.came_and_went.take_events(&batch, &self.host.policy);
            return self.resync();
        }
        if self.follower.calls_for_refresh(&batch, &self.host.policy) {
            self.host.refresh()?;
        }
        let mut plan = self.follower.plan(batch, &self.host.policy);
        let is_asked = plan.ask;
        if is_asked {
            // Before the loop decides whether to ask again: an owner is not missing before it was asked for.
            self.mailbox.is_asking.store(true, Ordering::Relaxed);
            self.mailbox.is_waiting.store(true, Ordering::Relaxed);
            self.report(WorkerEvent::Ask);
        }
        let mut released = false;
        while (!plan.is_idle() || self.follower.came_and_went.is_waiting()) && !self.mailbox.is_stopping() {
            let mut session = self.host.begin(ProgramChoice::Pinned)?;
            if session.outcome == LoadOutcome::Created {
                // All interfaces are to be attached again, not only those with events.
                let pass = self.new_pass()?;
                return self.attach_all(session, pass).map(drop);
            }
            let followed =
                self.follower.follow(&mut session, &self.host.policy, &mut plan, end_of_batch())?;
            self.log(&followed.report);
            // No event showed that its other end moved away, so that it may be a container's.
            if !is_asked && !followed.report.pending.is_empty() {
                self.report(WorkerEvent::Ask);
            }
            released |= followed.released || has_attributed(&followed.report);
            if plan.is_idle() && (self.note_gaps() || released) {
                self.drain_locked(session.maps(), DrainTrigger::Event);
            }
        }
        Ok(())
    }

    /// Resync: compares all interfaces with what is attached, and attaches what is missing. Listing them can
    /// take seconds while other processes hold the kernel's lock, so that is done without ours.
    pub(super) fn resync(&mut self) -> anyhow::Result<()> {
        match self.host.refresh().context("cannot read who owns which interface and address") {
            Ok(()) => resync::note_owners(&self.components, &self.host),
            Err(error) => self.components.failed(Part::Owners, &error),
        }
        self.host.keep_good_files();
        let pass = self.new_pass()?;
        let session = self.host.begin(ProgramChoice::Pinned)?;
        self.attach_all(session, pass).map(drop)
    }

    /// Attaches to all interfaces, in batches. Returns the session of the last one.
    fn attach_all(
        &mut self,
        mut session: Session<LockedKernel>,
        mut pass: Pass,
    ) -> anyhow::Result<Session<LockedKernel>> {
        let mut made_anew = session.outcome == LoadOutcome::Created && self.is_started;
        self.note_made_anew(made_anew);
        self.note_class_table();
        self.follower.came_and_went.judge(&session.registry, session.maps())?;
        while !pass.batch(&mut session, &self.host.policy, end_of_batch())? {
            // The lock is free for those who wait.
            drop(session);
            pass.list(&self.host.netlink)?;
            session = self.host.begin(ProgramChoice::Pinned)?;
            if self.mailbox.is_stopping() {
                return Ok(session);
            }
            if session.outcome == LoadOutcome::Created {
                made_anew = true;
                self.note_made_anew(true);
                self.note_class_table();
                pass.start_over();
            }
        }
        let is_counted = |one: &NetInterface| session.registry.interface_of_index(one.index).is_some();
        let policy = &self.host.policy;
        let uncounted = policy.uncounted(&pass.interfaces, is_counted).len() + policy.inside().count();
        self.components.set_uncounted(uncounted);
        let attached = self.follower.compared(pass, &session.registry);
        self.host.sync_addresses(&mut session)?;
        self.log(&attached);
        if made_anew {
            // Their class table may differ from the one in the ledger.
            self.ledger.class_table_changed();
        }
        if self.note_gaps() || made_anew || has_attributed(&attached) {
            self.drain_locked(session.maps(), DrainTrigger::Event);
        }
        Ok(session)
    }

    /// Notes a class file that could not be used for new counters, and has it tried again.
    fn note_class_table(&self) {
        if let Some(reason) = self.host.take_unused_class_file() {
            self.components.set_failed(Part::ClassFile, &reason);
            self.loader.load_again();
        }
    }

    fn note_made_anew(&mut self, made_anew: bool) {
        if made_anew {
            tracing::error!(
                "another process removed program and counters under {}: new ones were created. What was \
                 counted since the last drain is lost, and becomes a gap in the ledger",
                self.host.bpffs.root().display()
            );
            self.follower.forget();
        }
    }

    fn log(&mut self, attached: &AttachReport) {
        let is_asking = self.mailbox.is_asking.load(Ordering::Relaxed)
            || self.host.config().identity_command.is_some() && !self.is_started;
        if self.follower.log(attached, self.host.kind().name(), is_asking) {
            self.report(WorkerEvent::Retry);
        }
        self.mailbox.is_waiting.store(self.follower.is_waiting(), Ordering::Relaxed);
    }

    /// Looks at containers that may have reached a threshold of a quota since the last drain.
    fn look(&mut self) {
        match self.looks.look() {
            Ok(true) if !self.drain_in_time(DrainTrigger::Event) => self.looks.drain_failed(),
            Ok(_) => {}
            // Found by the next drain at the latest.
            Err(error) => self.components.failed(Part::Quotas, &error),
        }
        self.report(WorkerEvent::LookAt(self.looks.due()));
    }

    /// A drain that is due, and what follows it. Returns whether there was one.
    fn drain_in_time(&mut self, trigger: DrainTrigger) -> bool {
        let began = Begin::now();
        let drained = self.drain(trigger);
        let lost = drained.as_ref().is_err_and(load::is_lost);
        let vanished = matches!(drained, Ok((Restored::Pins | Restored::Other, _)));
        if lost || vanished {
            // At once, not at the next resync: until then nothing may be counted.
            self.resync_or_retry("creating the counters again");
        }
        let reading = drained.ok().and_then(|(_, reading)| reading);
        self.follow_quotas(began, reading.as_ref());
        reading.is_some()
    }

    /// What follows a drain that may be the last one for an interval; `None` for one that failed. Without the lock
    /// on the pinned state: what this takes keeps no start hook waiting.
    fn follow_quotas(&mut self, began: Begin, reading: Option<&Snapshot>) {
        let rules = self.host.policy.rules();
        self.quotas.follow(&mut self.ledger, &self.components, &|id| rules.all_ids(id));
        if let (Some(reading), Some(ledger)) = (reading, self.ledger.opened()) {
            self.looks.drained((began, reading), ledger, &self.host.bpffs, &self.components);
        }
        self.report(WorkerEvent::LookAt(self.looks.due()));
    }

    /// Writes what was counted since the last drain into the ledger, and returns the reading. A failure is noted as
    /// the ledger's; the error is for callers that need its cause.
    fn drain(&mut self, trigger: DrainTrigger) -> anyhow::Result<(Restored, Option<Snapshot>)> {
        if !self.ledger.is_enabled() {
            return Ok((Restored::Nothing, None));
        }
        let (bpffs, host) = (&self.host.bpffs, &self.host);
        let opened = bpffs.mend().and_then(|()| bpffs.lock()).and_then(|lock| {
            let restored = host.restore(&lock)?;
            Ok((load::open(bpffs)?, lock, restored))
        });
        let (maps, _lock, restored) = opened
            .context("cannot drain the counters")
            .inspect_err(|error| self.ledger.note_failure(error))?;
        Ok((restored, self.drain_locked(&maps, trigger)))
    }

    /// As [`Self::drain`], for a caller that holds the lock on the pinned state. A failure is noted as the
    /// ledger's, and the next drain catches up. Returns the reading that was written.
    fn drain_locked(&mut self, maps: &Maps, trigger: DrainTrigger) -> Option<Snapshot> {
        self.ledger.note_names(&self.host.policy.names());
        self.ledger.note_inside(&self.host.policy.inside().cloned().collect::<Vec<_>>());
        let drained = self.ledger.drain(maps, trigger);
        match &drained {
            Ok(_) if self.ledger.needs_class_table() => self.loader.store(),
            Err(error) if ledger_handle::is_busy(error) => self.report(WorkerEvent::DrainSoon),
            Ok(_) | Err(_) => {}
        }
        drained.ok().flatten()
    }
}

/// Whether a pending owner became known: the ledger should have that as well.
fn has_attributed(report: &AttachReport) -> bool {
    report.owner_changes.iter().any(|change| change.from.is_pending())
}

/// Logs a failure. The operation is retried at the next occasion.
pub(super) fn log_failure(doing: &str, result: anyhow::Result<()>) {
    if let Err(error) = result {
        tracing::error!("{doing}: {error:#}");
    }
}

/// How long the last work may take. After that the process exits without it, and the next start does it.
pub(super) const STOP_PATIENCE: Duration = Duration::from_millis(1500);
