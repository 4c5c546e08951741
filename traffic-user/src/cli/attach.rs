//! `trafctl attach`

use std::collections::HashSet;

use anyhow::bail;
use clap::Args;

use crate::{
    class_source::{self, Wanted, Word},
    cli::{
        Done, Format, Global,
        classes::{AfterLoad, put_in_force},
        detach,
        format::interface_name,
        output::print,
    },
    kernel::{
        bpffs::Bpffs,
        hooks::Change,
        load::{self, LoadOutcome, ProgramChoice},
    },
    net::interface::NetInterface,
    node::{
        AttachReport, Host, LockedKernel, Pass, PendingInterface, Selection, Session, pass::end_of_batch,
        session,
    },
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
/// While the configuration file has a mistake, the last one without a mistake is used, and the mistake is
/// reported on stderr. If there is none and the counters exist, the default rules are used.
///
/// An interface whose container is not known yet is counted all the same, under an id that begins with
/// `pending:`. Once the container is known, everything since the first packet is its own.
///
/// A second run changes nothing and prints nothing, so that it suits a cron job; with -v it prints every
/// interface. The class file is loaded only together with the program, or if none was usable then. `trafctl
/// run` and `trafctl classes load` load it later.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl attach\n  \
    trafctl attach veth101.0 veth101.1\n  \
    trafctl attach --format json | jq .failed\n  \
    trafctl attach --purge --yes    start over where an older version's maps are unusable")]
pub struct Options {
    /// Interfaces [default: all that match a rule]
    #[arg(value_name = "IFNAME", value_parser = interface_name())]
    interfaces: Vec<String>,
    /// Delete all counters first, after printing what they were
    #[arg(long)]
    purge: bool,
    /// Do it; without this, only show what would be done, with status 1
    #[arg(long, requires = "purge")]
    yes: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    // Read what can be wrong before anything is changed. A container must not stay uncounted because somebody
    // saved a bad line.
    let config = match global.config_or_last_good() {
        Ok(config) => config,
        // Counting for the container that the default rules name is better than not at all.
        Err(error) if !options.purge && load::open(&global.pinned()).is_ok() => {
            privileges::require()?;
            return by_default_rules(global, options, &error);
        }
        Err(error) => return Err(error),
    };
    privileges::require()?;
    if options.purge && !options.yes {
        let preview = detach::preview_purge(global, &config)?.result;
        // Without counters, there is nothing to confirm.
        if preview.would_purge.is_some() {
            print(&match options.format {
                Format::Table => render::detached_table(&preview),
                Format::Json => render::detached_json(&preview)?,
            })?;
            return Ok(Done::ProblemsFound);
        }
    }
    if options.purge {
        // stdout is for what was attached.
        if let Some(purged) = detach::purge(global, &config).await?.result.purged {
            tracing::warn!("{}", render::purged(&purged));
        }
    }
    let mut host = global.host(Bpffs::prepare(&global.bpffs)?)?;
    host.keep_good_files();
    let selection = if options.interfaces.is_empty() {
        Selection::Matching
    } else {
        Selection::Named(options.interfaces.clone())
    };
    // Before the lock is taken: no other command waits for the operator's identity command. Without one, the
    // listing is saved, which is slow while another process holds the lock of the kernel's interfaces.
    if host.config().identity_command.is_some() {
        let interfaces = host.netlink.interfaces()?;
        host.ask_if_needed(&chosen(&interfaces, &selection)).await;
    }
    let mut pass = Pass::new(selection.clone());
    pass.list(&host.netlink)?;
    // A start hook must be fast: what a name assigns needs no look at the platforms.
    let asked = chosen(&pass.interfaces, &selection);
    if options.interfaces.is_empty() || !asked.iter().all(|interface| host.policy.is_assigned(interface)) {
        host.survey(&pass.interfaces);
    }
    let session = host.begin(ProgramChoice::Current)?;
    let outcome = session.outcome;
    let mut session = complete(&host, session, &mut pass)?;
    host.sync_addresses(&mut session)?;
    let counted: HashSet<u32> = session.registry.indexes().collect();
    let is_counted = |interface: &NetInterface| counted.contains(&interface.index);
    drop(session);
    if outcome != LoadOutcome::Created {
        load_in_place_of_nothing(global, &host);
    }
    let Pass { report, interfaces, .. } = pass;
    for (name, reason) in &report.unresolved {
        tracing::warn!("{name}: not attached: {reason}");
    }
    if options.interfaces.is_empty()
        && let Some(problem) = host.policy.nothing_matches(&interfaces, is_counted)
    {
        tracing::warn!("{problem}");
    }
    finish(&host, (global, options), outcome, (&report, &interfaces))
}

/// Does the pass to its end, and returns the last session.
fn complete(
    host: &Host,
    mut session: Session<LockedKernel>,
    pass: &mut Pass,
) -> anyhow::Result<Session<LockedKernel>> {
    while !pass.batch(&mut session, &host.policy, end_of_batch())? {
        // The lock is free for those who wait.
        drop(session);
        pass.list(&host.netlink)?;
        session = host.begin(ProgramChoice::Pinned)?;
        if session.outcome == LoadOutcome::Created {
            pass.start_over();
        }
    }
    Ok(session)
}

/// Attaches without any configuration, beside the counters that are there: by the rules of the default
/// preset. Program, limits and addresses stay, and so does whatever was attached before.
fn by_default_rules(global: &Global, options: &Options, error: &anyhow::Error) -> anyhow::Result<Done> {
    tracing::error!(
        "{error:#}; no earlier configuration of this file can be used, so only the default rules assign \
         interfaces to containers; correct the file, then `trafctl attach` corrects the owners"
    );
    let mut host = global.host_to_show(Bpffs::prepare(&global.bpffs)?)?;
    let interfaces = host.netlink.interfaces()?;
    host.survey(&interfaces);
    let session = host.begin(ProgramChoice::Pinned)?;
    let outcome = session.outcome;
    let has_owner = |interface: &NetInterface| session.registry.interface_of_index(interface.index).is_some();
    let is_assigned = |role: &Role| matches!(role, Role::Container(_) | Role::Shared);
    let names = if options.interfaces.is_empty() {
        let new = interfaces.iter().filter(|it| !has_owner(it) && is_assigned(&host.policy.role(it)));
        new.map(|interface| interface.name.clone()).collect()
    } else {
        let asked = options.interfaces.iter();
        let is_new = |name: &&String| !interfaces.iter().any(|it| it.is_called(name) && has_owner(it));
        asked.filter(is_new).cloned().collect()
    };
    let mut pass = Pass::new(Selection::Named(names));
    pass.interfaces = interfaces;
    drop(complete(&host, session, &mut pass)?);
    let Pass { report, interfaces, .. } = pass;
    finish(&host, (global, options), outcome, (&report, &interfaces))
}

/// Prints what was done.
///
/// # Errors
/// When an interface could not be attached.
fn finish(
    host: &Host,
    (global, options): (&Global, &Options),
    outcome: LoadOutcome,
    (report, interfaces): (&AttachReport, &[NetInterface]),
) -> anyhow::Result<Done> {
    for PendingInterface { interface, owner, reason } in &report.pending {
        tracing::warn!("{}", session::counted_as(interface, owner, reason));
    }
    let attached = document(host, outcome, report, interfaces);
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

/// Loads the class file if no file was usable when the counters were created: until then nothing is billed. A
/// failure is reported, and keeps no container from being counted.
fn load_in_place_of_nothing(global: &Global, host: &Host) {
    let load = || {
        if !class_source::has_stand_in(&host.bpffs, host.state_dir())? {
            return Ok(());
        }
        let loaded = class_source::compiled(host.config(), Wanted::Configured)?;
        loaded.log_warnings();
        put_in_force(global, host.config(), loaded, Word::None, AfterLoad::RenewShadow).map(drop)
    };
    let result: anyhow::Result<()> = load();
    if let Err(error) = result {
        tracing::error!(
            "{error:#}. Until the file is corrected, all traffic is class 0, which is not billed"
        );
    }
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
            Role::Unresolved { .. } => {
                let pending = report.pending.iter().find(|pending| pending.interface == name)?;
                Some(pending.owner.to_string())
            }
            Role::Shared | Role::Ignored(_) => None,
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
