//! What is attached, what is missing, how full the tables are, and what is wrong: the data of `trafctl
//! status`.
//!
//! Reads the kernel and the files and changes nothing. `render/status` prints the result; its types are in
//! `report`. `interfaces` looks at each interface.

mod conditions;
mod daemon;
mod drops;
mod excess;
mod interfaces;
mod ledger;
mod moment;
mod pending;
mod ports;
mod problem;
mod quota_actions;
mod readings;
mod report;
mod shadow;
mod shipping;
mod unnamed;

use std::{collections::HashMap, path::Path};

use ipnet::IpNet;
use traffic_common::{InterfaceEntry, LAYOUT_VERSION, MARK_CLASSES, Meta, slot_state};
use traffic_model::{Snapshot, hex, skb_mark};
use traffic_quota::ProblemKind;

use crate::{
    class_source,
    config::{self, Config},
    drain,
    health::Part,
    kernel::{
        entries::CountedIn,
        load,
        maps::{self, Maps},
        records, tables,
    },
    node::{Host, MORE_ADDRESSES, host_report, registry::Registry, slot_reclaim::Occupancy},
    time,
    vz::reset_baseline::BaselineFile,
};
use interfaces::Interfaces;
use problem::of_kind;

pub use conditions::{Sent, late_reading, nearly_full, of_gaps};
pub use daemon::{Daemon, DaemonState};
pub use ledger::{GapsStatus, HeldStatus, LedgerStatus};
pub use problem::Problem;
pub use readings::{Detail, Readings};
pub use report::{
    Attachment, ClassTable, CountedUnnamed, DropsStatus, FaultRow, Hook, MapMemory, NotWatched, Pending,
    Program, ShadowStatus, SkbMark, Status, TableDifference, TableUse, Unaccounted, Unmarked, WithoutHostEnd,
};

/// Gathers the state of the node.
///
/// # Errors
/// When a map, the list of interfaces or a hook cannot be read.
pub fn gather(host: &Host, state_dir: &Path, maps: &Maps, readings: Readings) -> anyhow::Result<Status> {
    Ok(gather_with_counters(host, state_dir, maps, readings)?.0)
}

/// The same, with the counters that were read for it.
///
/// # Errors
/// As [`gather`].
pub fn gather_with_counters(
    host: &Host,
    state_dir: &Path,
    maps: &Maps,
    mut readings: Readings,
) -> anyhow::Result<(Status, Snapshot)> {
    let meta = maps.meta.get(0)?;
    let hooks = readings.hooks();
    let interfaces = Interfaces::gather(host, maps, &readings.moment, hooks)?;
    let (snapshot, ledger) = readings.finish()?;
    let Interfaces {
        attachments,
        counted_unnamed,
        not_watched,
        problems: of_interfaces,
        figures,
        unresolved,
        names: _,
        registry,
        entries,
    } = interfaces;
    let pending = pending::gather(&registry, &snapshot, &unresolved);
    let mut problems = Vec::new();
    let mut add = |kind, texts: Vec<String>| problems.extend(of_kind(kind, texts));
    add(ProblemKind::Interfaces, of_interfaces);
    add(ProblemKind::Figures, figures);
    add(ProblemKind::Owners, pending::problems(&pending, time::unix_seconds()));
    add(ProblemKind::Owners, pending::problem_of_ledger(ledger.pending_ids, &pending).into_iter().collect());
    let now_s = time::now_or_end().as_second();
    add(ProblemKind::Quotas, quota_actions::problems(state_dir, now_s));
    add(ProblemKind::Other, shipping::problems(state_dir, &host.config().ship, now_s));
    add(ProblemKind::Other, BaselineFile::new(state_dir).problems());
    add(ProblemKind::Configuration, config::last_good_problem(state_dir).into_iter().collect());
    let addresses = addresses_not_in_force(host, (maps, &registry), &meta)?;
    let tables = table_use(host, &registry, &entries, &meta);
    // An address that the program does not know yet has no slot either, and that is one problem.
    let has_room = tables.iter().any(|table| table.table == CONTAINERS && table.has_room());
    let without_slot = (addresses.is_none() || !has_room)
        .then(|| host.policy.without_slot(|id| registry.container_slot(id).is_some()));
    add(ProblemKind::Owners, addresses.into_iter().collect());
    let inside = host
        .policy
        .inside()
        .map(|device| host_report::problem_of_device(&device.label, &device.why(), device.parent.is_some()));
    add(ProblemKind::Interfaces, inside.collect());
    add(ProblemKind::Tables, without_slot.flatten().into_iter().collect());
    add(ProblemKind::Configuration, foreign_program(&meta).into_iter().collect());
    add(ProblemKind::Configuration, limits_problem(host, &meta)?.into_iter().collect());
    let skb_mark = skb_mark(host, maps, &registry, &meta)?;
    add(ProblemKind::Configuration, skb_mark_problem(&skb_mark).into_iter().collect());
    let (daemon, of_daemon) = daemon::gather(host.bpffs.root());
    let is_configured = host.config().drops_enabled;
    let (drops, drops_problem) = drops::gather(&host.bpffs, maps, is_configured, &daemon);
    add(ProblemKind::Other, drops_problem.into_iter().collect());
    let (shadow, shadow_problem) = shadow::gather(maps, state_dir, &daemon);
    add(ProblemKind::Shadow, shadow_problem.into_iter().collect());
    if daemon.ledger_accepts_writes != Some(false) {
        // Otherwise the daemon has the reason, which is the same problem.
        problems.extend(ledger.problems);
    }
    let class_table = class_table(host.config(), state_dir, (maps, &meta));
    problems.extend(problems_of_files(host, &class_table, of_daemon));
    let status = Status {
        node: host.config().node.clone(),
        trafctl_version: env!("CARGO_PKG_VERSION"),
        layout_version: LAYOUT_VERSION,
        epoch: format!("{:016x}", meta.epoch),
        epoch_created: time::timestamp(meta.created_unix_s).to_string(),
        attach_kind: host.kind().name(),
        daemon,
        ledger: ledger.status,
        programs: programs(host, &meta)?,
        class_table,
        shadow,
        skb_mark,
        drops,
        tables,
        memory: maps::memory(&host.bpffs, maps)?
            .into_iter()
            .chain(shadow::memory(maps))
            .map(|(map, bytes)| MapMemory { map, bytes })
            .collect(),
        attachments,
        counted_unnamed,
        pending,
        without_host_end: host.policy.inside().map(WithoutHostEnd::from).collect(),
        not_watched,
        faults: snapshot.faults.iter().map(FaultRow::from).collect(),
        unaccounted: Unaccounted::from(&snapshot.balance()),
        problem_kinds: problems.iter().map(|problem| problem.kind.name()).collect(),
        problems: problems.into_iter().map(|problem| problem.text).collect(),
    };
    Ok((status, snapshot))
}

/// What to do about a mistake that only the daemon knows of.
const CORRECTED: &str =
    "the file has no mistake now: `systemctl reload trafctl`, or SIGHUP, has the daemon load it";

/// What is wrong with the files, as this process finds them, and with the daemon. What both complain about is
/// one problem.
fn problems_of_files(host: &Host, class_table: &ClassTable, of_daemon: Vec<Problem>) -> Vec<Problem> {
    let is_of = |problem: &Problem, part: Part| problem.text.starts_with(&format!("{}: ", part.name()));
    let daemon_reports = |part, what: &str| {
        of_daemon.iter().any(|problem| is_of(problem, part) && problem.text.contains(what))
    };
    let mut found = Vec::new();
    let mistake = host.config_mistake();
    let unknown = mistake.filter(|mistake| !daemon_reports(Part::Configuration, &mistake.error));
    found.extend(of_kind(ProblemKind::Configuration, unknown.map(ToString::to_string)));
    let unusable = class_table
        .difference
        .as_ref()
        .filter(|difference| difference.refused.is_some() || difference.is_unbilled);
    let unknown = unusable.filter(|_| !daemon_reports(Part::ClassFile, ""));
    found.extend(of_kind(ProblemKind::ClassFile, unknown.map(|difference| difference.message.clone())));
    found.extend(of_kind(ProblemKind::Drains, drain::machine_problem()));
    let of_owners = host.policy.problems();
    let are_listed = !of_owners.is_empty();
    found.extend(of_kind(ProblemKind::Owners, of_owners));
    let of_daemon = of_daemon.into_iter().filter(|problem| !are_listed || !is_of(problem, Part::Owners));
    found.extend(of_daemon.map(|problem| match mistake {
        // The daemon read the file at its start or the last reload.
        None if is_of(&problem, Part::Configuration) => {
            Problem { text: format!("{}; {CORRECTED}", problem.text), ..problem }
        }
        _ => problem,
    }));
    found
}

/// Which of the containers' addresses the program does not count as configured, and what to do.
fn addresses_not_in_force(
    host: &Host,
    (maps, registry): (&Maps, &Registry),
    meta: &Meta,
) -> anyhow::Result<Option<String>> {
    let (missing, otherwise) = host.addresses_not_in_force(maps, registry)?;
    let part = |begin: &str, prefixes: &[IpNet], end: &str| {
        let first = prefixes.first()?;
        Some(format!("{begin} {} of the containers' addresses{end} ({first}, ...)", prefixes.len()))
    };
    let parts = [part("lacks", &missing, ""), part("counts", &otherwise, " otherwise than configured")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return Ok(None);
    }
    let room = u64::from(load::limits_in_force(&host.bpffs, meta)?.addresses);
    let (v4, v6): (Vec<_>, Vec<_>) = host.policy.prefixes().partition(|prefix| prefix.addr().is_ipv4());
    let all_fit = missing.is_empty() || [v4, v6].iter().all(|family| family.len() as u64 <= room);
    let advice = match host.policy.uses_whole_list() {
        true if all_fit => "run `trafctl attach`, or reload the daemon".to_owned(),
        true => format!("`trafctl attach` adds those that fit; {MORE_ADDRESSES}"),
        // They come from an older copy, and the program may know better.
        false => "correct the list of addresses first".to_owned(),
    };
    Ok(Some(format!("the program {}; {advice}", parts.join(" and "))))
}

/// The limits that are configured but not in force. Larger ones take effect at the next start or reload,
/// unless memory is short.
fn limits_problem(host: &Host, meta: &Meta) -> anyhow::Result<Option<String>> {
    let in_force = load::limits_in_force(&host.bpffs, meta)?;
    Ok(host.config().limits.difference(&in_force).map(|difference| {
        format!(
            "[limits] has {difference}; larger limits take effect with `trafctl attach` or a reload, smaller ones \
             only when the counters start over (`trafctl detach --purge --yes`)"
        )
    }))
}

fn foreign_program(meta: &Meta) -> Option<String> {
    load::writes_skb_mark(&meta.program_hash).is_none().then(|| {
        format!(
            "the program in the kernel is from version {}, not from this trafctl; `trafctl attach` \
             replaces it",
            load::version_text(meta.program_version)
        )
    })
}

fn programs(host: &Host, meta: &Meta) -> anyhow::Result<Vec<Program>> {
    let infos = load::program_infos(&host.bpffs)?;
    Ok(infos
        .iter()
        .map(|info| {
            let runs = info.run_count();
            let nanoseconds = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
            Program {
                name: info.name_as_str().unwrap_or_default().to_owned(),
                id: info.id(),
                version: load::version_text(meta.program_version),
                hash: hex(&meta.program_hash),
                run_count: (runs > 0).then_some(runs),
                run_time_ns: (runs > 0).then_some(nanoseconds),
            }
        })
        .collect())
}

fn class_table(config: &Config, state_dir: &Path, (maps, meta): (&Maps, &Meta)) -> ClassTable {
    let known = || class_source::Known::of_kernel(maps, state_dir);
    let difference = class_source::difference_from_table_in_force(config, state_dir, &meta.table_hash, known);
    let order = class_source::record_of(state_dir, &meta.table_hash).and_then(|record| record.order);
    ClassTable {
        hash: hex(&meta.table_hash),
        loaded: time::timestamp(meta.table_loaded_unix_s).to_string(),
        prefixes: meta.table_prefixes,
        order: order.unwrap_or(config.class_order).to_string(),
        difference: difference.map(TableDifference::from),
    }
}

/// `entries` are those of the interfaces that exist or have left something: an entry of another one keeps a
/// slot from being freed, and is here shown as gone.
/// The table of container slots.
const CONTAINERS: &str = "containers";

fn table_use(
    host: &Host,
    registry: &Registry,
    entries: &HashMap<u32, InterfaceEntry>,
    meta: &Meta,
) -> Vec<TableUse> {
    let counted_in = CountedIn::of(entries.values().copied());
    let gone = registry.gone(&counted_in, |id| host.policy.owns_address(id));
    let slots = |table, Occupancy { used, gone, retired }, capacity: u32| TableUse {
        table,
        used,
        gone,
        retired,
        capacity: capacity.into(),
    };
    let mut interfaces = Occupancy::of_interfaces(registry, &gone);
    // The slot for packets of interfaces without a slot of their own.
    interfaces.used -= 1;
    vec![
        slots(CONTAINERS, Occupancy::of_containers(registry, &gone), meta.container_slots),
        slots("interfaces", interfaces, meta.interface_slots - 1),
        TableUse {
            table: "classes",
            used: meta.columns_used.into(),
            gone: 0,
            retired: 0,
            capacity: meta.columns.into(),
        },
    ]
}

fn skb_mark(host: &Host, maps: &Maps, registry: &Registry, meta: &Meta) -> anyhow::Result<SkbMark> {
    let configured = host.config().skb_mark;
    let in_force = load::writes_skb_mark(&meta.program_hash);
    let mut mark =
        SkbMark { configured, in_force, unmarked_containers: Vec::new(), unmarked_classes: Vec::new() };
    if configured || in_force == Some(true) {
        for record in registry.containers() {
            let id = records::container_id(record).filter(|_| record.state == slot_state::IN_USE);
            let Some(id) = id.filter(|id| !id.is_node() && skb_mark::base(id.as_str()).is_none()) else {
                continue;
            };
            let reason = skb_mark::why_unmarked(id.as_str());
            mark.unmarked_containers.push(Unmarked { container: id.to_string(), reason });
        }
        let in_use = tables::classes_in_force(maps, None)?;
        mark.unmarked_classes.extend(in_use.into_iter().filter(|&class| u32::from(class) >= MARK_CLASSES));
    }
    Ok(mark)
}

fn skb_mark_problem(mark: &SkbMark) -> Option<String> {
    let in_force = mark.in_force.filter(|&in_force| in_force != mark.configured)?;
    let (configured, written) = match in_force {
        true => ("off", "writes it"),
        false => ("on", "does not write it"),
    };
    Some(format!(
        "the configuration turns the skb mark {configured}, but the program in the kernel {written}; \
         `trafctl attach` replaces the program without a gap"
    ))
}
