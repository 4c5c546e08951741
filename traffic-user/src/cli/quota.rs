//! `trafctl quota`: checks the file with the quotas, lists them, and shows what is used of each. `set` has
//! the commands that change the file, `actions` those that run what is ordered, `watch` those that look at
//! the node.

mod actions;
mod set;
mod watch;

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use traffic_ledger::Ledger;
use traffic_quota::{FileMistake, Limit, PeriodKind, Quotas, Scope};

use crate::{
    cli::{
        Done, Format, Global,
        global::OnThisNode,
        output::{print, print_error},
        terminal,
    },
    config::Config,
    drain::ledger_path,
    files,
    ownership::Ownership,
    queries::{known_names, parse_time, quotas::Asker},
    quota_actions,
    render::quota::{self as render, Checked, Listed, Shown, whole_second},
    time,
};

/// Set, check and list quotas, show what is used of them, and run their actions
///
/// Quotas are in quotas.toml beside the configuration, usually /etc/trafctl/quotas.toml. A file with a
/// mistake is refused as a whole.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl quota set traffic --default --allowance 1TB\n  \
    trafctl quota check\n  \
    trafctl quota list\n  \
    trafctl quota show 101\n  \
    trafctl quota show --over 80%\n  \
    trafctl quota crossings\n\n\
    Files:\n  \
    /etc/trafctl/quotas.toml         quotas; need not exist")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check the file with the quotas, and how it fits the ledger
    ///
    /// Lists every mistake in the file with its line. If there is none, it looks in the ledger for the
    /// containers that quotas name, and compares commits with how long the ledger keeps rates. Changes
    /// nothing. The status is 2 if the file has a mistake, and 1 if something does not fit.
    #[command(after_long_help = "Examples:\n  \
        trafctl quota check\n  \
        trafctl quota check new.toml && mv new.toml /etc/trafctl/quotas.toml")]
    Check {
        /// File with quotas [default: quotas.toml beside the configuration]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// List the quotas of the file, and how many containers each is for
    #[command(after_long_help = "Examples:\n  trafctl quota list\n  trafctl quota list --format json")]
    List {
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show what each container has used of its quotas, and what the period comes to
    ///
    /// Figures are those of `trafctl report` for the period and classes of the quota. The period is the one
    /// that contains the last reading, or --at. On a terminal figures have units; in a pipe they are exact.
    ///
    /// With --over, only quotas of which so much is used are shown, and the status is 1 if there are any. So
    /// a check of a monitoring system needs nothing else. A quota whose figures cannot be read is always
    /// among them.
    #[command(after_long_help = "Examples:\n  \
        trafctl quota show\n  \
        trafctl quota show 101 --format json\n  \
        trafctl quota show --at 2026-10-31\n  \
        trafctl quota show --over 80%")]
    Show(ShowOptions),
    Crossings(actions::CrossingsOptions),
    Run(actions::RunOptions),
    Alerts(watch::AlertsOptions),
    Watch(watch::WatchOptions),
    Set(Box<set::SetOptions>),
    Remove(set::RemoveOptions),
}

#[derive(Debug, Args)]
struct ShowOptions {
    /// Only these containers, by id or name
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Only quotas of which so much is used, such as 80%
    #[arg(long, value_name = "PERCENT", value_parser = traffic_quota::parse_percent)]
    over: Option<u16>,
    /// The periods that contain this time, such as 2026-10-31 [default: the last reading]
    #[arg(long, value_name = "T")]
    at: Option<String>,
    /// Exact numbers, also on a terminal
    #[arg(long)]
    bytes: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The status of a file with a mistake.
const REFUSED: u8 = 2;

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    match &options.action {
        Action::Check { file, format } => check(global, file.as_deref(), *format),
        Action::List { format } => list(global, *format),
        Action::Show(options) => show(global, options),
        Action::Crossings(options) => actions::crossings(global, options),
        Action::Run(options) => actions::run(global, options).await,
        Action::Alerts(options) => watch::alerts(global, options),
        Action::Watch(options) => watch::watch(global, options).await,
        Action::Set(options) => set::set(global, options),
        Action::Remove(options) => set::remove(global, options),
    }
}

/// The quotas of a file, or its mistakes. `None` if it does not exist.
fn read(path: &Path) -> anyhow::Result<Option<Result<Quotas, Vec<FileMistake>>>> {
    match files::read_text(path, files::MOST_CONFIG_BYTES) {
        Ok(text) => Ok(Some(Quotas::parse(&text))),
        // A dangling link is not a missing file: somebody put it there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the quotas {}", path.display())),
    }
}

fn check(global: &Global, file: Option<&Path>, format: Format) -> anyhow::Result<Done> {
    let path = file.map_or_else(|| global.quota_file(), Path::to_owned);
    let found = read(&path)?;
    if found.is_none() && file.is_some() {
        return Err(anyhow!(
            "cannot read the quotas {}: the file does not exist; correct the path",
            path.display()
        ));
    }
    let mut checked = Checked {
        file: path.display().to_string(),
        exists: found.is_some(),
        quotas: 0,
        mistakes: Vec::new(),
        problems: Vec::new(),
    };
    match found {
        Some(Ok(quotas)) => {
            checked.quotas = quotas.quotas.len();
            checked.problems = problems(global, &quotas);
        }
        Some(Err(mistakes)) => checked.mistakes = mistakes,
        None => {}
    }
    print(&render::checked(&checked, format.into())?)?;
    Ok(match (checked.mistakes.is_empty(), checked.problems.is_empty()) {
        (false, _) => Done::Status(REFUSED),
        (true, is_good) => Done::success_if(is_good),
    })
}

/// What of quotas without a mistake does not fit this node.
fn problems(global: &Global, quotas: &Quotas) -> Vec<String> {
    let config = global.config_to_show().0;
    let kept_days = config.retention.five_minutes_days;
    let rates = quotas.quotas.iter().filter(|quota| matches!(quota.limit, Limit::Rate { .. }));
    let too_long = rates.filter_map(|quota| {
        let days = longest_days(quota.period.kind);
        (days > kept_days).then(|| {
            format!(
                "line {}: the commit {:?} ranks the rates of {days} days, but the ledger keeps those of \
                 {kept_days}; \
                 set five_minutes = \"{days}d\" under [retention]",
                quota.line, quota.name
            )
        })
    });
    let mut found: Vec<String> = too_long.collect();
    let path = ledger_path(&global.state_dir);
    if !path.exists() {
        // Nothing is counted yet.
        return found;
    }
    match named_but_unknown(global, &config, quotas) {
        Ok(unknown) => found.extend(unknown),
        Err(error) => found.push(format!("cannot look for containers in {}: {error:#}", path.display())),
    }
    found
}

/// The most days of a period.
const fn longest_days(kind: PeriodKind) -> u16 {
    match kind {
        PeriodKind::Month(_) => 31,
        PeriodKind::Week => 7,
        PeriodKind::Day => 1,
        PeriodKind::Days(days) => days,
    }
}

/// Quotas that name a container of which the ledger has nothing.
fn named_but_unknown(global: &Global, config: &Config, quotas: &Quotas) -> anyhow::Result<Vec<String>> {
    let ledger = Ledger::open_read_only(&ledger_path(&global.state_dir))?;
    let ids = Ids::read(global, config);
    let containers = ledger.containers()?;
    let known: Vec<String> = containers.iter().flat_map(|known| ids.of(&known.container)).collect();
    let unknown = quotas.quotas.iter().filter_map(|quota| match &quota.scope {
        Scope::Container(id) if !known.contains(id) => Some(format!(
            "line {}: the ledger has nothing of container {id}; correct the id, unless the container is new",
            quota.line
        )),
        _ => None,
    });
    // What an id counted before it was retired was its tenant's.
    let retired: Vec<&str> =
        containers.iter().filter_map(|one| one.container.split_once('@')).map(|(id, _)| id).collect();
    let of_tenants = quotas.tenants.iter().flat_map(|one| {
        let is_known = |id: &String| known.contains(id) || retired.contains(&id.as_str());
        let unknown = one.containers.iter().filter(move |id| !is_known(id));
        unknown.map(|id| {
            format!(
                "line {}: the ledger has nothing of container {id} of tenant {}; correct the id, unless the container \
                 is new",
                one.line, one.tenant
            )
        })
    });
    Ok(unknown.chain(of_tenants).collect())
}

/// All ids that a container is known by.
struct Ids(Option<Ownership>);

impl Ids {
    /// Without the files that name owners, each container has one id.
    fn read(global: &Global, config: &Config) -> Self {
        Self(global.identities(config).ok())
    }

    fn of(&self, container: &str) -> Vec<String> {
        let of_files = self.0.as_ref().map(|ownership| ownership.ids_in_ledger(container));
        of_files.unwrap_or_else(|| vec![container.to_owned()])
    }
}

/// The quotas in force for a command that needs them: none where the file does not exist. After mistakes, the
/// first is printed, and there is nothing to show.
fn usable(global: &Global) -> anyhow::Result<Option<Quotas>> {
    let path = global.quota_file();
    match read(&path)? {
        None => Ok(Some(Quotas::default())),
        Some(Ok(quotas)) => Ok(Some(quotas)),
        Some(Err(mistakes)) => {
            refused(&path, &mistakes);
            Ok(None)
        }
    }
}

/// Prints the first mistake of a file, and how many more there are.
fn refused(path: &Path, mistakes: &[FileMistake]) -> Done {
    let more = match mistakes.len() {
        1 => "; correct it".to_owned(),
        number => format!("; correct it and {} more, which `trafctl quota check` lists", number - 1),
    };
    if let Some(FileMistake { line, column, message }) = mistakes.first() {
        print_error(&anyhow!("{}:{line}:{column}: {message}{more}", path.display()));
    }
    Done::Status(REFUSED)
}

fn list(global: &Global, format: Format) -> anyhow::Result<Done> {
    let Some(quotas) = usable(global)? else { return Ok(Done::Status(REFUSED)) };
    let mut counts = vec![0; quotas.quotas.len()];
    if ledger_path(&global.state_dir).exists() {
        let ledger = global.ledger()?;
        let ids = Ids::read(global, &global.config_to_show().0);
        let day = ledger.calendar().date(time::now_or_end().as_second()).ok();
        for known in ledger.containers()?.into_iter().filter(|known| known.retired.is_none()) {
            let ids = ids.of(&known.container);
            let container = traffic_quota::Container { ids, name: known.name, day };
            for quota in quotas.of(&container) {
                let at = quotas.quotas.iter().position(|other| std::ptr::eq(other, quota));
                at.into_iter().for_each(|at| counts[at] += 1);
            }
        }
    }
    let file = global.quota_file().display().to_string();
    let listed = Listed { file: &file, quotas: &quotas, containers: &counts };
    print(&render::listed(&listed, format.into())?)?;
    Ok(Done::Success)
}

fn show(global: &Global, options: &ShowOptions) -> anyhow::Result<Done> {
    let Some(quotas) = usable(global)? else { return Ok(Done::Status(REFUSED)) };
    let ledger = global.ledger()?;
    let config = global.config_to_show().0;
    let mut asker = Asker::new(&ledger)?;
    let last_reading = asker.extent().last_reading;
    let at = match &options.at {
        Some(text) => Some(parse_time(text, ledger.calendar().zone()).context("cannot use --at")?),
        None => last_reading,
    };
    let wanted = known_names(&ledger, &options.containers, &OnThisNode::new(global))?;
    for container in &wanted {
        anyhow::ensure!(
            ledger.knows_container(container)? || ledger.has_label(container)?,
            "the ledger has no container {container:?}; `trafctl report` lists those it has"
        );
    }
    let ids = Ids::read(global, &config);
    let mut standings = match at {
        Some(at) => asker.standings(&quotas, at, &|container| ids.of(container))?,
        None => Vec::new(),
    };
    standings.retain(|standing| {
        (wanted.is_empty() || wanted.contains(&standing.container))
            && options.over.is_none_or(|percent| standing.is_over(percent))
    });
    let file = global.quota_file().display().to_string();
    let shown = Shown {
        file: &file,
        exact: options.bytes || !terminal::is_output(),
        over: options.over,
        last_reading: last_reading.map(whole_second),
        zone: ledger.calendar().zone_name(),
        failed_actions: quota_actions::failed(&ledger, &global.state_dir)?,
        standings: &standings,
    };
    print(&render::shown(&shown, options.format.into())?)?;
    let has_unknown = standings.iter().any(|standing| standing.used.is_err());
    Ok(Done::success_if(!has_unknown && (options.over.is_none() || standings.is_empty())))
}
