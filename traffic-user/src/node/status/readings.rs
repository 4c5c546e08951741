//! What is read first for `trafctl status`, all of it at once.

use std::{
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, anyhow};
use traffic_model::Snapshot;

use super::{
    ledger::{self, Look},
    moment::Moment,
};
use crate::{
    kernel::{counters, hooks::Listed, maps::Maps},
    net::interface::NetInterface,
    node::Host,
};

/// The interfaces as they are now, and in threads of their own all counters and the state of the ledger: each
/// takes a while on a node with a thousand interfaces, and none needs another. The threads go on while the owners
/// of the interfaces are looked up.
#[derive(Debug)]
pub struct Readings {
    pub(super) moment: Moment,
    hooks: Option<JoinHandle<anyhow::Result<Listed>>>,
    counters: JoinHandle<anyhow::Result<Snapshot>>,
    ledger: JoinHandle<Look>,
}

/// How much of the counters is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// All of them.
    Containers,
    /// Without the rows of the containers, see [`counters::read_without_containers`].
    Node,
}

impl Readings {
    /// Begins to read.
    ///
    /// # Errors
    /// When a thread cannot be started, or a map or the list of interfaces cannot be read.
    pub fn begin(host: &Host, state_dir: &Path, maps: &Arc<Maps>, detail: Detail) -> anyhow::Result<Self> {
        let (of_counters, node) = (Arc::clone(maps), host.config().node.clone());
        let (state_dir, wanted) = (state_dir.to_owned(), ledger::Wanted::from(host.config()));
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        let counters = thread("counters").spawn(move || match detail {
            Detail::Containers => counters::read(&of_counters, &node),
            Detail::Node => counters::read_without_containers(&of_counters, &node),
        });
        let counters = counters.context("cannot start a thread that reads the counters")?;
        let ledger = thread("ledger").spawn(move || ledger::look(&state_dir, &wanted));
        let ledger = ledger.context("cannot start a thread that looks at the ledger")?;
        let hooks = host.hooks();
        let mut of_hooks = None;
        // After the interfaces: one that is attached in between must not lack its pins.
        let moment = Moment::read(host, maps, || {
            let spawned = thread("hooks").spawn(move || hooks.look_ahead());
            of_hooks = Some(spawned.context("cannot start a thread that looks at the hooks")?);
            Ok(())
        })?;
        Ok(Self { moment, hooks: of_hooks, counters, ledger })
    }

    /// The interfaces.
    pub fn interfaces(&self) -> &[NetInterface] {
        self.moment.interfaces()
    }

    /// What waits for the thread that looks at the hooks. It fails when pins or qdiscs could not be listed.
    pub(super) fn hooks(&mut self) -> impl FnOnce() -> anyhow::Result<Listed> + use<> {
        let thread = self.hooks.take();
        move || {
            let ended = || anyhow!("cannot look at the hooks: their thread ended");
            thread.ok_or_else(ended)?.join().map_err(|_| ended())?
        }
    }

    /// Waits for the others.
    ///
    /// # Errors
    /// When a map could not be read.
    pub(super) fn finish(self) -> anyhow::Result<(Snapshot, Look)> {
        let counters = self.counters.join();
        let counters = counters.map_err(|_| anyhow!("cannot read the counters: their thread ended"))??;
        let ledger = self.ledger.join();
        Ok((counters, ledger.map_err(|_| anyhow!("cannot look at the ledger: its thread ended"))?))
    }
}
