//! A [`Status`] as `trafctl status` prints it.

use std::time::Duration;

use jiff::Timestamp;
use traffic_model::{
    Snapshot, counted,
    units::{format_bytes, format_duration},
};

use crate::{
    node::status::{
        ClassTable, CountedUnnamed, Daemon, DaemonState, DropsStatus, HeldStatus, Hook, LedgerStatus,
        ShadowStatus, SkbMark, Status, TableUse,
    },
    render::{self, rows, with_name},
};

/// One document.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn json(status: &Status) -> anyhow::Result<String> {
    render::json::document(status)
}

/// The document with what passed each interface.
#[derive(serde::Serialize)]
struct WithInterfaces<'a> {
    time: String,
    #[serde(flatten)]
    status: &'a Status,
    passed: Vec<render::dump::Interface<'a>>,
}

/// One document, with what passed each interface at about the same time.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn with_interfaces(status: &Status, snapshot: &Snapshot) -> anyhow::Result<String> {
    let (time, passed) = (snapshot.time.to_string(), render::dump::interfaces(snapshot));
    render::json::line(&WithInterfaces { time, status, passed })
}

/// How many unwatched interfaces, and how many unmarked containers, the text names.
const NAMED: usize = 10;

/// The first names, and how many more there are.
fn some_of(names: &[&str]) -> String {
    let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn skb_mark(mark: &SkbMark) -> String {
    let mut text = match mark.in_force {
        Some(true) => "skb mark on: id * 32 + class".to_owned(),
        Some(false) => "skb mark off".to_owned(),
        None => "skb mark unknown: the program is from another build of trafctl".to_owned(),
    };
    if !mark.unmarked_containers.is_empty() {
        let names: Vec<_> = mark.unmarked_containers.iter().map(|row| row.container.as_str()).collect();
        text += &format!("; not on containers {}", some_of(&names));
    }
    if !mark.unmarked_classes.is_empty() {
        let classes: Vec<_> = mark.unmarked_classes.iter().map(ToString::to_string).collect();
        text += &format!("; not on classes {}", classes.join(", "));
    }
    text + "\n"
}

fn drops(drops: &DropsStatus) -> String {
    if !drops.in_force {
        return match &drops.reason {
            Some(reason) => format!("drops not counted: {reason}\n"),
            None => "drops not counted: [drops] enabled is false\n".to_owned(),
        };
    }
    let mut text = format!("drops counted since {}", drops.since.as_deref().unwrap_or("an unknown time"));
    if drops.not_attributed_packets > 0 {
        text += &format!("; {} packets not attributed", drops.not_attributed_packets);
    }
    text.push('\n');
    if let Some(reason) = &drops.reason {
        text += &format!("  note: {reason}\n");
    }
    drops.lacks.iter().fold(text, |text, lack| text + &format!("  note: {lack}\n"))
}

fn daemon(daemon: &Daemon, now: Timestamp) -> String {
    let pid = daemon.pid.unwrap_or_default();
    let at = |time: &Option<String>| time.clone().unwrap_or_else(|| "an unknown time".to_owned());
    match daemon.state {
        DaemonState::Absent => return "daemon not running\n".to_owned(),
        DaemonState::Stopped => return format!("daemon not running, stopped {}\n", at(&daemon.reported)),
        DaemonState::Dead => return format!("daemon not running, last seen {}\n", at(&daemon.reported)),
        DaemonState::Running | DaemonState::Silent => {}
    }
    let mut text = format!("daemon running (process {pid}) since {}", at(&daemon.started));
    if daemon.state == DaemonState::Silent {
        text += &format!(", silent since {}", at(&daemon.reported));
    }
    match (daemon.ledger_accepts_writes, &daemon.last_drain) {
        (None, _) => text += ", no ledger",
        (Some(_), Some(time)) => text += &format!(", last drain {time}{}", age(time, now)),
        (Some(_), None) => text += ", not drained yet",
    }
    if daemon.ledger_accepts_writes == Some(false) {
        text += ", the ledger accepts no writes";
    }
    text + "\n"
}

/// How long ago a time was, in brackets; nothing for a time that is ahead.
fn age(time: &str, now: Timestamp) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return String::new() };
    match u64::try_from(now.as_second() - time.as_second()) {
        Ok(seconds @ 0..120) => format!(" ({seconds} s ago)"),
        Ok(seconds) => format!(" ({} ago)", format_duration(Duration::from_secs(seconds))),
        Err(_) => String::new(),
    }
}

fn ledger(ledger: &LedgerStatus) -> String {
    let Some(bytes) = ledger.bytes else {
        return if ledger.configured { "ledger not made yet\n" } else { "no ledger\n" }.to_owned();
    };
    let mut text = format!("ledger {}", format_bytes(bytes, true));
    if let Some(free) = ledger.free_bytes {
        text += &format!(" with {} free on its disk", format_bytes(free, true));
    }
    if let Some(month) = &ledger.running_month {
        text += &format!(", {month} running");
    }
    if !ledger.months_to_close.is_empty() {
        let months: Vec<_> = ledger.months_to_close.iter().map(String::as_str).collect();
        text += &format!(", to be closed: {}", some_of(&months));
    }
    text.push('\n');
    if let Some(HeldStatus { oldest, since, stores }) = &ledger.held {
        text += &format!(
            "  five-minute rows from {oldest} on are kept, beyond their retention since {since}: not verified by {}\n",
            stores.join(", ")
        );
    }
    let Some(gaps) = ledger.gaps.filter(|gaps| gaps.losing_traffic > 0) else { return text };
    let known = format_bytes(gaps.bytes, true);
    let unknown = match gaps.of_unknown_size {
        0 => String::new(),
        count => format!(" and {count} of unknown size"),
    };
    let (lost, in_them) = (counted(gaps.losing_traffic as u64, "gap"), "in the months that are not closed");
    text + &format!("  {lost} {in_them}: {known}{unknown} lost; `trafctl gaps` lists them\n")
}

fn class_table(table: &ClassTable) -> String {
    let mut text = format!(
        "class table {} of {}, {}, order {}\n",
        table.hash.get(..12).unwrap_or(&table.hash),
        table.loaded,
        counted(table.prefixes, "prefix"),
        table.order
    );
    if let Some(difference) = &table.difference {
        text += &format!("{}\n", difference.message);
    }
    text
}

fn shadow(shadow: Option<&ShadowStatus>) -> String {
    let Some(shadow) = shadow else { return String::new() };
    let file = match &shadow.file {
        Some(path) => path.display().to_string(),
        None if shadow.is_known => "standard input".to_owned(),
        None => "of a file that is not known".to_owned(),
    };
    let mut text = match (&shadow.since, &shadow.reason) {
        (Some(since), _) => format!("shadow class table {file} counts since {since}"),
        (None, reason) => {
            let reason = reason.as_deref().unwrap_or("the reason is unknown");
            format!("shadow class table {file} does not count: {reason}")
        }
    };
    if let Some(reason) = shadow.begun_anew.as_ref().filter(|_| shadow.in_force) {
        text += &format!("; it has begun anew: {reason}");
    }
    text + "\n"
}

fn table_use(table: &TableUse) -> String {
    match table.gone {
        0 => format!("{} {}/{}", table.table, table.used, table.capacity),
        gone => format!("{} {}/{} ({gone} gone)", table.table, table.used, table.capacity),
    }
}

fn programs(status: &Status) -> String {
    let line = |program: &crate::node::status::Program| {
        let runs = match (program.run_count, program.run_time_ns) {
            (Some(count), Some(time)) => format!(", ran {count} times, {} ns each", time / count.max(1)),
            _ => String::new(),
        };
        format!("program {} (id {}, version {}{runs})\n", program.name, program.id, program.version)
    };
    status.programs.iter().map(line).collect()
}

fn attachments(status: &Status) -> String {
    rows(
        &["INTERFACE", "CONTAINER", "IN", "OUT"],
        status.attachments.iter().map(|attachment| {
            let kind = |hook: &Hook| hook.kind.unwrap_or("-").to_owned();
            vec![
                attachment.interface.clone(),
                attachment
                    .container
                    .as_ref()
                    .map_or_else(|| "(shared)".to_owned(), |id| with_name(id, attachment.name.as_deref())),
                kind(&attachment.incoming),
                kind(&attachment.outgoing),
            ]
        }),
    )
}

fn faults(status: &Status) -> String {
    rows(
        &["INTERFACE", "FAULT", "IN PACKETS", "OUT PACKETS"],
        status.faults.iter().map(|fault| {
            vec![
                fault.interface.clone(),
                fault.fault.to_owned(),
                fault.in_packets.to_string(),
                fault.out_packets.to_string(),
            ]
        }),
    )
}

/// The text for people.
pub fn table(status: &Status, now: Timestamp) -> String {
    let mut text = format!(
        "node {}, trafctl {}, counters {} of {}\n",
        status.node, status.trafctl_version, status.epoch, status.epoch_created
    );
    text += &daemon(&status.daemon, now);
    text += &ledger(&status.ledger);
    text += &programs(status);
    text += &class_table(&status.class_table);
    text += &shadow(status.shadow.as_ref());
    text += &skb_mark(&status.skb_mark);
    text += &drops(&status.drops);
    let used: Vec<_> = status.tables.iter().map(table_use).collect();
    let memory: u64 = status.memory.iter().map(|map| map.bytes).sum();
    text += &format!("in use: {}; memory {}\n\n", used.join(", "), format_bytes(memory, true));
    text += &attachments(status);
    if !status.counted_unnamed.is_empty() {
        let one = |other: &CountedUnnamed| match &other.container {
            Some(container) => format!("{} for {container}", other.interface),
            None => format!("{} by address", other.interface),
        };
        let names: Vec<_> = status.counted_unnamed.iter().map(one).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        text += &format!(
            "\ncounted as before, although the configuration does not name them: {}\n",
            some_of(&names)
        );
    }
    if !status.not_watched.is_empty() {
        let names: Vec<_> = status.not_watched.iter().map(|other| other.interface.as_str()).collect();
        text += &format!("\nnot watched: {}; --format json has the reasons\n", some_of(&names));
    }
    if !status.faults.is_empty() {
        text += &format!("\n{}", faults(status));
    }
    let left = &status.unaccounted;
    text += &format!(
        "\npassed - classes - faults: in {} packets, {} bytes; out {} packets, {} bytes\n",
        left.in_packets, left.in_bytes, left.out_packets, left.out_bytes
    );
    if status.problems.is_empty() {
        return text + "no problems\n";
    }
    status.problems.iter().fold(text, |text, problem| text + &format!("PROBLEM {problem}\n"))
}

#[cfg(test)]
pub(super) mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::health::{Component, State, Work};
    use crate::node::status::{
        Attachment, FaultRow, GapsStatus, MapMemory, NotWatched, Pending, Program, TableDifference,
        Unaccounted, Unmarked, WithoutHostEnd,
    };

    pub(crate) fn sample() -> Status {
        let hook = |kind, ours, before: &[&str]| Hook {
            kind,
            ours,
            before_ours: before.iter().map(|&name| name.to_owned()).collect(),
            unnamed: 0,
        };
        let use_of = |table, used, gone, retired, capacity| TableUse { table, used, gone, retired, capacity };
        Status {
            node: "n1".to_owned(),
            trafctl_version: "1.2.3",
            layout_version: 4,
            epoch: "00000000000000ff".to_owned(),
            epoch_created: "2026-11-23T12:00:00Z".to_owned(),
            attach_kind: "tcx",
            daemon: Daemon {
                state: DaemonState::Running,
                pid: Some(4321),
                trafctl_version: Some("1.2.2".to_owned()),
                started: Some("2026-11-23T12:00:02Z".to_owned()),
                reported: Some("2026-11-23T12:10:03Z".to_owned()),
                work: Some(Work { doing: "draining".to_owned(), seconds: 7 }),
                last_drain: Some("2026-11-23T12:10:00Z".to_owned()),
                drain_failures: 9,
                ledger_accepts_writes: Some(false),
                components: vec![Component {
                    name: "ledger".to_owned(),
                    state: State::Failing,
                    since: "2026-11-23T12:10:01Z".to_owned(),
                    failures: 8,
                    last_error: Some("the disk is full".to_owned()),
                }],
            },
            ledger: LedgerStatus {
                configured: true,
                bytes: Some(34 << 20),
                free_bytes: Some(120 << 30),
                last_reading: Some("2026-11-23T12:09:59Z".to_owned()),
                months_to_close: vec!["2026-09".to_owned(), "2026-10".to_owned()],
                running_month: Some("2026-11".to_owned()),
                gaps: Some(GapsStatus { losing_traffic: 3, of_unknown_size: 1, bytes: 1500 }),
                held: None,
            },
            programs: vec![Program {
                name: "trafctl_ingress".to_owned(),
                id: 17,
                version: "1.2.3".to_owned(),
                hash: "ab".repeat(32),
                run_count: Some(10),
                run_time_ns: Some(2500),
            }],
            class_table: ClassTable {
                hash: "cd".repeat(32),
                loaded: "2026-11-23T12:00:01Z".to_owned(),
                prefixes: 8,
                order: "virtuozzo".to_owned(),
                difference: Some(TableDifference {
                    configured: Some("/etc/vz/conf/networks_classes".into()),
                    refused: None,
                    loaded_from: Some("/root/new_classes".into()),
                    message: "the class table in force was loaded from another file".to_owned(),
                    is_unbilled: false,
                }),
            },
            shadow: Some(ShadowStatus {
                file: Some("/root/shadowed".into()),
                is_known: true,
                in_force: true,
                since: Some("2026-11-23T12:00:03Z".to_owned()),
                begun_anew: Some("another class table was put in force".to_owned()),
                reason: None,
            }),
            drops: DropsStatus {
                configured: true,
                in_force: true,
                loading: false,
                since: Some("2026-07-01T00:00:02Z".to_owned()),
                reason: None,
                lacks: vec!["a lack"],
                not_attributed_packets: 9,
            },
            skb_mark: SkbMark {
                configured: true,
                in_force: Some(true),
                unmarked_containers: vec![Unmarked {
                    container: "web".to_owned(),
                    reason: "it is not a number".to_owned(),
                }],
                unmarked_classes: vec![33],
            },
            tables: vec![use_of("containers", 2, 1, 1, 2048), use_of("classes", 4, 0, 0, 16)],
            memory: vec![MapMemory { map: "COUNTERS", bytes: 3 << 20 }],
            attachments: vec![
                Attachment {
                    interface: "venet0".to_owned(),
                    ifindex: 3,
                    container: None,
                    name: None,
                    incoming: hook(Some("tcx"), 1, &[]),
                    outgoing: hook(Some("clsact"), 1, &["foreign"]),
                },
                Attachment {
                    interface: "veth101.0".to_owned(),
                    ifindex: 4,
                    container: Some("101".to_owned()),
                    name: Some("shop".to_owned()),
                    incoming: hook(None, 0, &[]),
                    outgoing: hook(Some("tcx"), 2, &[]),
                },
            ],
            counted_unnamed: vec![CountedUnnamed {
                interface: "renamed".to_owned(),
                ifindex: 9,
                container: Some("105".to_owned()),
                counted_as: "veth105.0".to_owned(),
                reason: "no rule matches its name (preset virtuozzo)".to_owned(),
            }],
            pending: vec![Pending {
                pending: "pending:vethab:7:20261123T120000Z".to_owned(),
                interface: Some("vethab".to_owned()),
                since_unix_s: 1_795_435_200,
                packets: 11,
                bytes: 1200,
                reason: Some("nothing names it".to_owned()),
            }],
            without_host_end: vec![WithoutHostEnd {
                interface: "mail/eth0".to_owned(),
                container: Some("mail".to_owned()),
                kind: "macvlan".to_owned(),
                parent: Some("eno1".to_owned()),
                reason: "a macvlan on eno1 of container mail (LXC)".to_owned(),
            }],
            not_watched: vec![NotWatched { interface: "lo".to_owned(), reason: "no rule".to_owned() }],
            faults: vec![FaultRow {
                interface: "venet0".to_owned(),
                fault: "not_ip",
                in_packets: 5,
                out_packets: 6,
            }],
            unaccounted: Unaccounted { in_packets: 1, in_bytes: -2, out_packets: 3, out_bytes: 4 },
            problems: vec!["veth101.0: not attached (in)".to_owned()],
            problem_kinds: vec!["interfaces"],
        }
    }

    fn now() -> Timestamp {
        "2026-11-23T12:10:05Z".parse().unwrap()
    }

    #[test]
    fn text_and_document() {
        assert_snapshot!("table", table(&sample(), now()));
        assert_snapshot!("json", json(&sample()).unwrap());
    }

    #[test]
    fn each_state_of_the_daemon_has_its_line() {
        let mut status = sample();
        let mut line = |state, accepts, last: Option<&str>| {
            status.daemon.state = state;
            status.daemon.ledger_accepts_writes = accepts;
            status.daemon.last_drain = last.map(str::to_owned);
            daemon(&status.daemon, now())
        };
        let running = "daemon running (process 4321) since 2026-11-23T12:00:02Z";
        assert_eq!(line(DaemonState::Running, None, None), format!("{running}, no ledger\n"));
        assert_eq!(line(DaemonState::Running, Some(true), Some("T")), format!("{running}, last drain T\n"));
        for (last, age) in [
            ("2026-11-23T12:10:01.5Z", " (4 s ago)"),
            ("2026-11-23T12:08:06Z", " (119 s ago)"),
            ("2026-11-23T12:08:05Z", " (2m ago)"),
            ("2026-11-22T09:10:05Z", " (27h ago)"),
            ("2026-11-23T12:10:06Z", ""),
        ] {
            let expected = format!("{running}, last drain {last}{age}\n");
            assert_eq!(line(DaemonState::Running, Some(true), Some(last)), expected);
        }
        assert_eq!(
            line(DaemonState::Silent, Some(false), None),
            format!(
                "{running}, silent since 2026-11-23T12:10:03Z, not drained yet, the ledger accepts no writes\n"
            )
        );
        let stopped = "daemon not running, stopped 2026-11-23T12:10:03Z\n";
        assert_eq!(line(DaemonState::Stopped, None, None), stopped);
        let dead = "daemon not running, last seen 2026-11-23T12:10:03Z\n";
        assert_eq!(line(DaemonState::Dead, None, None), dead);
        assert_eq!(line(DaemonState::Absent, None, None), "daemon not running\n");
    }

    #[test]
    fn the_line_of_the_ledger_says_what_is_to_be_billed() {
        let mut status = sample().ledger;
        status.gaps = Some(GapsStatus::default());
        status.months_to_close.clear();
        assert_eq!(ledger(&status), "ledger 34.00 MiB with 120.00 GiB free on its disk, 2026-11 running\n");
        status.held = Some(HeldStatus {
            oldest: "2026-10-01T00:00:00Z".to_owned(),
            since: "2026-11-06T00:00:00Z".to_owned(),
            stores: vec!["a".to_owned(), "b".to_owned()],
        });
        assert!(ledger(&status).ends_with(
            "\n  five-minute rows from 2026-10-01T00:00:00Z on are kept, beyond their retention since \
             2026-11-06T00:00:00Z: not verified by a, b\n"
        ));
        status.bytes = None;
        assert_eq!(ledger(&status), "ledger not made yet\n");
        status.configured = false;
        assert_eq!(ledger(&status), "no ledger\n");
    }

    #[test]
    fn a_class_file_in_force_needs_no_line() {
        let mut status = sample();
        status.class_table.difference = None;
        assert!(!table(&status, now()).contains("class table in force"));
    }
}
