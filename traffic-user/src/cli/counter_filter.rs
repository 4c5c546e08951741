//! The options of `dump` and `top` that select class counters.

use clap::Args;
use traffic_common::Family;
use traffic_model::{ContainerId, Snapshot, Wanted};

use crate::{
    cli::{Global, format::parse_class},
    config::Config,
};

/// Which class counters to show
#[derive(Debug, Args)]
pub(super) struct CounterFilter {
    /// Only IPv4
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only IPv6
    #[arg(short = '6')]
    ipv6: bool,
    /// Only this container, by its id or name; may be repeated
    #[arg(long = "container", value_name = "ID", value_parser = ContainerId::new)]
    containers: Vec<ContainerId>,
    /// Only this class; may be repeated
    #[arg(long = "class", value_name = "N", value_parser = parse_class)]
    classes: Vec<u8>,
}

impl CounterFilter {
    /// The filter with every id that the containers are known by.
    ///
    /// # Errors
    /// [`crate::ownership::UnknownContainer`] for what is no id or name on this node,
    /// [`crate::ownership::AmbiguousName`] for a name of several containers.
    pub(super) fn wanted(
        &self,
        global: &Global,
        config: &Config,
        snapshot: &Snapshot,
    ) -> anyhow::Result<Wanted> {
        Ok(Wanted {
            family: match (self.ipv4, self.ipv6) {
                (true, _) => Some(Family::Ipv4),
                (_, true) => Some(Family::Ipv6),
                _ => None,
            },
            containers: global.find(config, &self.containers, snapshot)?,
            classes: self.classes.clone(),
        })
    }
}
