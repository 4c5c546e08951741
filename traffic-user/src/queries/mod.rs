//! Queries to the ledger: the options of `trafctl report`, `top-talkers` and `gaps`, which are also the
//! parameters of the API's documents, and the answers as text.
//!
//! Both ways lead through here, so that a command and a document of the API show the same. `parameters` reads
//! options from a URL, `period` is the span of time, `plots` has the queries that only the API answers, and
//! `quotas` asks what is used of them, which `quota_document` shows, and
//! `quota_forecasts` has what a report says of them.

pub mod parameters;
mod period;
mod plots;
mod quota_document;
mod quota_forecasts;
pub mod quotas;
mod rates;
mod tables;

use clap::ValueEnum;
use traffic_classes::MAX_CLASS;
use traffic_ledger::{Basis, Ledger, NodeSums};
use traffic_model::ContainerId;

use crate::{
    ownership::names,
    render::{ClassNames, ledger as render},
};

pub use period::{Period, parse_time};
pub use plots::{MonthOptions, OverviewOptions, SeriesOptions};
pub use quota_document::{IdsOf, QuotaFiles, QuotaOptions};
pub use quota_forecasts::with_forecasts;
pub use rates::{RateOptions, Sort};
pub use tables::{GapOptions, ReportOptions, TopOptions, Unasked};

/// Finds containers as a ledger knows them.
pub type ResolveContainers<'a> = dyn Fn(&Ledger, &[String]) -> anyhow::Result<Vec<String>> + 'a;

/// What an answer needs besides the ledger.
pub struct Context<'a> {
    /// The requested containers as the ledger knows them.
    pub resolve: &'a ResolveContainers<'a>,
    /// Names of classes.
    pub class_names: ClassNames,
    /// Sums that earlier queries of the same process made, if it keeps any.
    pub kept: Option<&'a NodeSums>,
    /// The quotas of the ledger's containers, if they are known.
    pub quotas: Option<&'a QuotaFiles>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("class_names", &self.class_names).finish_non_exhaustive()
    }
}

/// A billing day for what has no months, so that nodes with several of them need no choice.
pub const ANY_DAY: Option<u8> = Some(1);

/// A query that was read but not asked yet.
pub trait Query {
    /// Whether the answer changes with the clock, besides with the ledger.
    fn ends_now(&self) -> bool;

    /// Time zone and billing day that are asked for. [`ANY_DAY`] where nothing depends on the day.
    fn asked_calendar(&self) -> (Option<&str>, Option<u8>) {
        (None, None)
    }

    /// Whether the answer names interfaces besides containers.
    fn names_interfaces(&self) -> bool {
        false
    }

    /// Whether the answer changes with the quotas of the containers, besides with the ledger.
    fn shows_quotas(&self) -> bool {
        false
    }

    /// Finds out what is asked. What fails here is the fault of whoever asks, unless it is a
    /// [`traffic_ledger::LedgerError`] of another kind than [`traffic_ledger::LedgerError::Query`].
    ///
    /// # Errors
    /// When a value makes no sense for this ledger.
    fn resolve<'q>(&'q self, ledger: &Ledger, context: &Context<'_>) -> anyhow::Result<Resolved<'q>>;
}

/// Asks the ledger, and formats the answer.
pub type Resolved<'q> = Box<dyn FnOnce(&Ledger, &Context<'_>) -> anyhow::Result<String> + 'q>;

/// Finds containers by what people call them.
pub trait FindContainers {
    /// All ids that a container is known by.
    ///
    /// # Errors
    /// When what knows them cannot be read.
    fn all_ids(&self, id: &ContainerId) -> anyhow::Result<Vec<ContainerId>>;

    /// The containers of this name.
    ///
    /// # Errors
    /// As [`Self::all_ids`].
    fn named(&self, name: &str) -> anyhow::Result<Vec<ContainerId>>;
}

/// Each container has one id and no name.
#[derive(Clone, Copy, Debug)]
pub struct ById;

impl FindContainers for ById {
    fn all_ids(&self, id: &ContainerId) -> anyhow::Result<Vec<ContainerId>> {
        Ok(vec![id.clone()])
    }

    fn named(&self, _: &str) -> anyhow::Result<Vec<ContainerId>> {
        Ok(Vec::new())
    }
}

/// The requested containers as the ledger knows them, by all ids that each is known by. The label of a
/// retired container is not an id and is used as it is. What the ledger does not know may be the name of a
/// container.
///
/// # Errors
/// When the ids or the ledger cannot be read, and for a name of several containers.
pub fn known_names(
    ledger: &Ledger,
    typed: &[String],
    find: &dyn FindContainers,
) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for text in typed {
        let recorded = |id: &ContainerId| -> anyhow::Result<Vec<String>> {
            let mut recorded = Vec::new();
            for id in find.all_ids(id)? {
                if ledger.knows_container(id.as_str())? {
                    recorded.push(id.to_string());
                }
            }
            Ok(recorded)
        };
        let id = ContainerId::new(text).ok();
        let by_id = id.as_ref().map_or_else(|| Ok(Vec::new()), &recorded)?;
        if !by_id.is_empty() {
            found.extend(by_id);
        } else if !ledger.has_label(text)?
            && let Some(named) = names::only(text, find.named(text)?)?
        {
            let by_name = recorded(&named)?;
            found.extend(if by_name.is_empty() { vec![named.to_string()] } else { by_name });
        } else if let Some(label) = names::only(text, ledger.labels_named(text)?)? {
            // It had the name when it was last seen.
            found.push(label);
        } else {
            found.push(id.map_or_else(|| text.clone(), |id| id.to_string()));
        }
    }
    Ok(found)
}

/// Output format of a command that prints rows of figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SheetFormat {
    /// Text for people
    #[default]
    Table,
    /// One document for programs
    Json,
    /// The rows alone, for spreadsheets
    Csv,
}

impl From<SheetFormat> for render::Format {
    fn from(format: SheetFormat) -> Self {
        match format {
            SheetFormat::Table => Self::Table,
            SheetFormat::Json => Self::Json,
            SheetFormat::Csv => Self::Csv,
        }
    }
}

/// Network layer of byte figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Layer {
    /// Layer 3, as counted
    #[default]
    L3,
    /// Ethernet frames
    L2,
    /// The line, including preamble and gap
    L1,
}

impl From<Layer> for Basis {
    fn from(layer: Layer) -> Self {
        match layer {
            Layer::L3 => Self::L3,
            Layer::L2 => Self::L2,
            Layer::L1 => Self::L1,
        }
    }
}

/// Parses a class: 0 to 254.
///
/// # Errors
/// A sentence about what is wrong.
pub fn parse_class(text: &str) -> Result<u8, String> {
    match text.parse::<u64>() {
        Ok(number) => match u8::try_from(number) {
            Ok(class) if class <= MAX_CLASS => Ok(class),
            _ => Err(format!("class {number} is out of range; write 0 to {MAX_CLASS}")),
        },
        Err(_) => Err(format!("{text:?} is not a class; write 0 to {MAX_CLASS}")),
    }
}
