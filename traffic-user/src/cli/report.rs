//! `trafctl report`, `trafctl top-talkers` and `trafctl gaps`: queries to the ledger.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use traffic_ledger::Ledger;
use traffic_store::{Reported, open_ledger};

use crate::{
    cli::{
        Done, Format, Global,
        global::OnThisNode,
        output::{print, print_bytes},
        picture,
        store::Passwords,
        terminal,
    },
    queries::{
        ById, Context, GapOptions, Query, ReportOptions, SheetFormat, TopOptions, Unasked, known_names,
    },
    render::{
        chart::{self, Chart, Theme},
        ledger as render,
        look::{Look, ascii},
    },
};

impl From<Format> for render::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Table,
            Format::Json => Self::Json,
        }
    }
}

/// Report the bytes and packets of each container over time
///
/// Without steps and a span, a table shows this month and last. On a terminal, figures have units, sums, shares
/// and an estimate for the running period, and columns are left out until the lines fit. In a pipe, all figures
/// are exact.
///
/// Steps are calendar hours, days, weeks, months and years of the time zone, also across daylight-saving
/// changes. Billing months may begin on any day; a year has twelve of them. Class 0 is shown separately and is
/// not part of the total. Notes below the table state known gaps; with --container, only those that affect it.
///
/// Corrections of closed months (`trafctl adjust`) do not change the counted figures. They are shown beside
/// them as corrected and to_bill, in the rows that have the whole month.
///
/// Where containers have quotas and the span has the last reading, a table below shows what their present periods come
/// to, and the day on which each allowance is used up. In JSON they are `quotas`.
///
/// With --show, the rows are about interfaces: what passed them, which part was not classified and why, and
/// whether classes and faults add up to what passed, for each container with interfaces of its own and for
/// the node. `--show drops` is about containers: what was counted, what the kernel dropped of it behind the hooks and
/// why, and what was delivered. A table has the rows with drops only.
///
/// With --plot, --svg or --png, there is a bar for each step (days by default), or for each container with `--by
/// total`. Pictures are replaced as a whole, so that a web server never sends half of one.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl report\n  \
    trafctl report --by month --from 2026-10-01 --to 2026-11-01\n  \
    trafctl report --by day --container 101 --plot\n  \
    trafctl report --by week --png /var/www/html/traffic.png --theme dark\n  \
    trafctl report --by day --container 101 --last 30d --split direction\n  \
    trafctl report --by month --tz Europe/Berlin --billing-day 15 --percentile 95\n  \
    trafctl report --from 2026-11-01 --to 2026-12-01 --basis l2 --format csv\n  \
    trafctl report --show faults --last 7d\n  \
    trafctl report --show balance --by month --container 101\n  \
    trafctl report --show drops --last 7d --split direction\n  \
    trafctl report --by month --store postgresql://billing@db.example/traffic")]
pub struct Options {
    #[command(flatten)]
    query: ReportOptions,
    #[command(flatten)]
    source: Source,
    /// Exact numbers, also on a terminal
    #[arg(long)]
    bytes: bool,
    /// Units, sums and shares, also in a pipe
    #[arg(long, conflicts_with_all = ["bytes", "format"])]
    human: bool,
    /// Draw bars instead of a table
    #[arg(long, conflicts_with_all = ["format", "show"])]
    plot: bool,
    /// Write a picture as SVG; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "show", "plot"])]
    svg: Option<PathBuf>,
    /// Write a picture as PNG; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "show", "plot"])]
    png: Option<PathBuf>,
    /// Colours of pictures
    #[arg(long, value_enum, default_value_t)]
    theme: Theme,
}

/// Rank the containers with the most traffic
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl top-talkers --last 7d\n  \
    trafctl top-talkers --count 20 --by-class\n  \
    trafctl top-talkers --last 7d --store postgresql://billing@db.example/traffic")]
pub struct TopTalkers {
    #[command(flatten)]
    query: TopOptions,
    #[command(flatten)]
    source: Source,
}

/// List the gaps: traffic that is missing from the ledger, or was recorded late
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl gaps --last 30d\n  \
    trafctl gaps --format json\n  \
    trafctl gaps --last 30d --store postgresql://billing@db.example/traffic --node n7")]
pub struct Gaps {
    #[command(flatten)]
    query: GapOptions,
    #[command(flatten)]
    source: Source,
}

/// Where the rows are.
#[derive(Clone, Debug, Args)]
struct Source {
    /// Report on the nodes of this store, instead of this node: `postgresql://USER@HOST/DATABASE`
    ///
    /// The store adds up its rows. The figures of one node are those of its ledger, and percentiles of several nodes
    /// are taken over their sum in each five minutes. Containers of nodes with ids of their own are shown as NODE/ID.
    #[arg(long, value_name = "URL", display_order = 800)]
    store: Option<String>,
    /// Only this node of the store; may be repeated
    #[arg(long = "node", value_name = "NAME", requires = "store", display_order = 801)]
    nodes: Vec<String>,
    /// Report on tenants instead of containers: see `trafctl store assign`
    #[arg(long, requires = "store", display_order = 802)]
    by_tenant: bool,
    /// Only this tenant; may be repeated
    #[arg(long = "tenant", value_name = "TENANT", requires = "by_tenant", display_order = 803)]
    tenants: Vec<String>,
    #[command(flatten)]
    passwords: Passwords,
}

impl Source {
    /// The tenants that are asked for.
    fn known_tenants(&self, ledger: &Ledger, containers: &[String]) -> anyhow::Result<Vec<String>> {
        if !containers.is_empty() {
            bail!("a report by tenant has no containers; use --tenant instead of --container");
        }
        for tenant in &self.tenants {
            if !ledger.has_label(tenant)? {
                bail!(
                    "no container of these nodes is of tenant {tenant:?}; `trafctl store tenants` lists them"
                );
            }
        }
        Ok(self.tenants.clone())
    }
}

impl Options {
    const fn is_drawn(&self) -> bool {
        self.plot || self.svg.is_some() || self.png.is_some()
    }

    fn look(&self) -> Look {
        let is_exact = self.bytes || !(self.human || terminal::is_output());
        Look { width: terminal::columns(), colours: terminal::takes_colours(), exact: is_exact }
    }
}

/// `trafctl report`.
pub(super) fn report(global: &Global, mut options: Options) -> anyhow::Result<Done> {
    let is_table = options.query.format == SheetFormat::Table && options.query.is_about_containers();
    options.query.unasked = match (options.is_drawn(), is_table) {
        (true, _) => Unasked::Days,
        (_, true) => Unasked::Months,
        _ => Unasked::Total,
    };
    let is_for_people = is_table && (options.human || terminal::is_output());
    if !options.is_drawn() && !is_for_people {
        return run(global, &options.source, &options.query);
    }
    with_ledger(global, (&options.source, &options.query), |ledger, context| {
        if !options.is_drawn() {
            // A script that mails it has no terminal to ask.
            let mut look = options.look();
            look.width = look.width.or(options.human.then_some(MAIL_WIDTH));
            let text = options.query.shown_with_forecasts(ledger, context, |report, forecasts| {
                render::people::report(report, forecasts, look, &context.class_names)
            })?;
            return print_for_people(&text);
        }
        let report = options.query.figures(ledger, context)?;
        let node = ledger.node()?;
        let chart = Chart::of(&report, node.as_deref(), &context.class_names);
        if options.plot {
            print_for_people(&chart::bars::bars(&chart, options.look()))?;
        }
        if let Some(file) = &options.svg {
            picture::write(file, chart::svg(&chart, options.theme)?.as_bytes(), print_bytes)?;
        }
        if let Some(file) = &options.png {
            picture::write(file, &chart::png(&chart, options.theme)?, print_bytes)?;
        }
        Ok(())
    })?;
    Ok(Done::Success)
}

/// Prints a text with signs that not every terminal has.
fn print_for_people(text: &str) -> anyhow::Result<()> {
    match terminal::is_output() && terminal::is_ascii() {
        true => print(&ascii(text)),
        false => print(text),
    }
}

/// The width of `--human` in a pipe.
const MAIL_WIDTH: usize = 80;

/// Answers a query and prints the answer.
fn run(global: &Global, source: &Source, query: &(impl Query + Sync)) -> anyhow::Result<Done> {
    with_ledger(global, (source, query), |ledger, context| {
        print(&query.resolve(ledger, context)?(ledger, context)?)
    })?;
    Ok(Done::Success)
}

/// `trafctl top-talkers`.
pub(super) fn top(global: &Global, options: &TopTalkers) -> anyhow::Result<Done> {
    run(global, &options.source, &options.query)
}

/// `trafctl gaps`.
pub(super) fn gaps(global: &Global, options: &Gaps) -> anyhow::Result<Done> {
    run(global, &options.source, &options.query)
}

/// Answers from a store. On a thread of its own: the connection has its own event loop.
fn with_store(
    global: &Global,
    url: &str,
    (source, query): (&Source, &(impl Query + Sync)),
    answer: impl FnOnce(&Ledger, &Context<'_>) -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    let configured = global.config_to_show().0.ship.password_file;
    let target = source.passwords.target(url, configured.as_deref())?;
    if source.by_tenant && query.names_interfaces() {
        bail!("interfaces have no tenants; use --by-tenant only with --show containers");
    }
    let class_names = global.class_names();
    let work = || -> anyhow::Result<()> {
        let (zone, billing_day) = query.asked_calendar();
        let reported = Reported {
            nodes: &source.nodes,
            zone,
            billing_day,
            with_interfaces: query.names_interfaces(),
            by_tenant: source.by_tenant,
            until: None,
        };
        let opened = open_ledger(&target, &reported);
        let ledger = opened.with_context(|| format!("cannot report from the store {}", target.name()))?;
        let resolve = |ledger: &Ledger, typed: &[String]| match source.by_tenant {
            false => known_names(ledger, typed, &ById),
            true => source.known_tenants(ledger, typed),
        };
        answer(&ledger, &Context { resolve: &resolve, class_names, kept: None, quotas: None })
    };
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn with_ledger(
    global: &Global,
    (source, query): (&Source, &(impl Query + Sync)),
    answer: impl FnOnce(&Ledger, &Context<'_>) -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    if let Some(url) = &source.store {
        return with_store(global, url, (source, query), answer);
    }
    let ledger = global.ledger()?;
    let node = OnThisNode::new(global);
    let resolve = |ledger: &Ledger, typed: &[String]| known_names(ledger, typed, &node);
    let quotas = global.quota_files();
    let class_names = global.class_names();
    answer(&ledger, &Context { resolve: &resolve, class_names, kept: None, quotas: Some(&quotas) })
}
