//! `trafctl attach`

use anyhow::bail;
use clap::Args;

use crate::{
    cli::{Done, Format, Global, detach, format::interface_name, output::print},
    kernel::{
        bpffs::Bpffs,
        hooks::Change,
        load::{LoadOutcome, ProgramChoice},
    },
    net::interface::NetInterface,
    node::{AttachReport, Host, Selection},
    ownership::interface_rules::Role,
    privileges,
    render::attach::{self as render, Attached, AttachedInterface, Refused},
};

/// Attach to the interfaces of containers, and exit
///
/// Loads the program and the class table unless they are loaded, then attaches to the named interfaces, or to
/// all that match a rule. Everything is pinned, so that the kernel keeps counting without any process. In a
/// container's start hook, `trafctl attach veth101.0` returns once the next packet will be counted.
///
/// A second run changes nothing and prints nothing, so that it suits a cron job; with -v it prints every
/// interface. The class file is loaded only together with the program. `trafctl run` and `trafctl classes
/// load` load it later.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl attach\n  \
    trafctl attach veth101.0 veth101.1\n  \
    trafctl attach --format json | jq .failed\n  \
    trafctl attach --purge    start over where an older version's maps are unusable")]
pub struct Options {
    /// Interfaces [default: all that match a rule]
    #[arg(value_name = "IFNAME", value_parser = interface_name())]
    interfaces: Vec<String>,
    /// Delete all counters first, after printing what they were
    #[arg(long)]
    purge: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    // Read what can be wrong before anything is changed.
    let config = global.config()?;
    privileges::require()?;
    if options.purge {
        // stdout is for what was attached.
        if let Some(purged) = detach::purge(global, &config).await?.result.purged {
            tracing::warn!("{}", render::purged(&purged));
        }
    }
    let mut host = global.host(Bpffs::prepare(&global.bpffs)?)?;
    let selection = if options.interfaces.is_empty() {
        Selection::Matching
    } else {
        Selection::Named(options.interfaces.clone())
    };
    let interfaces = host.netlink.interfaces()?;
    // Before the lock is taken: no other command waits for the operator's identity command.
    host.ask_if_needed(&chosen(&interfaces, &selection)).await;
    let mut session = host.begin(ProgramChoice::Current)?;
    // List again: what another process attached while this one waited for the lock is not gone.
    let interfaces = host.netlink.interfaces()?;
    session.release_gone(&interfaces)?;
    session.make_room_for_first_place(&interfaces)?;
    let report = session.attach(&host.policy, &interfaces, &selection)?;
    host.sync_addresses(&mut session)?;
    for (name, reason) in &report.unresolved {
        tracing::warn!("{name}: not attached: {reason}");
    }
    let attached = document(&host, session.outcome, &report, &interfaces);
    print(&match options.format {
        Format::Table => render::attached_table(&attached, global.verbose > 0),
        Format::Json => render::attached_json(&attached)?,
    })?;
    if !report.failed.is_empty() {
        let reasons: Vec<_> =
            report.failed.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        bail!(
            "cannot attach to {} of {} interfaces: {}",
            report.failed.len(),
            report.failed.len() + report.attached.len(),
            reasons.join("; ")
        );
    }
    Ok(Done::Success)
}

fn chosen(interfaces: &[NetInterface], selection: &Selection) -> Vec<NetInterface> {
    match selection {
        Selection::Matching => interfaces.to_vec(),
        Selection::Named(names) => interfaces
            .iter()
            .filter(|interface| names.iter().any(|name| interface.is_called(name)))
            .cloned()
            .collect(),
    }
}

fn document(
    host: &Host,
    outcome: LoadOutcome,
    report: &AttachReport,
    interfaces: &[NetInterface],
) -> Attached {
    let container = |name: &str| {
        let interface = interfaces.iter().find(|interface| interface.name == name)?;
        match host.policy.role(interface) {
            Role::Container(id) => Some(id.to_string()),
            Role::Uplink => Some(traffic_model::NODE_ID.to_owned()),
            Role::Shared | Role::Ignored(_) | Role::Unresolved { .. } => None,
        }
    };
    let refused =
        |(name, reason): &(String, String)| Refused { interface: name.clone(), reason: reason.clone() };
    Attached {
        program: match outcome {
            LoadOutcome::Created => "created",
            LoadOutcome::Replaced => "replaced",
            LoadOutcome::Found => "found",
        },
        attach_kind: host.kind().name(),
        interfaces: report
            .attached
            .iter()
            .map(|(name, change)| AttachedInterface {
                interface: name.clone(),
                container: container(name),
                change: match change {
                    Change::Attached => "attached",
                    Change::Replaced => "replaced",
                    Change::Kept => "kept",
                },
            })
            .collect(),
        unresolved: report.unresolved.iter().map(refused).collect(),
        failed: report.failed.iter().map(refused).collect(),
    }
}
