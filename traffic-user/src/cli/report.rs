//! `trafctl report`, `trafctl top-talkers` and `trafctl gaps`: queries to the ledger.

use traffic_ledger::Ledger;

use crate::{
    cli::{Done, Format, Global, global::OnThisNode, output::print},
    queries::{Context, Query, known_names},
    render::ledger as render,
};

impl From<Format> for render::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Table,
            Format::Json => Self::Json,
        }
    }
}

/// Answers a query and prints the answer.
pub(super) fn run(global: &Global, query: &impl Query) -> anyhow::Result<Done> {
    let ledger = global.ledger()?;
    let node = OnThisNode::new(global);
    let resolve = |ledger: &Ledger, typed: &[String]| known_names(ledger, typed, &node);
    let context = Context { resolve: &resolve, class_names: global.class_names() };
    print(&query.resolve(&ledger, &context)?(&ledger, &context)?)?;
    Ok(Done::Success)
}
