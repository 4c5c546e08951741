//! What classes and containers are called, beside the counters.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use traffic_model::Snapshot;

use crate::{
    class_source,
    config::Config,
    ownership::Ownership,
    platform::survey::Surveyor,
    render::screen::{ContainerNames, Reading},
};

/// How old the names of containers may be. They are in many files.
const LIFE: Duration = Duration::from_secs(10);

/// Reads names for readings.
pub(in crate::cli) struct Names {
    config: Config,
    state_dir: PathBuf,
    surveyor: Surveyor,
    containers: ContainerNames,
    read: Option<Instant>,
}

impl Names {
    pub fn new(config: Config, state_dir: PathBuf) -> Self {
        let containers = ContainerNames::new();
        Self { config, state_dir, surveyor: Surveyor::default(), containers, read: None }
    }

    /// A reading of counters with the names of this time.
    pub fn beside(&mut self, snapshot: Snapshot) -> Reading {
        if self.read.is_none_or(|read| read.elapsed() >= LIFE) {
            // Nothing depends on names: where they cannot be read, ids remain.
            if let Ok(ownership) = Ownership::read(&self.config, &self.state_dir, None) {
                let names = ownership.names(&self.config, &self.surveyor.names());
                self.containers = names.iter().map(|(id, name)| (id.clone(), name.to_owned())).collect();
            }
            self.read = Some(Instant::now());
        }
        let classes = class_source::class_names(&self.config, &self.state_dir);
        Reading { snapshot, classes, containers: self.containers.clone() }
    }
}
