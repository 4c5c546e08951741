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
use traffic_classes::ClassTable;

use tokio::sync::mpsc::UnboundedSender;

use super::{
    mailbox::{Mailbox, WorkerEvent},
    worker::MakeHost,
};
use crate::{
    class_source::{self, ALL_UNBILLED},
    config::Config,
    drain::Drainer,
    health::{Backoff, Components, Part},
    kernel::{
        bpffs::Bpffs,
        load,
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
            store_failed: Arc::clone(&store_failed),
            retry: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            store_retry: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
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
    store_failed: Arc<AtomicBool>,
    retry: Backoff,
    store_retry: Backoff,
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
        let table = class_source::configured_table(host.config());
        let config = host.config().clone();
        if table.is_err() && config != self.setup.config {
            return table.map(drop);
        }
        self.hand_over(Handover::Host(Box::new(host)))?;
        self.setup.config = config;
        self.setup.seen = seen;
        let result = table.and_then(|table| self.take_over(table));
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
        } else if !self.is_waiting || self.retry.due().is_some() && !self.retry.is_due(Instant::now()) {
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
        let table = class_source::configured_table(&self.setup.config)?;
        self.take_over(table).map(|()| Followed::Loaded)
    }

    /// Puts the table of the class file that was just examined in force, unless nothing would be billed.
    fn take_over(&mut self, table: ClassTable) -> anyhow::Result<()> {
        if table.is_all_unclassified() {
            // Its writer has most likely truncated it and not written it yet.
            bail!("{ALL_UNBILLED}; `trafctl classes load --force` loads it");
        }
        let loaded = self.load(table);
        self.is_waiting = loaded.is_err();
        match &loaded {
            Ok(()) => self.retry.succeeded(),
            Err(_) => self.retry.failed(Instant::now()),
        }
        loaded
    }

    /// Builds the table beside the one in force, and has the worker switch to it.
    fn load(&mut self, table: ClassTable) -> anyhow::Result<()> {
        let _loading = LoadLock::take(&self.setup.bpffs)?;
        let prepared = tables::prepare(&load::open(&self.setup.bpffs)?, &table, &|_, _| {})?;
        self.hand_over(Handover::Table(Box::new(prepared)))?;
        tracing::info!("{}", class_source::in_force(&table));
        // The figures name the table, so they do not need its text at once.
        let stored = self.store(Some(table));
        self.note_stored(stored);
        Ok(())
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
    fn store(&self, table: Option<ClassTable>) -> anyhow::Result<()> {
        let Setup { config, state_dir, bpffs, .. } = &self.setup;
        if !self.ledger_config.ledger_enabled {
            return Ok(());
        }
        let Some(drainer) = Drainer::open_existing(&self.ledger_config, state_dir)? else { return Ok(()) };
        let table = || table.map_or_else(|| class_source::configured_table(config), Ok);
        drainer.store_class_table(&load::open(bpffs)?, table)
    }
}

/// What a look at the class file led to.
enum Followed {
    /// Its table is in force.
    Loaded,
    /// Nothing: it is as it was, or a retry is not due yet.
    NotDue,
}
