//! Upgrades: a program replaced under traffic, maps of another layout, and ledgers of another version.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use traffic_tests::check::{eventually, problems};
use traffic_tests::{
    Amounts, Counters, Daemon, Lab,
    container::introduce,
    process::run_ok,
    traffic::{tcp_exchange, udp_send},
};

/// Size of the element of `META`, and offsets of the layout version, the program version and the program
/// hash.
const META_BYTES: usize = 416;
const LAYOUT_VERSION_AT: usize = 0;
const PROGRAM_VERSION_AT: usize = 76;
const PROGRAM_HASH_AT: usize = 80;

/// Changes the version fields of the pinned maps, as another version would have written them.
fn rewrite_meta(lab: &Lab, change: impl FnOnce(&mut [u8; META_BYTES])) -> Result<()> {
    let mut map = Map::from_map_data(MapData::from_pin(lab.bpffs().join("maps/META"))?)?;
    let mut meta = Array::<&mut MapData, [u8; META_BYTES]>::try_from(&mut map)?;
    let mut value = meta.get(&0, 0)?;
    change(&mut value);
    Ok(meta.set(0, value, 0)?)
}

/// Ids of the pinned programs in the kernel. A new id is a new program.
fn program_ids(lab: &Lab) -> Result<Vec<u32>> {
    let status = lab.run_json(&["status", "--format", "json"])?;
    let programs = status["programs"].as_array().context("programs")?;
    programs.iter().map(|program| Ok(u32::try_from(program["id"].as_u64().context("no id")?)?)).collect()
}

#[test]
fn a_program_is_replaced_under_traffic_without_losing_a_packet() -> Result<()> {
    let lab = Lab::new("upgrade")?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    lab.run_ok(&["attach"])?;
    let mut programs = program_ids(&lab)?;

    let done = AtomicBool::new(false);
    let replacements = thread::scope(|scope| -> Result<_> {
        let replacing = scope.spawn(|| -> Result<u32> {
            let mut replaced = 0;
            // At least some, and then as long as there is traffic.
            while replaced < 5 || !done.load(Ordering::Relaxed) {
                rewrite_meta(&lab, |meta| meta[PROGRAM_HASH_AT..PROGRAM_HASH_AT + 32].fill(0))?;
                lab.run_ok(&["attach"])?;
                let now = program_ids(&lab)?;
                ensure!(now != programs, "the program was not replaced: {now:?}");
                programs = now;
                replaced += 1;
            }
            Ok(replaced)
        });
        let mut sent = Vec::new();
        for to in [a.v4(), b.v6(), b.v4()] {
            let (from, into) = if to == a.v4() { (&b, &a) } else { (&a, &b) };
            let address = SocketAddr::new(to, 0);
            sent.push((from, tcp_exchange(from.namespace(), into.namespace(), address, 80 << 20, 1 << 20)?));
        }
        done.store(true, Ordering::Relaxed);
        let replaced = replacing.join().map_err(|_| anyhow::anyhow!("the replacing thread panicked"))??;
        let mut out = [(0, 0), (0, 0)];
        for (from, count) in &sent {
            let (mine, peers) = if from.interface() == a.interface() { (0, 1) } else { (1, 0) };
            out[mine].0 += count.client.segments;
            out[mine].1 += count.client.l3_bytes;
            out[peers].0 += count.server.segments;
            out[peers].1 += count.server.l3_bytes;
        }
        let counters = Counters::at_rest(&lab)?;
        ensure!(counters.container("101") == Amounts::both(out[1], out[0]), "{out:?} {counters:#?}");
        ensure!(counters.container("102") == Amounts::both(out[0], out[1]), "{out:?} {counters:#?}");
        Ok(replaced)
    })?;
    assert!(replacements >= 5);
    // One program on each hook, and no temporary names.
    lab.run_ok(&["status"])?;
    let pinned = fs::read_dir(lab.bpffs().join("programs"))?.count();
    assert_eq!(pinned, 2);
    Ok(())
}

#[test]
fn a_newer_program_is_left_in_place() -> Result<()> {
    let lab = Lab::new("newer")?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    lab.run_ok(&["attach"])?;
    let programs = program_ids(&lab)?;
    rewrite_meta(&lab, |meta| {
        meta[PROGRAM_HASH_AT..PROGRAM_HASH_AT + 32].fill(7);
        meta[PROGRAM_VERSION_AT..PROGRAM_VERSION_AT + 4].fill(0x7f);
    })?;
    let output = lab.trafctl(&["attach"])?.output()?;
    assert!(output.status.success());
    let stderr = String::from_utf8(output.stderr)?;
    assert!(stderr.contains("a newer trafctl has loaded its program here"), "{stderr}");
    // `status` fails because this is not the program of this version, but it names the version.
    let output = lab.trafctl(&["status", "--format", "json"])?.output()?;
    assert_eq!(output.status.code(), Some(1));
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(status["programs"][0]["id"].as_u64(), programs.first().copied().map(u64::from));
    drop(a);
    Ok(())
}

#[test]
fn maps_of_another_layout_are_refused_until_purged() -> Result<()> {
    let lab = Lab::new("layout")?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    lab.run_ok(&["attach"])?;
    rewrite_meta(&lab, |meta| {
        meta[LAYOUT_VERSION_AT..LAYOUT_VERSION_AT + 4].copy_from_slice(&999_u32.to_ne_bytes());
    })?;
    for command in [["attach"], ["dump"], ["status"]] {
        let output = lab.trafctl(&command)?.output()?;
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let stderr = String::from_utf8(output.stderr)?;
        assert!(stderr.contains("have layout 999") && stderr.contains("--purge"), "{command:?}: {stderr}");
        assert_eq!(stderr.matches("trafctl: ").count(), 1, "{stderr}");
    }
    lab.run_ok(&["attach", "--purge", "--yes"])?;
    lab.run_ok(&["status"])?;
    run_ok(&mut a.namespace().command("true"))?;
    assert_eq!(Counters::at_rest(&lab)?.counters, []);
    Ok(())
}

fn sqlite(file: &Path, query: &str) -> Result<String> {
    Ok(run_ok(Command::new("sqlite3").arg(file).arg(query))?.trim().to_owned())
}

#[test]
fn an_older_ledger_is_migrated_and_a_newer_one_is_refused() -> Result<()> {
    let lab = Lab::new("upgrade-ledger")?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let daemon = Daemon::start(&lab)?;
    udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 40, 200)?;
    daemon.stop()?;
    let ledger = lab.state_dir().join("ledger.sqlite");
    // As version 1 wrote it: all of it as rows.
    let mut former = "pragma legacy_alter_table = on; drop view log_data;".to_owned();
    for kind in ["traffic", "fault", "passed"] {
        for table in ["5min", "hour"].map(|level| format!("{kind}_{level}")) {
            former.push_str(&format!(
                "drop view {table}; drop view {table}_bytes; drop table {table}_days; alter table {table}_rows rename to {table};"
            ));
        }
    }
    for table in ["dropped_5min", "dropped_hour"] {
        former.push_str(&format!(
            "drop view {table}; drop view {table}_bytes; drop table {table}_days; drop table {table}_rows;"
        ));
    }
    former.push_str(
        "drop table dropped_day; drop table dropped_month; drop table drop_reading; drop table drop_set;
         drop view byte_at; create view log_data as select 1; drop table outbox; drop table changes;
         drop table lineage; drop table quota_track; drop table quota_used; drop table quota_threshold;
         drop table quota_crossing; drop table container_name; drop table interface_owner;
         drop table owner_change; drop table attribution; drop table digest; drop table border; drop table clock;
         drop table closed_rate; drop table booked; drop table key_change;
         drop table calibration; alter table adjustment drop column number;
         pragma user_version = 1",
    );
    sqlite(&ledger, &former)?;
    let stderr = String::from_utf8(lab.trafctl(&["report"])?.output()?.stderr)?;
    ensure!(stderr.contains("has schema version 1; start `trafctl run` once"), "{stderr}");
    ensure!(sqlite(&ledger, "pragma user_version")? == "1", "a query changes nothing");

    let daemon = Daemon::start(&lab)?;
    let sent = udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 60, 200)?;
    daemon.stop()?;
    let backup = lab.state_dir().join("ledger.sqlite.v1-backup");
    ensure!(sqlite(&backup, "pragma user_version; pragma integrity_check")? == "1\nok");
    ensure!(sqlite(&ledger, "pragma user_version; pragma integrity_check")? == "13\nok");
    let packets = "select sum(out_packets) from traffic_5min t join container c on c.id = t.container where name = '101'";
    let live = Counters::at_rest(&lab)?.container("101");
    ensure!(sqlite(&ledger, packets)? == live.out_packets.to_string(), "{live:?}");
    let before: u64 = sqlite(&backup, packets)?.parse()?;
    ensure!(before > 0 && before + sent.packets <= live.out_packets, "{before}, {sent:?}, {live:?}");
    lab.run_ok(&["audit"])?;

    sqlite(&ledger, "pragma user_version = 99")?;
    let newer = fs::read(&ledger)?;
    for command in [&["report"][..], &["audit"], &["close", "2026-01"]] {
        let output = lab.trafctl(command)?.output()?;
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && stderr.contains("version 99"), "{command:?}: {stderr}");
    }
    // The daemon counts all the same, and reports why it does not drain.
    let daemon = Daemon::start(&lab)?;
    let sent = udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 70, 200)?;
    let counted = Counters::at_rest(&lab)?.container("101").out_packets;
    ensure!(counted >= live.out_packets + sent.packets, "{counted} after {live:?} and {sent:?}");
    eventually("the refused ledger is a problem", || {
        let problems = problems(&lab)?;
        Ok(matches!(&problems[..], [only] if only.starts_with("ledger: ") && only.contains("version 99")))
    })?;
    daemon.stop_after_errors()?;
    ensure!(fs::read(&ledger)? == newer, "the ledger is unchanged");
    Ok(())
}
