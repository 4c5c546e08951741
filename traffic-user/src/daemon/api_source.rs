//! What the API answers from: counters, state, and the configuration in force.

use std::sync::{Arc, PoisonError, RwLock};

use super::worker::Worker;
use crate::{
    api::Source,
    class_source,
    config::Config,
    kernel::{counters, load},
    ownership,
};

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
    pub(super) fn source(&self) -> Source {
        let (bpffs, node) = (self.host.bpffs.clone(), self.host.config().node.clone());
        let health = self.ledger.is_enabled().then(|| Arc::clone(self.ledger.health()));
        let (config, state_dir) = (self.config.clone(), self.host.state_dir().to_owned());
        let named = (config.clone(), state_dir.clone());
        Source::new(move || counters::read(&load::open(&bpffs)?, &node), health)
            .with_components(Arc::clone(&self.components))
            .keeping_lives_in(self.host.state_dir())
            .naming(move || class_source::class_names(&named.0.read(), &named.1))
            .resolving(move |typed, snapshot| ownership::resolve(&config.read(), &state_dir, typed, snapshot))
    }
}
