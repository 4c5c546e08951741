//! The thread that reads configuration and class files and builds class tables, which takes seconds.
//!
//! It needs no change lock for that, so meanwhile the worker follows interfaces and drains. A finished
//! configuration or table is handed over to the worker, which takes the lock only to put it in force.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    mailbox::{Mailbox, WorkerEvent},
    worker::MakeHost,
};
use crate::{
    class_source::{self, Barred, Known, Loaded, Wanted, Word},
    config::Config,
    drain::Drainer,
    health::{Backoff, Components, Part},
    kernel::{
        bpffs::Bpffs,
        counters, load,
        tables::{self, LoadLock, Prepared},
    },
    node::Host,
};

/// When a load that failed is repeated: building a large table costs a second of CPU time.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_mins(2);

/// What the thread is asked to do.
enum Request {
    /// Look at the class file, and load it if it changed.
    Follow,
    /// Load the class file although it has not changed: the table in force is not its.
    LoadAgain,
    /// Keep the class table in force in the ledger, unless a retry of that is planned for later.
    Store,
    /// Read the configuration and everything it names.
    Reload,
}

/// Something finished that the worker puts in force.
pub(super) enum Handover {
    /// Another configuration.
    Host(Box<Host>),
    /// A class table.
    Table(Box<Prepared>),
}

/// A handover and the way to answer it.
pub(super) struct Delivery {
    /// What is to be put in force.
    pub what: Handover,
    /// Takes the result. If it is dropped, the handover failed.
    pub done: Sender<anyhow::Result<()>>,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Delivery")
    }
}

/// The thread, as the worker sees it.
#[derive(Debug)]
pub(super) struct ClassLoader {
    requests: Sender<Request>,
    /// Whether the ledger still lacks the table in force, although it was asked to keep it.
    store_failed: Arc<AtomicBool>,
}

/// What the thread begins with.
pub(super) struct Setup {
    pub make_host: MakeHost,
    /// The configuration in force.
    pub config: Config,
    pub bpffs: Bpffs,
    pub state_dir: PathBuf,
    /// What was examined before the table in force was read.
    pub seen: class_source::Seen,
    pub components: Arc<Components>,
    pub mailbox: Arc<Mailbox>,
    pub reports: UnboundedSender<WorkerEvent>,
}

impl ClassLoader {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(setup: Setup) -> anyhow::Result<Self> {
        let (requests, asked) = mpsc::channel();
        let store_failed = Arc::new(AtomicBool::new(false));
        let mut loader = Loader {
            // The ledger keeps the configuration of the start.
            ledger_config: setup.config.clone(),
            setup,
            is_waiting: false,
            held_against: None,
            store_failed: Arc::clone(&store_failed),
            retry: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            store_retry: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            shadow_retry: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            store_error: None,
        };
        thread::Builder::new()
            .name("classes".to_owned())
            .spawn(move || loader.run(&asked))
            .context("cannot start the thread that loads classes")?;
        Ok(Self { requests, store_failed })
    }

    /// Loads the class file if it changed.
    pub(super) fn follow(&self) {
        self.ask(Request::Follow);
    }

    /// Loads the class file as soon as it can be used: the counters were created without it.
    pub(super) fn load_again(&self) {
        self.ask(Request::LoadAgain);
    }

    /// Reads the configuration and all files again.
    pub(super) fn reload(&self) {
        self.ask(Request::Reload);
    }

    /// Keeps the table in force in the ledger.
    pub(super) fn store(&self) {
        // Another table, so that no retry is waited for.
        self.store_failed.store(false, Ordering::Relaxed);
        self.ask(Request::Store);
    }

    /// Looks at the class file again, and repeats what is left to be done. What is mounted over the file's
    /// directory is no event of the watched one.
    pub(super) fn retry(&self) {
        self.follow();
        if self.store_failed.load(Ordering::Relaxed) {
            self.ask(Request::Store);
        }
    }

    fn ask(&self, request: Request) {
        // The thread ends only with the process.
        drop(self.requests.send(request));
    }
}

struct Loader {
    setup: Setup,
    ledger_config: Config,
    /// Whether a good file still has to be loaded.
    is_waiting: bool,
    /// The table that was in force when the file was held.
    held_against: Option<[u8; 32]>,
    store_failed: Arc<AtomicBool>,
    retry: Backoff,
    store_retry: Backoff,
    /// When a shadow that could not be built is tried again.
    shadow_retry: Backoff,
    /// Why the ledger does not keep the table in force, as it was logged.
    store_error: Option<String>,
}

impl Loader {
    fn run(&mut self, asked: &Receiver<Request>) {
        let mailbox = Arc::clone(&self.setup.mailbox);
        while let Ok(first) = asked.recv() {
            // Requests that came meanwhile are one.
            let (mut follow, mut store, mut reload) = (false, false, false);
            for request in std::iter::once(first).chain(asked.try_iter()) {
                match request {
                    Request::Follow => follow = true,
                    Request::LoadAgain => self.is_waiting = true,
                    Request::Store => store = true,
                    Request::Reload => reload = true,
                }
            }
            if reload {
                let _busy = mailbox.loader.begin("reloading");
                let result = self.reload();
                // Whatever is interrupted by the end of the daemon has not failed.
                if !mailbox.is_stopping() {
                    self.setup.components.note(Part::Configuration, &result.context("reloading"));
                }
                // The loop is gone only when the process is about to exit.
                drop(self.setup.reports.send(WorkerEvent::ReloadDone));
            }
            if follow && !reload {
                let _busy = mailbox.loader.begin("following the class file");
                let result = self.follow();
                if !matches!(result, Ok(Followed::NotDue)) && !mailbox.is_stopping() {
                    self.setup.components.note(Part::ClassFile, &result);
                }
            }
            if follow {
                self.renew_shadow();
            }
            let is_planned = self.store_failed.load(Ordering::Relaxed);
            if store && (!is_planned || self.store_retry.is_due(Instant::now())) {
                let stored = self.store(None);
                self.note_stored(stored);
            }
        }
    }

    /// Reads configuration, addresses and classes again. A configuration that cannot be read, or whose class
    /// file is refused, leaves everything as it was. Without another configuration, only the table stays.
    fn reload(&mut self) -> anyhow::Result<()> {
        let host = (self.setup.make_host)()?;
        if let Some(mistake) = host.config_mistake() {
            bail!("{}", mistake.error);
        }
        // Examined before it is read, so that a change in between is found the next time.
        let seen = class_source::look(host.config());
        let loaded = class_source::compiled(host.config(), Wanted::Configured);
        let config = host.config().clone();
        if loaded.is_err() && config != self.setup.config {
            return loaded.map(drop);
        }
        self.hand_over(Handover::Host(Box::new(host)))?;
        self.setup.config = config;
        self.setup.seen = seen;
        let result = loaded.and_then(|loaded| self.take_over(loaded));
        if !self.setup.mailbox.is_stopping() {
            self.setup.components.note(Part::ClassFile, &result);
        }
        self.setup.mailbox.post(|work| work.resync = true);
        Ok(())
    }

    /// Loads the class file if it differs from the one that was examined last. A file that is refused or gone
    /// is reported once, and the table in force stays.
    fn follow(&mut self) -> anyhow::Result<Followed> {
        let seen = class_source::look(&self.setup.config);
        if seen != self.setup.seen {
            self.setup.seen = seen;
            self.retry.succeeded();
        } else if !(self.is_waiting || self.has_stand_in())
            || self.retry.due().is_some() && !self.retry.is_due(Instant::now()) && !self.has_another_table()
        {
            return Ok(Followed::NotDue);
        }
        self.is_waiting = false;
        if self.setup.seen == class_source::Seen::Nothing {
            let places = self.setup.config.class_file_candidates();
            let places: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
            bail!("the class file is gone: there is none at {}", places.join(", "));
        }
        if let Some(problem) = self.setup.seen.problem(&self.setup.config) {
            bail!("{problem}");
        }
        let loaded = class_source::compiled(&self.setup.config, Wanted::Configured)?;
        self.take_over(loaded).map(|()| Followed::Loaded)
    }

    /// Puts the table of the class file that was just examined in force, if it passes the gate.
    fn take_over(&mut self, loaded: Loaded) -> anyhow::Result<()> {
        let result = self.admit(loaded).and_then(|loaded| self.load(&loaded));
        // A file that is held may be put in force by a command, and is then no problem any more. An empty one
        // is most likely still being written.
        self.is_waiting = result.as_ref().is_err_and(|error| !is_empty(error));
        match &result {
            Ok(()) => self.retry.succeeded(),
            Err(_) => self.retry.failed(Instant::now()),
        }
        result
    }

    fn admit(&mut self, loaded: Loaded) -> anyhow::Result<Loaded> {
        let Setup { config, state_dir, bpffs, .. } = &self.setup;
        let known = Known::of_kernel(&load::open(bpffs)?, state_dir);
        let admitted = loaded.admit(&known, config.hold_limit, Word::None);
        self.held_against = admitted.as_ref().err().and(known.hash()).copied();
        Ok(admitted?)
    }

    /// Whether a command has put another table in force since the file was held. The file may be that one.
    fn has_another_table(&self) -> bool {
        let in_force = || counters::class_table(&load::open(&self.setup.bpffs)?);
        self.held_against.is_some_and(|held| in_force().is_ok_and(|info| info.hash != held))
    }

    /// Whether nothing is billed, because no file was usable when the counters were created, perhaps before
    /// this process.
    fn has_stand_in(&self) -> bool {
        class_source::has_stand_in(&self.setup.bpffs, &self.setup.state_dir).unwrap_or(false)
    }

    /// Builds the table beside the one in force, and has the worker switch to it.
    fn load(&mut self, loaded: &Loaded) -> anyhow::Result<()> {
        let table = &loaded.table;
        let loading = LoadLock::take(&self.setup.bpffs)?;
        let prepared = tables::prepare(&load::open(&self.setup.bpffs)?, table, &|_, _| {})?;
        self.hand_over(Handover::Table(Box::new(prepared)))?;
        loaded.log_warnings();
        tracing::info!("{}", class_source::in_force(table));
        class_source::keep(&self.setup.state_dir, loaded);
        // The figures name the table, so they do not need its text at once.
        let stored = self.store(Some(table.clone()));
        self.note_stored(stored);
        // Last, because it can take seconds.
        class_source::shadow::renew_or_log(&self.setup.bpffs, &self.setup.state_dir, &loading);
        Ok(())
    }

    /// Begins the shadow class table anew, if one is wanted and none counts: after a reboot, or when the counters have
    /// moved to other maps.
    fn renew_shadow(&mut self) {
        if self.shadow_retry.due().is_some() && !self.shadow_retry.is_due(Instant::now()) {
            return;
        }
        match class_source::shadow::renew(&self.setup.bpffs, &self.setup.state_dir) {
            Ok(_) => self.shadow_retry.succeeded(),
            Err(error) => {
                tracing::error!("{error:#}");
                self.shadow_retry.failed(Instant::now());
            }
        }
    }

    /// Notes whether the ledger keeps the table in force. If not, that is logged once for each reason, and
    /// retried.
    fn note_stored(&mut self, stored: anyhow::Result<()>) {
        self.store_failed.store(stored.is_err(), Ordering::Relaxed);
        let error = stored.err().map(|error| format!("{error:#}"));
        match &error {
            None => self.store_retry.succeeded(),
            Some(reason) => {
                self.store_retry.failed(Instant::now());
                if self.store_error != error {
                    tracing::error!("keeping the class table: {reason}");
                }
            }
        }
        self.store_error = error;
    }

    fn hand_over(&self, what: Handover) -> anyhow::Result<()> {
        let (done, result) = mpsc::channel();
        self.setup.mailbox.post(|work| work.delivery = Some(Delivery { what, done }));
        result.recv().context("the daemon is ending")?
    }

    /// Stores the text of the table in force in the ledger, over a connection of its own.
    fn store(&self, table: Option<traffic_classes::ClassTable>) -> anyhow::Result<()> {
        let Setup { config, state_dir, bpffs, .. } = &self.setup;
        if !self.ledger_config.ledger_enabled {
            return Ok(());
        }
        let Some(drainer) = Drainer::open_existing(&self.ledger_config, state_dir)? else { return Ok(()) };
        let configured = || Ok(class_source::compiled(config, Wanted::Configured)?.table);
        let table = || table.map_or_else(configured, Ok);
        drainer.store_class_table(&load::open(bpffs)?, table)
    }
}

fn is_empty(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Barred::Empty { .. }))
}

/// What a look at the class file led to.
enum Followed {
    /// Its table is in force.
    Loaded,
    /// Nothing: it is as it was, or a retry is not due yet.
    NotDue,
}
