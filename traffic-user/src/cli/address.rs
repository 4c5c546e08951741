//! `trafctl address`

use clap::{Args, Subcommand};
use serde::Serialize;
use traffic_model::{ContainerId, notation::parse_prefix};

use crate::{
    cli::{Done, Format, Global, print},
    kernel::load::{self, ProgramChoice, StateError},
    render,
};

/// Say which container owns which address on a shared interface (venet0)
///
/// Addresses come from `IP_ADDRESS=` of `/etc/vz/conf/ID.conf`, from `[[container]]` in the configuration, and from here.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl address add 301 10.0.3.1\n  \
    trafctl address list\n  \
    trafctl address remove 10.0.3.1")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Give an address or a prefix to a container
    #[command(after_long_help = "Examples:\n  \
        trafctl address add 301 10.0.3.1\n  \
        trafctl address add 301 2001:db8:301::/64")]
    Add {
        /// The container
        #[arg(value_name = "ID", value_parser = ContainerId::of_container)]
        container: ContainerId,
        /// Address, or prefix whose host bits are zero
        #[arg(value_name = "ADDRESS", value_parser = parse_prefix)]
        prefix: ipnet::IpNet,
    },
    /// Take back an address that was given here
    #[command(after_long_help = "Example:\n  trafctl address remove 10.0.3.1")]
    Remove {
        /// Address or prefix, as it was given
        #[arg(value_name = "ADDRESS", value_parser = parse_prefix)]
        prefix: ipnet::IpNet,
    },
    /// Show all addresses, with whose they are and who says so
    #[command(after_long_help = "Examples:\n  trafctl address list\n  trafctl address list --format json")]
    List {
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    address: String,
    container: &'a str,
    source: String,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let config = global.config()?;
    let file = global.address_file();
    match &options.action {
        Action::Add { container, prefix } => {
            let same = global.identities(&config)?.naming.all_ids(container);
            file.add(*prefix, &same)?;
        }
        Action::Remove { prefix } => file.remove(*prefix)?,
        Action::List { format } => {
            let identities = global.identities(&config)?;
            identities.complain(None);
            let rows: Vec<_> = identities
                .addresses
                .entries
                .iter()
                .map(|entry| Row {
                    address: entry.prefix.to_string(),
                    container: entry.container.as_str(),
                    source: entry.source.to_string(),
                })
                .collect();
            print(&match format {
                Format::Table => render::rows(
                    &["ADDRESS", "CONTAINER", "SOURCE"],
                    rows.iter()
                        .map(|row| vec![row.address.clone(), row.container.to_owned(), row.source.clone()]),
                ),
                Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
            })?;
            return Ok(Done::Success);
        }
    }
    apply(global).await?;
    Ok(Done::Success)
}

/// Brings a changed list into the kernel; where nothing is loaded yet, `attach` will.
async fn apply(global: &Global) -> anyhow::Result<()> {
    match load::open(&global.pinned()) {
        Err(error) if matches!(error.downcast_ref(), Some(StateError::NotLoaded(_))) => {
            tracing::info!("noted; it takes effect with `trafctl attach`");
            Ok(())
        }
        Err(error) => Err(error),
        Ok(_) => {
            let host = global.host(global.pinned())?;
            let mut session = host.begin(ProgramChoice::Pinned).await?;
            host.sync_addresses(&mut session)
        }
    }
}
