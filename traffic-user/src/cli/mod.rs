//! The command line: what each command takes, and which module does it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use tokio::time;
use traffic_common::Family;
use traffic_ledger::{Ledger, LedgerError};
use traffic_model::{ContainerId, Wanted};

use crate::{
    config::Config,
    drain::{ledger_config, ledger_path},
    kernel::bpffs::Bpffs,
    net::netlink::Netlink,
    node::Host,
    ownership::{Ownership, addresses::AddressFile},
    privileges,
    vz::netstat::Name,
};

mod address;
mod adjust;
mod attach;
mod classes;
mod compare;
mod detach;
mod dump;
mod export;
mod import_pva;
mod ledger;
mod multicall;
mod netstat;
mod progress;
mod report;
mod run;
mod status;
mod tactl;
mod top;

/// Counts the traffic of every container and virtual machine, per network class, in the kernel.
///
/// `trafctl attach` loads the program, attaches it to the interfaces of containers and exits; counting goes on without
/// any process. `trafctl run` does the same and follows interfaces as they come and go. `trafctl dump` shows what was
/// counted.
#[derive(Debug, Parser)]
#[command(
    name = "trafctl",
    version,
    propagate_version = true,
    after_long_help = "Examples:\n  \
        trafctl attach                  attach to all containers' interfaces\n  \
        trafctl dump                    show the counters\n  \
        trafctl classes explain 8.8.8.8 which class an address is in, and why\n  \
        trafctl status                  is everything attached that should be?\n  \
        trafctl report --by month       what to bill, from the ledger\n\n\
        Files:\n  \
        /etc/trafctl/trafctl.toml       configuration; may be absent\n  \
        /etc/vz/conf/networks_classes   classes\n  \
        /sys/fs/bpf/trafctl             program, maps and links\n  \
        /var/lib/trafctl                state"
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that stand before or after any command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Configuration file [default: /etc/trafctl/trafctl.toml, which may be absent]
    #[arg(long, global = true, value_name = "FILE", env = "TRAFCTL_CONFIG")]
    config: Option<PathBuf>,
    /// Directory in the BPF file system where program, maps and links are pinned
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "TRAFCTL_BPFFS",
        default_value = "/sys/fs/bpf/trafctl"
    )]
    bpffs: PathBuf,
    /// Directory for what must outlive a reboot
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "TRAFCTL_STATE_DIR",
        default_value = "/var/lib/trafctl"
    )]
    state_dir: PathBuf,
    /// Say more; twice for debugging
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Attach(attach::Options),
    Run(run::Options),
    Detach(detach::Options),
    Dump(dump::Options),
    Top(top::Options),
    Classes(classes::Options),
    Address(address::Options),
    Status(status::Options),
    Report(report::Options),
    TopTalkers(report::TopOptions),
    Gaps(report::GapOptions),
    Close(ledger::CloseOptions),
    Adjust(adjust::Options),
    Audit(ledger::AuditOptions),
    Ledger(ledger::Options),
    Container(ledger::ContainerOptions),
    Compare(compare::Options),
    Export(export::Options),
    Vznetstat(netstat::VznetstatOptions),
    Pnetstat(netstat::PnetstatOptions),
    Vztactl(tactl::Options),
}

impl Command {
    /// Where the arguments of a command go that reads them itself.
    fn foreign_arguments(&mut self) -> Option<&mut Vec<OsString>> {
        match self {
            Self::Vznetstat(options) => Some(&mut options.arguments),
            Self::Pnetstat(options) => Some(&mut options.arguments),
            Self::Vztactl(options) => Some(&mut options.arguments),
            _ => None,
        }
    }
}

/// Which class counters to show
#[derive(Debug, Args)]
struct Shown {
    /// Only IPv4
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only IPv6
    #[arg(short = '6')]
    ipv6: bool,
    /// Only this container; may be repeated
    #[arg(long = "container", value_name = "ID", value_parser = ContainerId::new)]
    containers: Vec<ContainerId>,
    /// Only this class; may be repeated
    #[arg(long = "class", value_name = "N")]
    classes: Vec<u8>,
}

impl Shown {
    fn wanted(&self, global: &Global, config: &Config) -> anyhow::Result<Wanted> {
        Ok(Wanted {
            family: match (self.ipv4, self.ipv6) {
                (true, _) => Some(Family::Ipv4),
                (_, true) => Some(Family::Ipv6),
                _ => None,
            },
            containers: global.all_ids(config, &self.containers)?,
            classes: self.classes.clone(),
        })
    }
}

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// How rows of figures are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SheetFormat {
    /// For people
    #[default]
    Table,
    /// For programs: one document
    Json,
    /// For spreadsheets: the rows only
    Csv,
}

impl Cli {
    /// How much to say on stderr.
    pub fn verbosity(&self) -> u8 {
        self.global.verbose
    }

    /// Does what was asked.
    ///
    /// # Errors
    /// What went wrong, to be shown once and end the process with status 1.
    pub fn run(self) -> anyhow::Result<Done> {
        let Self { global, command } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the event loop")?;
        runtime.block_on(async {
            match command {
                Command::Attach(options) => attach::run(&global, &options).await,
                Command::Run(options) => run::run(&global, &options).await,
                Command::Detach(options) => detach::run(&global, &options).await,
                Command::Dump(options) => dump::run(&global, &options).await,
                Command::Top(options) => top::run(&global, &options).await,
                Command::Classes(options) => classes::run(&global, &options),
                Command::Address(options) => address::run(&global, &options).await,
                Command::Status(options) => status::run(&global, &options).await,
                Command::Report(options) => report::run(&global, &options),
                Command::TopTalkers(options) => report::top(&global, &options),
                Command::Gaps(options) => report::gaps(&global, &options),
                Command::Adjust(options) => adjust::run(&global, &options),
                Command::Close(options) => ledger::close(&global, &options),
                Command::Audit(options) => ledger::audit(&global, &options),
                Command::Ledger(options) => ledger::run(&global, &options),
                Command::Container(options) => ledger::container(&global, &options).await,
                Command::Compare(options) => compare::run(&global, &options),
                Command::Export(options) => export::run(&global, &options),
                Command::Vznetstat(options) => netstat::run(&global, Name::Vznetstat, options.arguments),
                Command::Pnetstat(options) => netstat::run(&global, Name::Pnetstat, options.arguments),
                Command::Vztactl(options) => tactl::run(&global, &options.arguments),
            }
        })
    }

    /// Parses a command line. The program's own name may be that of one of Virtuozzo's commands.
    ///
    /// # Errors
    /// clap's, which knows how to show itself.
    pub fn from_args(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        // Their options are not clap's: `-v` has another meaning there.
        if let Some((head, theirs)) = multicall::split(&args)
            && let Ok(mut cli) = Self::try_parse_from(head)
            && let Some(arguments) = cli.command.foreign_arguments()
        {
            *arguments = theirs;
            return Ok(cli);
        }
        Self::try_parse_from(args)
    }
}

/// How a command that did its work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Status 0.
    Success,
    /// Status 1: the result itself is that something is wrong, and it has been shown.
    ProblemsFound,
    /// A status of a command of Virtuozzo's; what is wrong has been said.
    Status(u8),
}

impl Done {
    fn success_if(well: bool) -> Self {
        if well { Self::Success } else { Self::ProblemsFound }
    }
}

impl Global {
    fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(self.config.as_deref())?)
    }

    /// The pinned things, for commands that only read.
    fn pinned(&self) -> Bpffs {
        Bpffs::new(&self.bpffs)
    }

    fn address_file(&self) -> AddressFile {
        AddressFile::new(&self.state_dir)
    }

    /// Whose interface and whose address is what, by all that is written down.
    fn identities(&self, config: &Config) -> anyhow::Result<Ownership> {
        Ownership::read(config, &self.state_dir, None)
    }

    /// All ids that the containers asked for go by: a number finds what is counted under a UUID, and the other way round.
    fn all_ids(&self, config: &Config, typed: &[ContainerId]) -> anyhow::Result<Vec<ContainerId>> {
        if typed.is_empty() {
            return Ok(Vec::new());
        }
        let identities = self.identities(config)?;
        Ok(typed.iter().flat_map(|id| identities.naming.all_ids(id)).collect())
    }

    /// The ledger, for reading.
    fn ledger(&self) -> anyhow::Result<Ledger> {
        self.open_ledger(Ledger::open_read_only)
    }

    fn ledger_for_writing(&self) -> anyhow::Result<Ledger> {
        let config = ledger_config(&self.config()?);
        self.open_ledger(|path| Ledger::open(path, config))
    }

    fn open_ledger(&self, open: impl FnOnce(&Path) -> Result<Ledger, LedgerError>) -> anyhow::Result<Ledger> {
        let path = ledger_path(&self.state_dir);
        if !path.exists() {
            bail!("there is no ledger {}; `trafctl run` keeps it", path.display());
        }
        open(&path).with_context(|| format!("cannot open the ledger {}", path.display()))
    }

    /// Everything a command that changes the kernel needs.
    fn host(&self, bpffs: Bpffs) -> anyhow::Result<Host> {
        Host::new(self.config()?, bpffs, Netlink::connect()?, &self.state_dir)
    }
}

/// Says what went wrong, with what this process may lack.
pub fn say(error: &anyhow::Error) {
    match privileges::hint(error) {
        Some(hint) => tracing::error!("{error:#} ({hint})"),
        None => tracing::error!("{error:#}"),
    }
}

/// Waits for the interval; false when interrupted.
async fn pause(interval: Duration) -> anyhow::Result<bool> {
    tokio::select! {
        () = time::sleep(interval) => Ok(true),
        result = tokio::signal::ctrl_c() => {
            result?;
            Ok(false)
        }
    }
}

/// Writes a result. A reader that has gone away is no failure of ours.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}
