//! What the API answers from: counters, the ledger, the state of the node, and the configuration in force.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use traffic_ledger::{Ledger, QueryLimits};
use traffic_model::ContainerId;

use super::worker::{Look, Worker};
use crate::{
    api::{NodeClasses, NodeState, QuotaFacts, Reader, Source, quota_rows},
    class_source,
    config::Config,
    drain,
    kernel::{counters, drops, load},
    node::{
        Host,
        status::{self, Detail, Readings},
    },
    ownership::{self, Ownership, interface_rules::Sources},
    queries::{FindContainers, IdsOf, QuotaFiles},
    render::screen::ContainerNames,
};

/// How long reading what is used of quotas may take. It keeps the write-ahead log from being emptied
/// meanwhile.
const QUOTA_TIME: Duration = Duration::from_secs(10);

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
        let recorded = KnownOwners {
            config: config.clone(),
            sources: self.sources.clone(),
            state_dir: state_dir.clone(),
        };
        let reader = self
            .ledger
            .is_enabled()
            .then(|| Reader::beside_writer(&drain::ledger_path(&state_dir)).resolving(recorded.clone()));
        let (sources, looked_at) = (self.sources.clone(), state_dir.clone());
        let names = self.sources.clone();
        let container_names = recorded.clone();
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
        let quotas = Arc::new(self.quota_files(&state_dir));
        let (of_metrics, ledger) = (Arc::clone(&quotas), drain::ledger_path(&state_dir));
        let has_ledger = self.ledger.is_enabled();
        let dropped = bpffs.clone();
        // Metrics and rates without drops are better than none.
        let read_drops =
            move || load::open(&dropped).and_then(|maps| drops::read(&dropped, &maps)).ok().flatten();
        Source::new(move || counters::read(&load::open(&bpffs)?, &node), health)
            .with_drops(read_drops)
            .with_components(Arc::clone(&self.components))
            .keeping_lives_in(self.host.state_dir())
            .naming(move || class_source::class_names(&named.0.read(), &named.1))
            .naming_containers(move || container_names.names())
            .resolving(move |typed, snapshot| {
                let sources = names.read();
                ownership::resolve(&counted.0.read(), &counted.1, typed, (snapshot, sources.survey.names()))
            })
            .with_ledger(reader)
            .with_node(gather)
            .with_quotas(quotas, move || match has_ledger {
                true => read_quotas(&ledger, &of_metrics),
                false => Ok(QuotaFacts::default()),
            })
            .with_classes(classes)
    }
}

impl Worker {
    /// Where quotas are, and who the containers are that they name.
    fn quota_files(&self, state_dir: &Path) -> QuotaFiles {
        let (config, of_state) = (self.config.clone(), state_dir.to_owned());
        let ids = move || -> IdsOf {
            // Without the files that name owners, each container has one id.
            let ownership = Ownership::read(&config.read(), &of_state, None).ok();
            Box::new(move |container| {
                let of_files = ownership.as_ref().map(|ownership| ownership.ids_in_ledger(container));
                of_files.unwrap_or_else(|| vec![container.to_owned()])
            })
        };
        let file = self.quotas.file().to_owned();
        QuotaFiles { file, state_dir: state_dir.to_owned(), ids: Box::new(ids) }
    }
}

/// Reads what is used of quotas.
fn read_quotas(ledger: &Path, files: &QuotaFiles) -> anyhow::Result<QuotaFacts> {
    let mut ledger = Ledger::open_beside_writer(ledger)?;
    // A reader keeps the write-ahead log from being emptied.
    ledger.limit_queries(QueryLimits { most_rows: None, until: Some(Instant::now() + QUOTA_TIME) })?;
    quota_rows::read(&ledger, files)
}

/// The ids and names of containers as the daemon knows them. It looks at no platform.
#[derive(Clone)]
struct KnownOwners {
    config: SharedConfig,
    sources: SharedSources,
    state_dir: PathBuf,
}

impl KnownOwners {
    /// What people call the containers.
    fn names(&self) -> anyhow::Result<ContainerNames> {
        let config = self.config.read();
        let ownership = Ownership::read(&config, &self.state_dir, None)?;
        let names = ownership.names(&config, self.sources.read().survey.names());
        Ok(names.iter().map(|(id, name)| (id.clone(), name.to_owned())).collect())
    }
}

impl FindContainers for KnownOwners {
    fn all_ids(&self, id: &ContainerId) -> anyhow::Result<Vec<ContainerId>> {
        Ok(Ownership::read(&self.config.read(), &self.state_dir, None)?.rules.all_ids(id))
    }

    fn named(&self, name: &str) -> anyhow::Result<Vec<ContainerId>> {
        let config = self.config.read();
        let ownership = Ownership::read(&config, &self.state_dir, None)?;
        Ok(ownership.names(&config, self.sources.read().survey.names()).ids(name))
    }
}

fn gather(host: &Host, state_dir: &Path) -> anyhow::Result<NodeState> {
    let maps = Arc::new(load::open(&host.bpffs)?);
    let readings = Readings::begin(host, state_dir, &maps, Detail::Containers)?;
    let (status, snapshot) = status::gather_with_counters(host, state_dir, &maps, readings)?;
    Ok(NodeState { status, snapshot })
}
