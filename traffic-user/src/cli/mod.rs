//! The command line: one file per command, which holds its options and calls the rest.
//!
//! Here are the list of commands and their dispatch. `global` holds the options that every command takes,
//! `format` the output formats and option values, `output` the way to stdout and stderr, `usage` the layout
//! of help.

use std::ffi::OsString;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind};

use crate::vz::netstat::Name;

mod address;
mod adjust;
mod attach;
mod by_name;
mod calibrate;
mod classes;
mod compare;
mod config;
mod confirm;
mod container;
mod counter_filter;
mod detach;
mod dump;
mod export;
mod format;
mod global;
mod host;
mod import_pva;
mod ledger;
mod multicall;
mod netstat;
mod output;
mod picture;
mod progress;
mod quota;
mod reconcile;
mod report;
mod run;
mod screen;
mod ship;
mod statement;
mod status;
mod store;
mod tactl;
mod terminal;
mod top;
mod usage;
mod web;

use self::output::print;
pub use self::{
    format::{Format, SheetFormat},
    global::Global,
    output::{print_error, print_usage},
    usage::command,
};

/// Counts the traffic of every container and virtual machine per network class, in the kernel.
///
/// `trafctl attach` loads the program, attaches it to the interfaces of containers and exits; the kernel
/// keeps counting without any process. `trafctl run` does the same and follows interfaces as they appear and
/// disappear. `trafctl dump` prints the counters.
#[derive(Debug, Parser)]
#[command(
    name = "trafctl",
    version,
    propagate_version = true,
    disable_help_flag = true,
    disable_version_flag = true,
    max_term_width = 100,
    after_long_help = "Examples:\n  \
        trafctl attach                   attach to the interfaces of all containers\n  \
        trafctl dump                     print the counters\n  \
        trafctl classes explain 8.8.8.8  print the class of an address, and why\n  \
        trafctl status                   check that everything is attached\n  \
        trafctl host                     show whose each interface is\n  \
        trafctl report --by month        print what to bill, from the ledger\n\n\
        Files:\n  \
        /etc/trafctl/trafctl.toml        configuration; need not exist\n  \
        /etc/vz/conf/networks_classes    classes\n  \
        /sys/fs/bpf/trafctl              program, maps and links\n  \
        /var/lib/trafctl                 state"
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
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
    Host(host::Options),
    Config(config::Options),
    Report(report::Options),
    TopTalkers(report::TopTalkers),
    Gaps(report::Gaps),
    Quota(quota::Options),
    Web(web::Options),
    Close(ledger::CloseOptions),
    Adjust(adjust::Options),
    Audit(ledger::AuditOptions),
    Statement(statement::Options),
    Verify(statement::VerifyOptions),
    Ledger(ledger::Options),
    Container(container::Options),
    Compare(compare::Options),
    Reconcile(reconcile::Options),
    Calibrate(calibrate::Options),
    Export(export::Options),
    Ship(ship::Options),
    Store(store::Options),
    Vznetstat(netstat::VznetstatOptions),
    Pnetstat(netstat::PnetstatOptions),
    Vztactl(tactl::Options),
}

impl Command {
    /// The place for the arguments of a command that parses them itself.
    fn foreign_arguments(&mut self) -> Option<&mut Vec<OsString>> {
        match self {
            Self::Vznetstat(options) => Some(&mut options.arguments),
            Self::Pnetstat(options) => Some(&mut options.arguments),
            Self::Vztactl(options) => Some(&mut options.arguments),
            _ => None,
        }
    }
}

impl Cli {
    /// How many times `-v` was given.
    pub fn verbosity(&self) -> u8 {
        self.global.verbose
    }

    /// Whether the process serves until it is stopped.
    pub const fn stays(&self) -> bool {
        matches!(self.command, Command::Run(_) | Command::Web(_) | Command::Ship(_))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Any failure of the command. The caller prints it once and exits with status 1.
    pub fn run(self) -> anyhow::Result<Done> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the event loop")?;
        let done = runtime.block_on(self.dispatch());
        // What is still being read on other threads, for a client that waits, must not delay the end.
        runtime.shutdown_background();
        done
    }

    async fn dispatch(self) -> anyhow::Result<Done> {
        let Self { global, command } = self;
        global.pinned().restore_after_kill();
        match command {
            Command::Attach(options) => attach::run(&global, &options).await,
            Command::Run(options) => run::run(&global, &options).await,
            Command::Detach(options) => detach::run(&global, &options).await,
            Command::Dump(options) => dump::run(&global, &options).await,
            Command::Top(options) => top::run(&global, &options).await,
            Command::Classes(options) => classes::run(&global, &options),
            Command::Address(options) => address::run(&global, &options).await,
            Command::Status(options) => status::run(&global, &options).await,
            Command::Host(options) => host::run(&global, &options).await,
            Command::Config(options) => config::run(&global, &options),
            Command::Report(options) => report::report(&global, options),
            Command::TopTalkers(options) => report::top(&global, &options),
            Command::Gaps(options) => report::gaps(&global, &options),
            Command::Quota(options) => quota::run(&global, &options).await,
            Command::Web(options) => web::run(&global, &options).await,
            Command::Adjust(options) => adjust::run(&global, &options),
            Command::Close(options) => ledger::close(&global, &options),
            Command::Audit(options) => ledger::audit(&global, &options),
            Command::Statement(options) => statement::run(&global, &options),
            Command::Verify(options) => statement::check(&options),
            Command::Ledger(options) => ledger::run(&global, &options),
            Command::Container(options) => container::run(&global, &options).await,
            Command::Compare(options) => compare::run(&global, &options),
            Command::Reconcile(options) => reconcile::run(&global, &options).await,
            Command::Calibrate(options) => calibrate::run(&global, &options).await,
            Command::Export(options) => export::run(&global, &options),
            Command::Ship(options) => ship::run(&global, &options).await,
            Command::Store(options) => store::run(&global, &options).await,
            Command::Vznetstat(options) => netstat::run(&global, Name::Vznetstat, options.arguments),
            Command::Pnetstat(options) => netstat::run(&global, Name::Pnetstat, options.arguments),
            Command::Vztactl(options) => tactl::run(&global, &options.arguments),
        }
    }

    /// Parses a command line. The program's own name may be that of one of Virtuozzo's commands.
    ///
    /// # Errors
    /// The error of clap, which prints itself.
    pub fn from_args(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        // Their options are not parsed by clap: `-v` has another meaning there.
        if let Some((head, theirs)) = multicall::split(&args)
            && let Ok(mut cli) = Self::parse_words(head)
            && let Some(arguments) = cli.command.foreign_arguments()
        {
            *arguments = theirs;
            return Ok(cli);
        }
        Self::parse_words(args)
    }

    fn parse_words(words: Vec<OsString>) -> Result<Self, clap::Error> {
        // The layout of help and usage takes longer than everything else here, and only a command line that
        // is not carried out shows it.
        let plain = Self::command().try_get_matches_from(&words);
        match plain.and_then(|matches| Self::from_arg_matches(&matches)) {
            Ok(cli) => return Ok(cli),
            Err(version) if version.kind() == ErrorKind::DisplayVersion => return Err(version),
            Err(_) => {}
        }
        let mut command = command();
        let matches = command.try_get_matches_from_mut(words)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// How a command ends that did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Status 0.
    Success,
    /// Status 1: the printed result itself states problems.
    ProblemsFound,
    /// The status of one of Virtuozzo's commands; the reason has been printed.
    Status(u8),
}

impl Done {
    fn success_if(success: bool) -> Self {
        if success { Self::Success } else { Self::ProblemsFound }
    }
}
