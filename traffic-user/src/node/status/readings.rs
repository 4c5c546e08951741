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
    kernel::{counters, hooks::LinksOnHooks, maps::Maps},
    net::interface::NetInterface,
    node::Host,
};

/// The interfaces as they are now, and in threads of their own all counters and the state of the ledger: each
/// takes a while on a node with a thousand interfaces, and none needs another. The threads go on while the owners
/// of the interfaces are looked up.
#[derive(Debug)]
pub struct Readings {
    pub(super) moment: Moment,
    links: Option<JoinHandle<LinksOnHooks>>,
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
        let (state_dir, has_ledger) = (state_dir.to_owned(), host.config().ledger_enabled);
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        let counters = thread("counters").spawn(move || match detail {
            Detail::Containers => counters::read(&of_counters, &node),
            Detail::Node => counters::read_without_containers(&of_counters, &node),
        });
        let counters = counters.context("cannot start a thread that reads the counters")?;
        let ledger = thread("ledger").spawn(move || ledger::look(&state_dir, has_ledger));
        let ledger = ledger.context("cannot start a thread that looks at the ledger")?;
        let moment = Moment::read(host, maps)?;
        let attached: Vec<u32> = moment.counted.interfaces().collect();
        let links = thread("hooks").spawn(move || LinksOnHooks::read(attached));
        let links = Some(links.context("cannot start a thread that looks at the hooks")?);
        Ok(Self { moment, links, counters, ledger })
    }

    /// The interfaces.
    pub fn interfaces(&self) -> &[NetInterface] {
        self.moment.interfaces()
    }

    /// What waits for the thread that looks at the hooks. It fails when the thread ended early.
    pub(super) fn links(&mut self) -> impl FnOnce() -> anyhow::Result<LinksOnHooks> + use<> {
        let thread = self.links.take();
        move || {
            let links = thread.map(JoinHandle::join).transpose();
            Ok(links
                .map_err(|_| anyhow!("cannot look at the hooks: their thread ended"))?
                .unwrap_or_default())
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
