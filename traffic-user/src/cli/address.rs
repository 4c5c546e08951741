//! `trafctl address`

use clap::{Args, Subcommand};
use serde::Serialize;
use traffic_model::{ContainerId, notation::parse_prefix};

use crate::{
    cli::{Done, Format, Global, output::print},
    kernel::load::{self, ProgramChoice, StateError},
    render::{self, json},
};

/// Assign addresses on shared interfaces (venet0) to containers
///
/// Addresses also come from `IP_ADDRESS=` in `/etc/vz/conf/ID.conf` and from `[[container]]` in the
/// configuration. For the same address, the configuration overrides Virtuozzo's files, and this command
/// overrides both.
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
    /// Assign an address or a prefix to a container
    #[command(after_long_help = "Examples:\n  \
        trafctl address add 301 10.0.3.1\n  \
        trafctl address add 301 2001:db8:301::/64")]
    Add {
        /// Container id
        #[arg(value_name = "ID", value_parser = ContainerId::of_container)]
        container: ContainerId,
        /// Address, or prefix without host bits
        #[arg(value_name = "ADDRESS", value_parser = parse_prefix)]
        prefix: ipnet::IpNet,
    },
    /// Remove an address that was assigned with `address add`
    #[command(after_long_help = "Example:\n  trafctl address remove 10.0.3.1")]
    Remove {
        /// Address or prefix, as it was assigned
        #[arg(value_name = "ADDRESS", value_parser = parse_prefix)]
        prefix: ipnet::IpNet,
    },
    /// List all addresses with their containers and sources
    #[command(after_long_help = "Examples:\n  trafctl address list\n  trafctl address list --format json")]
    List {
        /// Output format
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
    let config = global.config_or_last_good()?;
    let file = global.address_file();
    match &options.action {
        Action::Add { container, prefix } => {
            let same = global.identities(&config)?.rules.all_ids(container);
            file.add(*prefix, &same)?;
        }
        Action::Remove { prefix } => file.remove(*prefix)?,
        Action::List { format } => {
            let identities = global.identities(&config)?;
            identities.log_warnings(None);
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
                Format::Json => json::list("addresses", &rows)?,
            })?;
            return Ok(Done::success_if(identities.uses_whole_list()));
        }
    }
    apply(global).await?;
    Ok(Done::Success)
}

/// Writes a changed list into the kernel. If nothing is loaded yet, `attach` will do so.
async fn apply(global: &Global) -> anyhow::Result<()> {
    match load::open(&global.pinned()) {
        Err(error) if matches!(error.downcast_ref(), Some(StateError::NotLoaded(_))) => {
            tracing::info!("saved; it takes effect with `trafctl attach`");
            Ok(())
        }
        Err(error) => Err(error),
        Ok(_) => {
            let mut host = global.host(global.pinned())?;
            let mut session = host.begin(ProgramChoice::Pinned)?;
            host.sync_addresses(&mut session)
        }
    }
}
