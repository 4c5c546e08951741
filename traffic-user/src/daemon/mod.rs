//! `trafctl run`: keeps attached what should be, until it is stopped.
//!
//! The event loop here never blocks. It waits for signals, timers, events of interfaces and of files, and
//! posts work to one thread (`worker`) that takes the lock, changes the kernel and writes the ledger. Events
//! only show where to look. A resync regularly compares all interfaces with what is attached. Counting does
//! not need this process: it continues in the kernel.
//!
//! - `worker`: the thread that changes the kernel; `mailbox`: messages between the event loop and the worker.
//! - `class_loader`: the thread that reads the configuration and builds class tables; `files`: how the worker
//!   puts them in force.
//! - `drop_loader`: the thread that has drops counted.
//! - `file_thread`: the thread that watches files, by `file_watch` (events) or `file_states` (comparing them).
//! - `resync`: the timer of resyncs; `schedule`: when to drain.
//! - `follower`: which events call for a change; no sockets, no threads.
//! - `came_and_went`: interfaces that ended before they could be attached; `index_watch`: those that no event shows;
//!   `away`: attached devices in another network namespace.
//! - `ledger_handle`: the ledger, available or not; `api_socket`: the API's socket, bound or not;
//!   `api_source`: what it answers from.
//! - `heartbeat`: the published state and the watchdog; `service_manager`: messages to systemd.
//! - `program_log`: the log lines of the kernel program.
//! - `quota_follower`: the quotas in force; `quota_looks`: looks at containers near a threshold between drains.
//! - `surveys`: looks at the platforms on this host.
//! - `stop_guard`: a bound on the time of the end.

mod api_socket;
mod api_source;
mod away;
mod came_and_went;
mod checkpoints;
mod class_loader;
mod drop_loader;
mod file_states;
mod file_thread;
mod file_watch;
mod files;
mod follower;
mod heartbeat;
mod index_watch;
mod ledger_handle;
mod ledger_opening;
mod mailbox;
mod noted_gaps;
mod program_log;
mod quota_follower;
mod quota_looks;
mod resync;
mod schedule;
mod service_manager;
mod stop_guard;
mod surveys;
mod worker;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{self, Instant, Interval, MissedTickBehavior},
};

use crate::{
    config::Config,
    drain::{self, OtherDaemon},
    health::{Backoff, Components, Part},
    kernel::{bpffs::Bpffs, load::Held},
    net::{events::InterfaceEvents, netlink::Netlink},
    node::Host,
    ownership::identity_command::IdentityQuery,
};
use api_socket::ApiSocket;
use drop_loader::DropLoader;
use file_thread::FileThread;
use heartbeat::Heartbeat;
use mailbox::{Mailbox, Started, WorkerEvent};
use resync::Resync;
use schedule::Schedule;
use service_manager::{Message, tell};
use surveys::Surveys;
use worker::{STOP_PATIENCE, Setup};

/// How soon a failed operation is retried.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How soon the identity command is asked again that has not named a new container: platforms list a container
/// some tenths of a second to some seconds after its interface appears.
const SOON: Duration = Duration::from_millis(500);
/// For how long that is tried at least.
const PATIENCE: Duration = Duration::from_secs(30);
/// How rarely the identity command is retried after it failed often.
const LONGEST_RETRY: Duration = Duration::from_mins(1);
/// How often the ledger is maintained.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(300);
/// How soon it continues when more is left than is done at once.
const MAINTENANCE_PAUSE: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
///
/// `state_dir` is where the ledger is kept, and where a second daemon finds the first. `bpffs` is where the
/// daemon publishes its state. `make_host` reads the configuration and everything named in it; it is called
/// again on SIGHUP. `look` does the same without messages in the log, for the API.
///
/// # Errors
/// When the start fails. Later failures are logged and tried again.
pub async fn run(
    state_dir: &Path,
    bpffs: &Bpffs,
    (make_host, look): (
        impl Fn() -> anyhow::Result<Host> + Send + 'static,
        impl Fn() -> anyhow::Result<Host> + Send + Sync + 'static,
    ),
    log_faults: bool,
    quota_file: PathBuf,
) -> anyhow::Result<()> {
    stop_guard::start()?;
    let mut signals = Signals::catch()?;
    let only_one = match drain::lock_daemon(state_dir) {
        Ok(lock) => Some(lock),
        Err(error) if error.is::<OtherDaemon>() => return Err(error),
        Err(error) => {
            tracing::error!("{error:#}: whether another `trafctl run` uses the ledger there is unknown");
            None
        }
    };
    let _only_here = only_daemon_of(bpffs)?;
    // Before the first listing, so that an interface that appears in between is not missed.
    let events = InterfaceEvents::subscribe()?;
    let (components, mailbox) = (Arc::new(Components::default()), Arc::new(Mailbox::default()));
    let (sender, mut reports) = unbounded_channel();
    let held = Held::default();
    let setup = Setup {
        make_host: Box::new(make_host),
        look: Arc::new(look),
        state_dir: state_dir.to_owned(),
        only_one,
        logs_faults: log_faults,
        quota_file,
        held: held.clone(),
        components: Arc::clone(&components),
    };
    let mut heart = Heartbeat::start(bpffs.root(), Arc::clone(&components), Arc::clone(&mailbox));
    worker::spawn(Arc::clone(&mailbox), sender, setup)?;
    let started = start(&mut signals, &mut heart, &mut reports).await;
    let Ok(Some(started)) = started else {
        // Nothing ran, so nothing was stopped either.
        heart.withdraw();
        return started.map(drop);
    };
    let Started { config, source, drains, log } = *started;
    heart.started(drains);
    match log {
        // Without the log, the faults still count.
        Some(object) => components.note(Part::ProgramLog, &program_log::follow(object)),
        None => components.disabled(Part::ProgramLog),
    }
    let mut daemon = Daemon {
        files: FileThread::start(config.clone(), Arc::clone(&components), Arc::clone(&mailbox))?,
        events,
        netlink: Netlink::connect()?,
        surveys: Surveys::new(Netlink::connect()?),
        asking: IdentityQuery::default(),
        ask_again: Backoff::new(RETRY_INTERVAL, LONGEST_RETRY),
        ask_soon: Backoff::new(SOON, resync::INTERVAL),
        ask_soon_until: Instant::now() + PATIENCE,
        api: ApiSocket::new(source, Arc::clone(&components)),
        drops: DropLoader::start(bpffs, held)?,
        drains: Schedule::new(config.drain_interval),
        config,
        mailbox,
        components,
        heart,
    };
    daemon.api.follow(&daemon.config);
    if daemon.config.identity_command.is_none() {
        daemon.components.disabled(Part::IdentityCommand);
    }
    daemon.ask_if_waiting();
    tell(Message::Ready);
    tracing::info!("attached; following interfaces");
    daemon.drops.check(daemon.config.drops_enabled);
    daemon.follow(&mut signals, &mut reports).await?;
    tell(Message::Stopping);
    daemon.stop(&mut reports).await;
    tracing::info!("ending; counting continues");
    Ok(())
}

/// Keeps a second daemon from the counters of the first. It would have another list of addresses, and each
/// would undo what the other does.
fn only_daemon_of(bpffs: &Bpffs) -> anyhow::Result<File> {
    let bpffs = Bpffs::prepare(bpffs.root())?;
    // A command that keeps daemons away does so for moments.
    bpffs.lock_of_daemon(std::time::Instant::now() + RETRY_INTERVAL)?.with_context(|| {
        format!(
            "cannot use the counters in {}: another `trafctl run` keeps them, with another state directory; stop \
             it first, or give one of the two another --bpffs",
            bpffs.root().display()
        )
    })
}

/// Waits for the worker's start; `None` when a signal came first.
async fn start(
    signals: &mut Signals,
    heart: &mut Heartbeat,
    reports: &mut UnboundedReceiver<WorkerEvent>,
) -> anyhow::Result<Option<Box<Started>>> {
    loop {
        tokio::select! {
            () = heart.due() => heart.beat(),
            // The start can be interrupted at any point: the next start completes it.
            () = signals.end() => return Ok(None),
            report = reports.recv() => match report.context("the node's thread ended at the start")? {
                WorkerEvent::Started(started) => return Ok(Some(started)),
                WorkerEvent::Failed(error) => return Err(error),
                _ => {}
            },
        }
    }
}

/// The signals that the daemon handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot catch SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot catch SIGINT")?,
            hangup: signal(SignalKind::hangup()).context("cannot catch SIGHUP")?,
        })
    }

    /// Waits for a signal to stop.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What the event loop holds. Everything that can block belongs to the worker.
struct Daemon {
    config: Config,
    mailbox: Arc<Mailbox>,
    events: InterfaceEvents,
    /// For the identity command.
    netlink: Netlink,
    surveys: Surveys,
    asking: IdentityQuery,
    ask_again: Backoff,
    /// When the command is asked again because it has not named all containers yet.
    ask_soon: Backoff,
    /// Until then, even if nothing waits: the worker may only be about to attach what it asked for.
    ask_soon_until: Instant,
    files: FileThread,
    drains: Schedule,
    api: ApiSocket,
    drops: DropLoader,
    components: Arc<Components>,
    heart: Heartbeat,
}

impl Daemon {
    async fn follow(
        &mut self,
        signals: &mut Signals,
        reports: &mut UnboundedReceiver<WorkerEvent>,
    ) -> anyhow::Result<()> {
        let mut resync = Resync::start()?;
        let (mut retry_at, mut look_at) = (None, None);
        let mut maintenance = ticks(MAINTENANCE_INTERVAL);
        loop {
            tokio::select! {
                () = time::sleep_until(self.drains.due()), if self.config.ledger_enabled => {
                    self.mailbox.post(|work| work.drain = true);
                    self.drains.plan_next();
                    self.surveys.look_with_drain();
                }
                _ = maintenance.tick() => self.mailbox.post(|work| work.maintain = true),
                batch = self.events.next() => {
                    let batch = batch?;
                    self.mailbox.post(|work| work.events.get_or_insert_default().append(batch));
                }
                () = self.heart.due() => self.heart.beat(),
                () = self.api.due() => self.api.retry(),
                () = resync.tick() => self.resync(),
                () = until(look_at) => {
                    // The answer has the next time.
                    look_at = None;
                    self.mailbox.post(|work| work.look = true);
                }
                () = until(retry_at) => {
                    retry_at = None;
                    self.resync();
                }
                () = until(self.ask_again.due().map(Instant::from_std)) => {
                    self.ask_again.begin();
                    self.ask_if_waiting();
                }
                () = until(self.ask_soon.due().map(Instant::from_std)) => self.ask_soon(),
                answer = self.asking.answer() => self.answered(answer),
                () = until(self.surveys.due()) => {
                    self.surveys.retry(self.mailbox.is_waiting.load(Ordering::Relaxed));
                    self.note_asking();
                }
                survey = self.surveys.answer() => self.surveyed(survey),
                _ = signals.hangup.recv() => {
                    tell(Message::Reloading);
                    self.mailbox.post(|work| work.reload = true);
                }
                report = reports.recv() => match report {
                    None => bail!("the node's thread ended unexpectedly"),
                    Some(WorkerEvent::Ask) => {
                        self.ask_soon.succeeded();
                        self.ask_soon_until = Instant::now() + PATIENCE;
                        self.surveys.ask();
                        self.note_asking();
                        self.ask();
                    }
                    // A planned retry stays, or failures in quick succession would put it off.
                    Some(WorkerEvent::Retry) => {
                        retry_at.get_or_insert_with(|| Instant::now() + RETRY_INTERVAL);
                    }
                    Some(WorkerEvent::DrainSoon) => self.drains.plan_within(RETRY_INTERVAL),
                    Some(WorkerEvent::LookAt(time)) => look_at = time.map(Instant::from_std),
                    Some(WorkerEvent::MaintenanceLeft) => maintenance.reset_after(MAINTENANCE_PAUSE),
                    Some(WorkerEvent::Reloaded(config)) => self.reloaded(*config),
                    Some(WorkerEvent::ReloadDone) => tell(Message::Ready),
                    Some(WorkerEvent::Failed(error)) => return Err(error),
                    Some(WorkerEvent::Started(_) | WorkerEvent::Stopped) => {}
                },
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
            }
        }
    }

    /// Requests a resync. What waits for an answer is asked for, unless a retry of that is planned.
    fn resync(&mut self) {
        if self.ask_again.due().is_none() {
            self.ask_if_waiting();
        }
        self.surveys.start();
        self.mailbox.post(|work| work.resync = true);
        self.drops.check(self.config.drops_enabled);
        self.api.check();
    }

    /// Takes over another configuration.
    fn reloaded(&mut self, config: Config) {
        self.files.follow(config.clone());
        self.drains = Schedule::new(config.drain_interval);
        self.api.follow(&config);
        self.drops.check(config.drops_enabled);
        if config.identity_command.is_none() {
            self.ask_again.succeeded();
            self.ask_soon.succeeded();
            self.components.disabled(Part::IdentityCommand);
        }
        self.config = config;
    }

    /// Requests a last drain, and waits for it no longer than a service manager would.
    async fn stop(self, reports: &mut UnboundedReceiver<WorkerEvent>) {
        let Self { mailbox, asking, api, mut heart, .. } = self;
        mailbox.post(|work| work.stop = true);
        // Ends the identity command while the worker drains.
        drop(asking);
        let stopped = async {
            while let Some(report) = reports.recv().await {
                if matches!(report, WorkerEvent::Stopped) {
                    return;
                }
            }
        };
        let (drained, ()) = tokio::join!(time::timeout(STOP_PATIENCE, stopped), api.stop());
        heart.stopped();
        if drained.is_err() {
            tracing::warn!("ending before the last drain is done; the next start drains what it left");
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits until this moment, or forever without one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
