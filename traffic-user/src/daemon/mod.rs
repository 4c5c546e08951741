//! `trafctl run`: keeps attached what should be, until told to stop.
//!
//! News of interfaces are acted on one by one; they can be lost when they come too fast, so everything is listed anew
//! now and then. Each change takes the lock and reads the state afresh, so that other commands may change it meanwhile.
//! Nothing here is needed for counting: that goes on in the kernel, whatever becomes of this process.

mod file_watch;
mod files;
mod ledger_handle;
mod resync;
mod schedule;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use aya::Ebpf;
use aya_log::EbpfLogger;
use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    time::{self, MissedTickBehavior},
};
use traffic_ledger::DrainTrigger;

use crate::{
    api::{self, Server, Source},
    class_source,
    drain::{self, OtherDaemon},
    kernel::{
        attach::Change,
        counters,
        load::{self, LoadOutcome, ProgramChoice},
        maps::Maps,
    },
    net::{
        interface::NetInterface,
        netlink::{InterfaceEvent, Netlink},
    },
    node::{AttachReport, Host, Selection, Session},
    ownership::{
        self,
        identity_command::{Answers, IdentityQuery},
        interface_rules::Role,
    },
};
use file_watch::FileWatch;
use files::Classes;
use ledger_handle::LedgerHandle;
use resync::Resync;
use schedule::Schedule;

/// How soon a command that failed is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How often the ledger is summed up.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(300);
/// How soon that goes on when there is more of it than can be done at once.
const MAINTENANCE_PAUSE: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
///
/// `state_dir` is where the ledger is kept, and where a second daemon finds the first. `make_host` reads the configuration and everything named in it; it is called again on SIGHUP.
///
/// # Errors
/// When the start fails. Later failures are logged and tried again.
pub async fn run(
    state_dir: &Path,
    make_host: impl Fn() -> anyhow::Result<Host>,
    log_faults: bool,
) -> anyhow::Result<()> {
    let only_one = match drain::lock_daemon(state_dir) {
        Ok(lock) => Some(lock),
        Err(error) if error.is::<OtherDaemon>() => return Err(error),
        Err(error) => {
            tracing::error!("{error:#}: whether another `trafctl run` keeps a ledger there is unknown");
            None
        }
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot catch SIGHUP")?;
    // Before the first listing, so that an interface that appears in between is not missed.
    let (_subscription, mut events) = Netlink::watch()?;

    let host = make_host()?;
    if let Some(hint) = host.config.renamed_key_hint() {
        tracing::warn!("{hint}");
    }
    let files = FileWatch::new(&host.config)?;
    let classes = Classes::look(&host.config);
    // Before anything is attached: a start that fails leaves everything as it was.
    let bound = host.config.api.as_ref().map(api::bind_to).transpose()?;
    let ledger = LedgerHandle::open(&host.config, state_dir, only_one)?;
    let mut daemon = Daemon {
        host,
        known: HashMap::new(),
        failed: HashSet::new(),
        waiting: false,
        unresolved: HashSet::new(),
        asking: IdentityQuery::default(),
        files,
        classes,
        ledger,
        logs_faults: log_faults,
    };
    let _log = daemon.start().await?;
    let config = daemon.host.config.clone();
    let directory = state_dir.to_owned();
    let source = daemon
        .source()
        .resolving(move |typed, snapshot| ownership::resolve(&config, &directory, typed, snapshot));
    let server = bound.map(|bound| Server::start(bound, source)).transpose()?;
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("attached; following interfaces");

    let mut resync = Resync::start()?;
    let mut maintenance = time::interval(MAINTENANCE_INTERVAL);
    maintenance.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut drains = Schedule::new(daemon.host.config.drain_interval);
    loop {
        tokio::select! {
            () = time::sleep_until(drains.due()), if daemon.ledger.is_enabled() => {
                let drained = daemon.drain(DrainTrigger::Interval);
                drains.go_on();
                let lost = drained.as_ref().is_err_and(load::is_lost);
                report("draining the counters", drained);
                if lost {
                    // Not at the next listing: until then nothing is counted.
                    report("making the counters anew", daemon.resync().await);
                }
            }
            _ = maintenance.tick() => {
                let left = daemon.ledger.maintain();
                if matches!(left, Ok(true)) {
                    maintenance.reset_after(MAINTENANCE_PAUSE);
                }
                report("keeping the ledger", left.map(drop));
            }
            event = events.next() => {
                let event = event.context("the kernel closed the stream of interface news")?;
                let batch = take_batch(event, &mut events);
                report("following interfaces", daemon.follow(batch).await);
            }
            changed = daemon.files.changed() => daemon.files_changed(changed).await,
            () = resync.tick() => {
                daemon.ask_if_needed();
                if daemon.classes.is_waiting() {
                    report("loading classes", daemon.follow_class_file().await);
                }
                report("listing interfaces", daemon.resync().await);
            }
            () = time::sleep(RETRY_INTERVAL), if daemon.asking.has_failed() => daemon.ask_if_needed(),
            answer = daemon.asking.answer() => report("taking over an answer", daemon.answered(answer).await),
            _ = hangup.recv() => {
                notify(&[sd_notify::NotifyState::Reloading]);
                report("reloading", daemon.reload(&make_host).await);
                drains = Schedule::new(daemon.host.config.drain_interval);
                notify(&[sd_notify::NotifyState::Ready]);
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    if let Some(server) = server {
        server.stop().await;
    }
    // What this one misses, the next start's drain takes up.
    report("draining the counters", daemon.drain(DrainTrigger::Event));
    if log_faults {
        // Leave the quiet program behind.
        drop(daemon.host.begin(ProgramChoice::Current).await?);
    }
    tracing::info!("ending; counting goes on");
    Ok(())
}

/// All news that have come already, the last of each interface only.
fn take_batch(
    first: InterfaceEvent,
    events: &mut BoxStream<'static, InterfaceEvent>,
) -> HashMap<u32, InterfaceEvent> {
    let mut batch = HashMap::new();
    let mut next = Some(first);
    while let Some(event) = next {
        let index = match &event {
            InterfaceEvent::Seen(interface) => interface.index,
            InterfaceEvent::Gone { index } => *index,
            // No interface has it.
            InterfaceEvent::Addresses => 0,
        };
        batch.insert(index, event);
        next = futures_util::FutureExt::now_or_never(events.next()).flatten();
    }
    batch
}

/// A failure is said and tried again at the next listing.
fn report(doing: &str, result: anyhow::Result<()>) {
    if let Err(error) = result {
        tracing::error!("{doing}: {error:#}");
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}

struct Daemon {
    host: Host,
    /// Names of attached interfaces by index: news that change neither are not acted on.
    known: HashMap<u32, String>,
    /// Indexes of interfaces whose attach failed. It may have left one of the two hooks pinned, to be released when the
    /// interface goes.
    failed: HashSet<u32>,
    /// Whether any interface is unresolved.
    waiting: bool,
    /// Unresolved interfaces that were said to be so.
    unresolved: HashSet<(String, String)>,
    /// The command that is asked whose interface is whose.
    asking: IdentityQuery,
    /// News of files.
    files: FileWatch,
    /// The class file.
    classes: Classes,
    /// The ledger.
    ledger: LedgerHandle,
    /// Whether the program writes a log line for each fault.
    logs_faults: bool,
}

impl Daemon {
    async fn start(&mut self) -> anyhow::Result<Option<tokio::task::JoinHandle<()>>> {
        let mut session = self
            .host
            .begin(if self.logs_faults { ProgramChoice::Logging } else { ProgramChoice::Current })
            .await?;
        // Not before: what another process attached while this one waited for the lock is not gone.
        let interfaces = self.host.netlink.interfaces().await?;
        self.host.release_gone(&mut session, &interfaces)?;
        self.host.go_first(&session, &interfaces).await?;
        let attached = self.host.attach(&mut session, &interfaces, &Selection::Matching).await?;
        self.host.sync_addresses(&mut session)?;
        if !attached.unresolved.is_empty() {
            self.ask();
        }
        self.learn(&interfaces, &attached);
        // A ledger that can't be written now does not keep traffic from being counted.
        report("draining the counters", self.drain_locked(&session.loaded.maps, DrainTrigger::Started));
        session.loaded.log.take().map(log_packets).transpose()
    }

    /// Acts on news of some interfaces.
    async fn follow(&mut self, batch: HashMap<u32, InterfaceEvent>) -> anyhow::Result<()> {
        let mut gone = Vec::new();
        let mut seen = Vec::new();
        let mut addresses = false;
        if self.asks_for_refresh(&batch) {
            self.host.refresh()?;
        }
        for (index, event) in batch {
            match event {
                InterfaceEvent::Addresses => addresses = !self.host.config.uplinks.is_empty(),
                InterfaceEvent::Gone { .. } => {
                    if self.known.remove(&index).is_some() | self.failed.remove(&index) {
                        gone.push(index);
                    }
                }
                InterfaceEvent::Seen(interface) => {
                    if self.known.get(&index) == Some(&interface.name) {
                        continue;
                    }
                    match self.host.role(&interface) {
                        Role::Container(_) | Role::Shared | Role::Uplink => seen.push(interface),
                        Role::Unresolved { .. } => {
                            self.ask();
                            seen.push(interface);
                        }
                        Role::Ignored(_) => self.note_rename(&interface),
                    }
                }
            }
        }
        if gone.is_empty() && seen.is_empty() && !addresses {
            return Ok(());
        }
        let mut session = self.host.begin(ProgramChoice::Pinned).await?;
        if session.loaded.outcome == LoadOutcome::Created {
            // All interfaces are to be attached again, not only those there is news of.
            return self.attach_all(session).await;
        }
        let ended = !gone.is_empty();
        for index in gone {
            self.host.release(&mut session, index)?;
        }
        if ended {
            report("draining the counters", self.drain_locked(&session.loaded.maps, DrainTrigger::Event));
        }
        // The node's own addresses with it.
        let attached = self.host.attach(&mut session, &seen, &Selection::Matching).await?;
        self.learn(&seen, &attached);
        Ok(())
    }

    /// What the API answers from. It outlives reloads: as with the ledger, the node keeps the name it had at the start.
    fn source(&self) -> Source {
        let Host { bpffs, config, .. } = &self.host;
        let (bpffs, node) = (bpffs.clone(), config.node.clone());
        let health = self.ledger.is_enabled().then(|| Arc::clone(self.ledger.health()));
        Source::new(move || counters::read(&load::open(&bpffs)?, &node), health)
    }

    /// Drains what was counted since the last time.
    fn drain(&mut self, trigger: DrainTrigger) -> anyhow::Result<()> {
        if !self.ledger.is_enabled() {
            return Ok(());
        }
        let bpffs = &self.host.bpffs;
        let opened = bpffs.mend().and_then(|()| bpffs.lock()).and_then(|lock| Ok((lock, load::open(bpffs)?)));
        let (_lock, maps) = opened.inspect_err(|_| self.ledger.health().failed())?;
        self.drain_locked(&maps, trigger)
    }

    /// As [`Self::drain`], for a caller that holds the lock on the pinned state.
    fn drain_locked(&mut self, maps: &Maps, trigger: DrainTrigger) -> anyhow::Result<()> {
        self.ledger.drain(maps, trigger)?;
        if self.ledger.needs_class_table() {
            let table = || class_source::configured_table(&self.host.config);
            report("keeping the class table", self.ledger.store_class_table(maps, table));
        }
        Ok(())
    }

    /// Whether an interface is new whose container may have been written down only just now.
    fn asks_for_refresh(&self, batch: &HashMap<u32, InterfaceEvent>) -> bool {
        batch.values().any(|event| {
            let InterfaceEvent::Seen(interface) = event else { return false };
            !self.known.contains_key(&interface.index)
                && matches!(self.host.role(interface), Role::Unresolved { .. })
        })
    }

    /// A counted interface whose new name no rule knows: its wires are the same, so it goes on for its container.
    fn note_rename(&mut self, interface: &NetInterface) {
        if let Some(name) = self.known.get_mut(&interface.index) {
            tracing::warn!(
                "{name} is now called {}, which no rule knows: it is counted as before",
                interface.name
            );
            name.clone_from(&interface.name);
        }
    }

    /// Compares everything with everything.
    async fn resync(&mut self) -> anyhow::Result<()> {
        report("reading whose address is what", self.host.refresh());
        let session = self.host.begin(ProgramChoice::Pinned).await?;
        self.attach_all(session).await
    }

    async fn attach_all(&mut self, mut session: Session) -> anyhow::Result<()> {
        let made_anew = session.loaded.outcome == LoadOutcome::Created;
        if made_anew {
            tracing::error!(
                "program and counters were gone from {}, which somebody else must have removed: they are made anew. What was \
                 counted since the last drain is lost, and becomes a gap in the ledger",
                self.host.bpffs.root().display()
            );
            self.known.clear();
        }
        let interfaces = self.host.netlink.interfaces().await?;
        self.host.release_gone(&mut session, &interfaces)?;
        self.host.go_first(&session, &interfaces).await?;
        let attached = self.host.attach(&mut session, &interfaces, &Selection::Matching).await?;
        self.host.sync_addresses(&mut session)?;
        self.failed.clear();
        self.known.retain(|index, _| interfaces.iter().any(|interface| interface.index == *index));
        self.unresolved.retain(|(name, _)| interfaces.iter().any(|interface| interface.name == *name));
        self.waiting = false;
        self.learn(&interfaces, &attached);
        if made_anew {
            // Their class table may be another than the one that was kept.
            self.ledger.class_table_changed();
            report("draining the counters", self.drain_locked(&session.loaded.maps, DrainTrigger::Event));
        }
        Ok(())
    }

    /// Reads configuration, addresses and classes anew; what can't be read leaves everything as it was.
    async fn reload(&mut self, make_host: &impl Fn() -> anyhow::Result<Host>) -> anyhow::Result<()> {
        let host = make_host()?;
        // Looked at before it is read: a change in between is another look then.
        let classes = Classes::look(&host.config);
        let table = class_source::configured_table(&host.config).context("everything stays as it is")?;
        if host.config.api != self.host.config.api {
            tracing::warn!("[api] has changed: that takes effect when trafctl is started anew");
        }
        self.ledger.apply_config(&host.config);
        let other_mark = host.config.skb_mark != self.host.config.skb_mark;
        self.files = FileWatch::new(&host.config)?;
        self.host = host;
        if other_mark && self.logs_faults {
            tracing::warn!(
                "[shaping] has changed; restart `trafctl run` for it to take effect with --log-faults"
            );
        } else if other_mark {
            // The program in force is the one without the mark, or the one with it.
            drop(self.host.begin(ProgramChoice::Current).await?);
        }
        self.classes = classes;
        self.take_over(table).await?;
        self.resync().await
    }

    fn learn(&mut self, interfaces: &[NetInterface], report: &AttachReport) {
        for (name, change) in &report.attached {
            if *change == Change::Attached {
                tracing::info!("{name}: attached ({})", self.host.kind().name());
            }
            if let Some(interface) = interfaces.iter().find(|interface| interface.name == *name) {
                self.known.insert(interface.index, name.clone());
            }
        }
        for (name, reason) in &report.failed {
            // An interface that went while we were at it is no failure; its end is news of its own.
            tracing::warn!("{name}: {reason}");
            if let Some(interface) = interfaces.iter().find(|interface| interface.name == *name) {
                self.failed.insert(interface.index);
            }
        }
        self.waiting |= !report.unresolved.is_empty();
        for (name, reason) in &report.unresolved {
            // While the command is asked, it is too early to complain.
            if !self.asking.is_busy() && self.unresolved.insert((name.clone(), reason.clone())) {
                tracing::warn!("{name}: not attached: {reason}");
            }
        }
    }

    /// Asks the configured command, if there is one.
    fn ask(&mut self) {
        if let Some(command) = &self.host.config.identity_command {
            self.asking.start(command, &self.host.netlink);
        }
    }

    /// Asks again about interfaces that nothing has told of yet.
    fn ask_if_needed(&mut self) {
        if self.waiting {
            self.ask();
        }
    }

    /// Acts on what the command answered. A failure is said once, and it is asked again soon.
    async fn answered(&mut self, answer: anyhow::Result<Answers>) -> anyhow::Result<()> {
        if let Some(answers) = self.asking.outcome(answer) {
            self.host.take_answers(answers);
        }
        self.resync().await
    }
}

/// Brings log lines of the kernel program to our own log, as long as the task lives.
fn log_packets(mut object: Ebpf) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let logger = EbpfLogger::init(&mut object).context("cannot read the program's log")?;
    // SAFETY: the logger keeps its file descriptor open and the same for as long as it lives.
    let mut logger = unsafe { AsyncFd::register(logger) }.context("cannot wait for the program's log")?;
    Ok(tokio::spawn(async move {
        // The maps of the log live as long as the object.
        let _object = object;
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }))
}
