//! `trafctl status`

use clap::Args;
use traffic_common::{Direction, LAYOUT_VERSION, MARK_CLASSES, Meta, UNKNOWN_INTERFACE_SLOT, slot_state};
use traffic_model::{ContainerId, hex, skb_mark};

use crate::{
    cli::{Done, Format, Global, print},
    kernel::{
        attach::{self, AttachKind, AttachedProgram},
        counters,
        entries::CountedIn,
        load,
        maps::{self, Maps},
        records,
        registry::Registry,
        tables,
    },
    net::interface::NetInterface,
    node::{Host, MORE_ADDRESSES, slot_reclaim::Occupancy},
    ownership::interface_rules::Role,
    render::status::{
        self, Attachment, Hook, MapMemory, NotWatched, Program, ShapingMark, Status, Table, Unmarked, Use,
    },
    time,
};

/// Say whether everything is attached that should be, and how full the tables are
///
/// Status 1 when something that should be attached is not, when a program runs before ours or ours runs twice on a
/// hook, or when an interface's packets are in no counter.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  trafctl status\n  trafctl status --format json | jq .problems\n\n\
    Run counts and times are kept by the kernel while `sysctl kernel.bpf_stats_enabled=1` is set.")]
pub struct Options {
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let maps = load::open(&global.pinned())?;
    let mut host = global.host(global.pinned())?;
    host.ask_if_needed(&host.netlink.interfaces().await?).await?;
    let status = gather(&host, &maps).await?;
    print(&match options.format {
        Format::Table => status::table(&status),
        Format::Json => serde_json::to_string_pretty(&status)? + "\n",
    })?;
    Ok(Done::success_if(status.problems.is_empty()))
}

async fn gather(host: &Host, maps: &Maps) -> anyhow::Result<Status> {
    let meta = maps.meta.get(0)?;
    let mut problems = Vec::new();
    let mut not_watched = Vec::new();
    let attachments = attachments(host, maps, &mut problems, &mut not_watched).await?;
    let unnamed: usize =
        attachments.iter().map(|attachment| attachment.incoming.unnamed + attachment.outgoing.unnamed).sum();
    if unnamed > 0 {
        tracing::warn!(
            "the hooks hold {unnamed} programs of others, whose names can't be read without CAP_SYS_ADMIN: whether they are \
             a second trafctl's can't be told"
        );
    }
    let missing = host.addresses_missing(maps)?;
    if let Some(first) = missing.first() {
        problems.push(format!(
            "the program does not know {} of the containers' addresses ({first}, ...): `trafctl attach` tells it, as far as there \
             is room; {MORE_ADDRESSES}",
            missing.len()
        ));
    }
    let programs = programs(host, &meta, &mut problems)?;
    let shaping_mark = shaping_mark(host, maps, &meta, &mut problems)?;
    let snapshot = counters::read(maps, &host.config.node)?;
    let registry = Registry::read(maps)?;
    let gone = registry.gone(&CountedIn::read(maps)?, |id| host.owns_address(id));
    Ok(Status {
        node: host.config.node.clone(),
        trafctl_version: env!("CARGO_PKG_VERSION"),
        layout_version: LAYOUT_VERSION,
        epoch: format!("{:016x}", meta.epoch),
        epoch_created: time::timestamp(meta.created_unix_s).to_string(),
        attach_kind: host.kind().name(),
        programs,
        class_table: Table {
            hash: hex(&meta.table_hash),
            loaded: time::timestamp(meta.table_loaded_unix_s).to_string(),
            prefixes: meta.table_prefixes,
            order: host.config.class_order.to_string(),
        },
        shaping_mark,
        tables: vec![
            slots("containers", Occupancy::of_containers(&registry, &gone), meta.container_slots),
            slots("interfaces", Occupancy::of_interfaces(&registry, &gone), meta.interface_slots),
            Use {
                table: "classes",
                used: meta.columns_used.into(),
                gone: 0,
                retired: 0,
                capacity: meta.columns.into(),
            },
        ],
        memory: maps::memory(&host.bpffs)?.into_iter().map(|(map, bytes)| MapMemory { map, bytes }).collect(),
        attachments,
        not_watched,
        faults: snapshot.faults.iter().map(status::fault_row).collect(),
        unaccounted: status::unaccounted(&snapshot.balance()),
        problems,
    })
}

fn slots(table: &'static str, occupancy: Occupancy, capacity: u32) -> Use {
    let Occupancy { used, gone, retired } = occupancy;
    Use { table, used, gone, retired, capacity: capacity.into() }
}

fn programs(host: &Host, meta: &Meta, problems: &mut Vec<String>) -> anyhow::Result<Vec<Program>> {
    if load::writes_shaping_mark(&meta.program_hash).is_none() {
        problems.push(format!(
            "the program in the kernel is of version {}, not of this trafctl; `trafctl attach` replaces it",
            load::version_text(meta.program_version)
        ));
    }
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

fn shaping_mark(
    host: &Host,
    maps: &Maps,
    meta: &Meta,
    problems: &mut Vec<String>,
) -> anyhow::Result<ShapingMark> {
    let configured = host.config.skb_mark;
    let in_force = load::writes_shaping_mark(&meta.program_hash);
    if in_force.is_some_and(|in_force| in_force != configured) {
        let what = if configured { "does not write it" } else { "writes it" };
        problems.push(format!(
            "the shaping mark is {} by the configuration, and the program in the kernel {what}; `trafctl attach` puts the other \
             one in its place, without a gap",
            if configured { "on" } else { "off" }
        ));
    }
    let (mut unmarked_containers, mut unmarked_classes) = (Vec::new(), Vec::new());
    if configured || in_force == Some(true) {
        for record in maps.containers.range(0, maps.containers.len())? {
            let id = records::container_id(&record).filter(|_| record.state == slot_state::IN_USE);
            let Some(id) = id.filter(|id| !id.is_node() && skb_mark::base(id.as_str()).is_none()) else {
                continue;
            };
            let reason = skb_mark::why_unmarked(id.as_str());
            unmarked_containers.push(Unmarked { container: id.to_string(), reason });
        }
        let in_use = tables::classes_in_force(maps, None)?;
        unmarked_classes.extend(in_use.into_iter().filter(|&class| u32::from(class) >= MARK_CLASSES));
    }
    Ok(ShapingMark { configured, in_force, unmarked_containers, unmarked_classes })
}

async fn attachments(
    host: &Host,
    maps: &Maps,
    problems: &mut Vec<String>,
    not_watched: &mut Vec<NotWatched>,
) -> anyhow::Result<Vec<Attachment>> {
    let records = maps.interfaces.range(0, maps.interfaces.len())?;
    let mut attachments = Vec::new();
    for interface in host.netlink.interfaces().await? {
        let role = host.role(&interface);
        let is_uplink = role == Role::Uplink;
        let container = match role {
            Role::Container(id) => Some(id.to_string()),
            Role::Uplink => Some(ContainerId::node().to_string()),
            Role::Shared => None,
            Role::Unresolved { reason } => {
                problems.push(format!("{}: not attached: {reason}", interface.name));
                not_watched.push(NotWatched { interface: interface.name, reason });
                continue;
            }
            Role::Ignored(why) => {
                let reason = host.naming().why_ignored(why);
                not_watched.push(NotWatched { interface: interface.name, reason });
                continue;
            }
        };
        let mut hooks = Vec::new();
        for direction in [Direction::In, Direction::Out] {
            // Into the node is the way that is out of a container.
            let side = if is_uplink { direction.reversed() } else { direction };
            let hook = hook(host, &interface, side).await?;
            problems.extend(hook_problems(&interface, direction, &hook));
            hooks.push(hook);
        }
        let slot = records.iter().position(|record| record.ifindex == interface.index);
        if let Some(slot) = slot.filter(|&slot| slot != UNKNOWN_INTERFACE_SLOT as usize) {
            // The statistics first: what passes between the readings must not look like something missed.
            let now = host.netlink.interface(interface.index).await?.unwrap_or_else(|| interface.clone());
            let now = if is_uplink { now.as_uplink() } else { now };
            let ours = counters::sum_interface(&maps.interface_counters.range(u32::try_from(slot)?, 1)?);
            let since = counters::since_attach(&records[slot], &now.statistics, &ours);
            let sides = [("in", Direction::In, since.incoming), ("out", Direction::Out, since.outgoing)];
            for (hook, (name, direction, side)) in hooks.iter().zip(sides) {
                let (kernel, passed) = (side.kernel.skbs, side.counted.skbs);
                // Where nothing of ours hangs, that has been said, and is why.
                if hook.ours > 0 && counters::is_missed(side, &ours.passed[direction as usize]) {
                    problems.push(format!(
                        "{}: of {kernel} buffers {name} since it was attached, {passed} reached the program: another program \
                         before it, or a path around the hook",
                        interface.name
                    ));
                }
            }
        }
        let [incoming, outgoing]: [Hook; 2] =
            hooks.try_into().map_err(|_| anyhow::anyhow!("an interface has two hooks"))?;
        attachments.push(Attachment {
            interface: interface.name,
            ifindex: interface.index,
            container,
            incoming,
            outgoing,
        });
    }
    Ok(attachments)
}

async fn hook(host: &Host, interface: &NetInterface, direction: Direction) -> anyhow::Result<Hook> {
    // Links run before filters.
    let mut chain = attach::tcx_chain(&host.bpffs, interface, direction)?;
    let interfaces = chain.len();
    let filters = host.netlink.bpf_filters(interface.index, direction).await?;
    chain.extend(
        filters.into_iter().map(|filter| AttachedProgram { id: filter.program_id, name: Some(filter.name) }),
    );
    let ours_by_link = chain[..interfaces].iter().filter(|program| program.is_ours()).count();
    let position = chain.iter().position(AttachedProgram::is_ours);
    Ok(Hook {
        kind: match (ours_by_link, position) {
            (0, None) => None,
            (0, Some(_)) => Some(AttachKind::Clsact.name()),
            _ => Some(AttachKind::Tcx.name()),
        },
        ours: chain.iter().filter(|program| program.is_ours()).count(),
        before_ours: position
            .map_or(Vec::new(), |position| chain[..position].iter().map(AttachedProgram::label).collect()),
        unnamed: chain.iter().filter(|program| program.name.is_none()).count(),
    })
}

fn hook_problems(interface: &NetInterface, direction: Direction, hook: &Hook) -> Vec<String> {
    let name = &interface.name;
    let direction = match direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    let mut problems = Vec::new();
    match hook.ours {
        0 => problems.push(format!("{name}: not attached ({direction}); `trafctl attach {name}` attaches it")),
        1 => {}
        n => problems.push(format!(
            "{name}: {n} trafctl programs hang on one hook ({direction}) and count everything {n} times: another bpffs \
             directory is in use beside this one"
        )),
    }
    if !hook.before_ours.is_empty() {
        problems.push(format!(
            "{name}: {} runs before trafctl ({direction}) and may keep packets from it; `trafctl detach {name}` and \
             `trafctl attach {name}` put trafctl first",
            hook.before_ours.join(", ")
        ));
    }
    problems
}
