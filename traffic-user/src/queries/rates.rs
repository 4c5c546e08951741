//! The selection of live rates, as the API takes it. `trafctl top` has the same words for the order.

use clap::{Args, ValueEnum};
use traffic_common::Family;
use traffic_model::{
    ContainerId, Wanted,
    live_rates::{Order, Selection},
};

use super::parse_class;

/// Live rates
#[derive(Debug, Args)]
pub struct RateOptions {
    /// Only this container; may be repeated
    #[arg(long = "container", value_name = "ID", value_parser = ContainerId::new)]
    pub containers: Vec<ContainerId>,
    /// Only this class; may be repeated
    #[arg(long = "class", value_name = "N", value_parser = parse_class)]
    classes: Vec<u8>,
    /// Only this family
    #[arg(long, value_enum)]
    family: Option<FamilyName>,
    /// One row per class instead of one per container
    #[arg(long)]
    by_class: bool,
    /// Sort order
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Number of rows
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub count: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FamilyName {
    Ipv4,
    Ipv6,
}

/// Sort order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Most bytes, in and out together
    #[default]
    Total,
    /// Most bytes in
    In,
    /// Most bytes out
    Out,
    /// Most packets, in and out together
    Packets,
}

impl From<Sort> for Order {
    fn from(sort: Sort) -> Self {
        match sort {
            Sort::Total => Self::Total,
            Sort::In => Self::In,
            Sort::Out => Self::Out,
            Sort::Packets => Self::Packets,
        }
    }
}

impl RateOptions {
    /// The selection. `containers` are all ids that the containers are known by.
    pub fn selection(&self, containers: Vec<ContainerId>) -> Selection {
        let family = self.family.map(|family| match family {
            FamilyName::Ipv4 => Family::Ipv4,
            FamilyName::Ipv6 => Family::Ipv6,
        });
        Selection {
            wanted: Wanted { family, containers, classes: self.classes.clone() },
            by_class: self.by_class,
            order: self.sort.into(),
        }
    }
}
