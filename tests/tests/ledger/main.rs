//! From packets to a bill: `trafctl run` with its ledger, killed, started twice, and queried.

mod installations;
mod reach;
mod zone;

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use traffic_tests::{
    Amounts, Container, Counters, Lab,
    process::{Process, run_ok},
    traffic::{Load, tcp_exchange, udp_send},
};

const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n0 192.168.0.0/16\n2 10.1.0.2/32\n3 fd00:1::/64\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// A node whose daemon drains at the shortest interval.
fn node(name: &str, more: &str) -> Result<(Lab, Container, Container)> {
    Lab::with_two(name, CLASSES, &format!("[drain]\ninterval = \"100ms\"\n{more}"))
}

fn daemon(lab: &Lab) -> Result<Process> {
    let mut command = lab.trafctl(&["run"])?;
    let log = fs::File::options().create(true).append(true).open(lab.path("daemon.log"))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Process::spawn(&mut command)
}

/// Starts a daemon and waits until its start is complete. Before that, a signal ends it without a drain: `status` may
/// find everything attached a moment earlier.
fn started(lab: &Lab) -> Result<Process> {
    let starts = || {
        let log = fs::read_to_string(lab.path("daemon.log")).unwrap_or_default();
        log.matches("attached; following interfaces").count()
    };
    let before = starts();
    let daemon = daemon(lab)?;
    wait_for("the daemon's start", || Ok(starts() > before))?;
    wait_for("the daemon", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    Ok(daemon)
}

/// Stops a daemon, or fails with the log of all daemons so far.
fn end(lab: &Lab, daemon: Process) -> Result<()> {
    let status = daemon.terminate(PATIENCE)?;
    ensure!(
        status.success(),
        "the daemon ended with {status}; the log:\n{}",
        fs::read_to_string(lab.path("daemon.log"))?
    );
    Ok(())
}

/// Waits for a condition.
fn wait_for(what: &str, mut there: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !there()? {
        ensure!(Instant::now() < deadline, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The ledger's sums of a container and class, both families.
fn recorded(lab: &Lab, container: &str, class: u64) -> Result<Amounts> {
    let report = lab.run_json(&["report", "--split", "class", "--format", "json"])?;
    let rows = report["rows"].as_array().context("rows")?;
    let mut sum = Amounts::default();
    for row in rows.iter().filter(|row| row["container"] == container && row["class"] == class) {
        let value =
            |way: &str, what: &str| row[way][what].as_u64().with_context(|| format!("{way} {what} in {row}"));
        sum = sum.plus(Amounts {
            in_bytes: value("in", "bytes")?,
            in_packets: value("in", "packets")?,
            out_bytes: value("out", "bytes")?,
            out_packets: value("out", "packets")?,
        });
    }
    Ok(sum)
}

/// Checks that the ledger holds exactly what the live counters hold.
fn check_ledger(lab: &Lab) -> Result<Counters> {
    let counters = Counters::at_rest(lab)?;
    for container in ["101", "102"] {
        for class in 0..=3_u8 {
            let live =
                // A class counts nothing where its family sends nothing.
                counters
                    .class_or_zero(container, class, "ipv4")
                    .plus(counters.class_or_zero(container, class, "ipv6"));
            let recorded = recorded(lab, container, class.into())?;
            ensure!(recorded == live, "{container} class {class}: recorded {recorded:?}, counted {live:?}");
        }
    }
    let audit = lab.run_json(&["audit", "--format", "json"])?;
    ensure!(audit["problems"].as_array().is_some_and(Vec::is_empty), "{audit}");
    Ok(counters)
}

fn gaps(lab: &Lab) -> Result<Vec<String>> {
    let gaps = lab.run_json(&["gaps", "--format", "json"])?;
    let all = gaps["gaps"].as_array().context("a list of gaps")?;
    Ok(all.iter().map(|gap| gap["reason"].as_str().unwrap_or("?").to_owned()).collect())
}

#[test]
fn a_daemon_killed_at_any_instant_records_every_byte_once() -> Result<()> {
    const KILLS: u64 = 60;
    let (lab, a, b) = node("ledger-kill", "")?;
    lab.run_ok(&["attach"])?;
    let done = AtomicBool::new(false);
    let sent = thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| -> Result<(u64, u64)> {
            let mut sent = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let count = udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 500, 333)?;
                sent = (sent.0 + count.packets, sent.1 + count.l3_bytes);
                let count =
                    tcp_exchange(a.namespace(), b.namespace(), SocketAddr::new(b.v6(), 0), 300_000, 20_000)?;
                ensure!(count.payload_bytes == 300_000);
            }
            Ok(sent)
        });
        let killing = || -> Result<()> {
            for round in 0..KILLS {
                let mut daemon = daemon(&lab)?;
                // From before the first drain to after several.
                thread::sleep(Duration::from_millis(15 + round * 37 % 400));
                daemon.signal(Signal::KILL)?;
                daemon.wait(PATIENCE)?;
            }
            Ok(())
        };
        let killed = killing();
        done.store(true, Ordering::Relaxed);
        killed?;
        sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?
    })?;
    let last = daemon(&lab)?;
    wait_for("everything is recorded", || Ok(check_ledger(&lab).is_ok()))?;
    end(&lab, last)?;
    let log = fs::read_to_string(lab.path("daemon.log"))?;
    ensure!(!log.contains("ERROR"), "a daemon failed after a kill:\n{log}");
    let counters = check_ledger(&lab)?;
    let udp = counters.class("101", 2, "ipv4");
    assert_eq!((udp.out_packets, udp.out_bytes), sent, "the counters hold what was sent");
    Ok(())
}

#[test]
fn a_second_daemon_is_refused() -> Result<()> {
    let (lab, a, b) = node("ledger-two", "")?;
    let first = started(&lab)?;
    let output = lab.trafctl(&["run"])?.output()?;
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr)?;
    assert!(message.contains("another `trafctl run` keeps the ledger"), "{message}");
    tcp_exchange(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 1 << 20, 1 << 20)?;
    end(&lab, first)?;
    check_ledger(&lab)?;
    Ok(())
}

#[test]
fn traffic_is_recorded_under_the_table_it_was_counted_under() -> Result<()> {
    let (lab, a, b) = node("ledger-classes", "")?;
    let running = started(&lab)?;
    let send = || udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 100, 100);
    let first = send()?;
    // Loaded by a process other than the daemon.
    let other = lab.write("other", "5 0.0.0.0/0\n")?;
    lab.run_ok(&["classes", "load", "--yes", other.to_str().context("the path is not UTF-8")?])?;
    let second = send()?;
    end(&lab, running)?;
    assert_eq!(recorded(&lab, "101", 2)?.out_bytes, first.l3_bytes);
    assert_eq!(recorded(&lab, "101", 5)?.out_bytes, second.l3_bytes);
    // Both tables are stored as they were compiled.
    let kept = sqlite(&lab.state_dir().join("ledger.sqlite"), "select content from class_table order by id")?;
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&kept), sorted(&format!("{CLASSES}5 0.0.0.0/0\n")));
    Ok(())
}

#[test]
fn queries_written_for_pva_run_on_a_plain_copy() -> Result<()> {
    let (lab, a, b) = node("ledger-pva", "")?;
    let running = started(&lab)?;
    tcp_exchange(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 700_000, 90_000)?;
    let live = Counters::at_rest(&lab)?.class("101", 2, "ipv4");
    wait_for("the drain", || Ok(recorded(&lab, "101", 2)? == live))?;
    // A drain reaches the main file at once, or with the next drain if a reader, such as this test, prevented
    // it.
    let log = lab.state_dir().join("ledger.sqlite-wal");
    wait_for("the file to be complete", || Ok(fs::metadata(&log)?.len() == 0))?;
    // While the daemon runs.
    let copy = lab.path("copy.sqlite");
    fs::copy(lab.state_dir().join("ledger.sqlite"), &copy)?;
    for period in ["%Y-%m", "%Y-%m-%d", "%Y-%m-%d %H"] {
        let query = format!(
            "select strftime('{period}', datetime(ldat.startTime,'unixepoch','localtime')) as period, \
             ldef.counter, sum(ldat.avg) from log_def ldef join log_data ldat on ldef.id = ldat.id \
             where ldef.eid = '101' and ldef.lclass = 'counters_vz_net' and ldef.instance = '' \
             and ldef.counter like '%_bytes' group by 1, 2 order by 2"
        );
        let text = sqlite(&copy, &query)?;
        let figures: Vec<_> =
            text.lines().filter_map(|line| line.split_once('|')?.1.split_once('|')).collect();
        let expected = [
            ("counter_net_incoming_bytes", live.in_bytes.to_string()),
            ("counter_net_outgoing_bytes", live.out_bytes.to_string()),
        ];
        let expected: Vec<_> = expected.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(figures, expected, "{period}: {text}");
    }
    end(&lab, running)?;
    Ok(())
}

fn sqlite(file: &Path, query: &str) -> Result<String> {
    run_ok(Command::new("sqlite3").arg(file).arg(query))
}

#[test]
fn the_audit_finds_a_changed_row() -> Result<()> {
    let (lab, a, b) = node("ledger-audit", "")?;
    let running = started(&lab)?;
    tcp_exchange(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 50_000, 2000)?;
    end(&lab, running)?;
    check_ledger(&lab)?;
    for (altered, finding) in [
        ("update traffic_5min_rows set in_bytes = in_bytes - 1 where class = 2", "the rows of traffic hold"),
        ("delete from passed_5min_rows", "the rows of passed hold"),
        (
            "update booked set out_packets = out_packets + 1 where kind = 1",
            "neither in classes nor in faults",
        ),
    ] {
        let ledger = lab.state_dir().join("ledger.sqlite");
        let untouched = fs::read(&ledger)?;
        sqlite(&ledger, altered)?;
        let output = lab.trafctl(&["audit"])?.output()?;
        let found = String::from_utf8(output.stdout)?;
        ensure!(output.status.code() == Some(1) && found.contains(finding), "{altered}: {found}");
        fs::write(&ledger, untouched)?;
    }
    ensure!(lab.run_ok(&["audit"])?.contains("no problems"));
    Ok(())
}

#[test]
fn a_copy_made_while_the_daemon_writes_is_complete_and_answers_every_query() -> Result<()> {
    let (lab, a, b) = node("ledger-copy", "")?;
    let running = started(&lab)?;
    let load = Load::start(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 300)?;
    load.passes(1000)?;
    wait_for("a drain", || Ok(recorded(&lab, "101", 2)?.out_packets > 0))?;
    let copies = lab.path("copies");
    fs::create_dir(&copies)?;
    let copy = copies.join("ledger.sqlite");
    lab.run_ok(&["ledger", "backup", copy.to_str().context("the path is not UTF-8")?])?;
    load.passes(1000)?;
    load.stop()?;
    ensure!(running.terminate(PATIENCE)?.success());
    check_ledger(&lab)?;

    // The copy does not change, so answers can be compared with what sqlite3 finds in it.
    let copies = copies.to_str().context("the path is not UTF-8")?;
    let ask = |question: &str| -> Result<serde_json::Value> {
        let words: Vec<&str> = question.split(' ').collect();
        lab.run_json(&[&words[..], &["--state-dir", copies, "--format", "json"]].concat())
    };
    ensure!(ask("audit")?["problems"] == serde_json::json!([]));
    let sum = |what: &str| -> Result<u64> {
        let query = format!(
            "select {what} from traffic_5min t join container c on c.id = t.container where name = '101' and
             class <> 0"
        );
        Ok(sqlite(&copy, &query)?.trim().parse()?)
    };
    let (bytes, packets) = (sum("sum(out_bytes)")?, sum("sum(out_packets)")?);
    let out = |report: &serde_json::Value| report["total"]["out"]["bytes"].as_u64();
    for (question, expected) in [
        ("report --container 101", bytes),
        ("report --container 101 --basis l3 --by 5min --tz America/New_York", bytes),
        ("report --container 101 --basis l2 --by hour", bytes + 18 * packets),
        ("report --container 101 --basis l1 --by month --billing-day 15", bytes + 38 * packets),
        ("report --container 101 --split class --split direction --split family --by day", bytes),
        ("report --container 101 --last 1d", bytes),
        ("report --container 101 --class 2", sum("sum(case class when 2 then out_bytes else 0 end)")?),
    ] {
        let report = ask(question)?;
        ensure!(out(&report) == Some(expected), "{question}: not {expected} in {report:#}");
    }
    let most = "select max(bytes) from (select sum(out_bytes) as bytes from traffic_5min t join container c
        on c.id = t.container
        where name = '101' and class <> 0 group by start)";
    let most: u64 = sqlite(&copy, most)?.trim().parse()?;
    let report = ask("report --container 101 --percentile 100")?;
    ensure!(report["rows"][0]["percentile"]["out_bits_per_s"] == most * 8 / 300, "{most}: {report:#}");
    let rule = report["percentile_rule"].as_str().context("the rule")?;
    ensure!(
        rule.contains("nearest rank") && rule.contains("buckets without traffic counted as zero"),
        "{rule}"
    );
    let top = ask("top-talkers --last 1d --by-class --count 1")?;
    let of_class_2 = top["rows"].as_array().context("rows")?.iter().find(|row| row["class"] == 2);
    let of_class_2 = of_class_2.with_context(|| format!("class 2 in {top:#}"))?;
    ensure!(of_class_2["container"] == "101", "{top:#}");
    Ok(())
}

#[test]
fn a_retired_id_starts_at_zero_and_the_old_figures_stay() -> Result<()> {
    let (lab, a, b) = node("ledger-retire", "")?;
    let running = started(&lab)?;
    let send = |datagrams| udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), datagrams, 50);
    let old = send(70)?;
    // The preview changes nothing: the second one is the same.
    for _ in 0..2 {
        let preview = lab.trafctl(&["container", "retire", "101", "--format", "json"])?.output()?;
        assert_eq!(preview.status.code(), Some(1));
        let preview: serde_json::Value = serde_json::from_slice(&preview.stdout)?;
        assert_eq!(
            (&preview["written"], &preview["figures"][0]["container"]),
            (&false.into(), &"101".into())
        );
        ensure!(
            preview["has_live_counters"] == true && preview["labels"] == serde_json::json!([]),
            "{preview}"
        );
    }
    lab.run_ok(&["container", "retire", "101", "--yes"])?;
    let new = send(110)?;
    end(&lab, running)?;
    assert_eq!(recorded(&lab, "101", 2)?.out_packets, new.packets);
    let report = lab.run_json(&["report", "--format", "json"])?;
    let rows = report["rows"].as_array().context("rows")?;
    let retired = rows
        .iter()
        .find(|row| row["container"].as_str().is_some_and(|id| id.starts_with("101@")))
        .context("the retired container")?;
    assert_eq!(retired["out"]["packets"].as_u64(), Some(old.packets));
    Counters::at_rest(&lab)?;
    Ok(())
}

#[test]
fn a_purge_drains_first_and_the_next_epoch_adds_up() -> Result<()> {
    let (lab, a, b) = node("ledger-purge", "")?;
    let send = |datagrams| udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), datagrams, 60);
    let mut packets = 0;
    for round in 1..=3 {
        let running = started(&lab)?;
        packets += send(round * 100)?.packets;
        // Killed, so that only the purge can have drained the rest.
        let mut running = running;
        running.signal(Signal::KILL)?;
        running.wait(PATIENCE)?;
        packets += send(round * 10)?.packets;
        lab.run_ok(&["detach", "--purge", "--yes"])?;
    }
    assert_eq!(recorded(&lab, "101", 2)?.out_packets, packets);
    Ok(())
}
