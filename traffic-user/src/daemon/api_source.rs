//! What the API answers from: counters, the ledger, the state of the node, and the configuration in force.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::worker::{Look, Worker};
use crate::{
    api::{NodeClasses, NodeState, Reader, Source},
    class_source,
    config::Config,
    drain,
    kernel::{counters, load},
    node::{Host, status},
    ownership::{self, Ownership, interface_rules::Sources},
};

/// What is known of owners beside rules and lists, as another thread reads it at any time.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedSources(Arc<Mutex<Sources>>);

impl SharedSources {
    pub(super) fn set(&self, sources: &Sources) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sources.clone();
    }

    fn read(&self) -> Sources {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The configuration in force, as another thread reads it at any time.
#[derive(Clone, Debug)]
pub(super) struct SharedConfig(Arc<RwLock<Arc<Config>>>);

impl SharedConfig {
    pub(super) fn new(config: &Config) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config.clone()))))
    }

    fn read(&self) -> Arc<Config> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over another configuration.
    pub(super) fn set(&self, config: &Config) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config.clone());
    }
}

impl Worker {
    /// What the API answers from. It outlives reloads, and follows them, except that the node keeps the name
    /// it had at the start, as in the ledger.
    pub(super) fn source(&self, look: Look) -> Source {
        let (bpffs, node) = (self.host.bpffs.clone(), self.host.config().node.clone());
        let health = self.ledger.is_enabled().then(|| Arc::clone(self.ledger.health()));
        let (config, state_dir) = (self.config.clone(), self.host.state_dir().to_owned());
        let (named, counted) = ((config.clone(), state_dir.clone()), (config.clone(), state_dir.clone()));
        let recorded = (config.clone(), state_dir.clone());
        let reader = self.ledger.is_enabled().then(|| {
            Reader::beside_writer(&drain::ledger_path(&state_dir)).resolving(move |id| {
                let ownership = Ownership::read(&recorded.0.read(), &recorded.1, None)?;
                Ok(ownership.rules.all_ids(id))
            })
        });
        let (sources, looked_at) = (self.sources.clone(), state_dir.clone());
        let gather = move || {
            let mut host = look()?;
            host.policy.take_known(sources.read());
            gather(&host, &looked_at)
        };
        let classes = NodeClasses {
            bpffs: bpffs.clone(),
            config: Box::new(move || config.read()),
            state_dir: state_dir.clone(),
        };
        Source::new(move || counters::read(&load::open(&bpffs)?, &node), health)
            .with_components(Arc::clone(&self.components))
            .keeping_lives_in(self.host.state_dir())
            .naming(move || class_source::class_names(&named.0.read(), &named.1))
            .resolving(move |typed, snapshot| {
                ownership::resolve(&counted.0.read(), &counted.1, typed, snapshot)
            })
            .with_ledger(reader)
            .with_node(gather)
            .with_classes(classes)
    }
}

fn gather(host: &Host, state_dir: &std::path::Path) -> anyhow::Result<NodeState> {
    let (status, snapshot) = status::gather_with_counters(host, state_dir, &load::open(&host.bpffs)?)?;
    Ok(NodeState { status, snapshot })
}
