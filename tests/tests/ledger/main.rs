//! From packets to a bill: `trafctl run` with its ledger, killed, doubled, starved of disk, and asked.

mod reach;

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
    container::introduce,
    process::{Process, run_ok},
    traffic::{Load, tcp_exchange, udp_send},
};

const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n0 192.168.0.0/16\n2 10.1.0.2/32\n3 fd00:1::/64\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// A node whose daemon drains as fast as it may.
fn node(name: &str, more: &str) -> Result<(Lab, Container, Container)> {
    let lab = Lab::new(name)?;
    let classes = lab.write("networks_classes", CLASSES)?;
    lab.configure(&format!("class_file = {classes:?}\n[drain]\ninterval = \"100ms\"\n{more}"))?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    Ok((lab, a, b))
}

fn daemon(lab: &Lab) -> Result<Process> {
    let mut command = lab.trafctl(&["run"])?;
    let log = fs::File::options().create(true).append(true).open(lab.path("daemon.log"))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Process::spawn(&mut command)
}

/// Ends a daemon in peace, or fails with what all daemons so far have said.
fn end(lab: &Lab, daemon: Process) -> Result<()> {
    let status = daemon.terminate(PATIENCE)?;
    ensure!(
        status.success(),
        "the daemon ended with {status}; the log:\n{}",
        fs::read_to_string(lab.path("daemon.log"))?
    );
    Ok(())
}

/// Waits until the daemon has written something.
fn wait_for(what: &str, mut there: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !there()? {
        ensure!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sums of the ledger by container and class, both families.
fn booked(lab: &Lab, container: &str, class: u64) -> Result<Amounts> {
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

/// The ledger holds, to the byte, what the live counters hold.
fn check_ledger(lab: &Lab) -> Result<Counters> {
    let counters = Counters::at_rest(lab)?;
    for container in ["101", "102"] {
        for class in 0..=3_u8 {
            let live =
                // A class counts nothing where its family sends nothing.
                counters
                    .class_or_zero(container, class, "ipv4")
                    .plus(counters.class_or_zero(container, class, "ipv6"));
            let booked = booked(lab, container, class.into())?;
            ensure!(booked == live, "{container} class {class}: booked {booked:?}, counted {live:?}");
        }
    }
    let audit = lab.run_json(&["audit", "--format", "json"])?;
    ensure!(audit["problems"].as_array().is_some_and(Vec::is_empty), "{audit}");
    Ok(counters)
}

fn gaps(lab: &Lab) -> Result<Vec<String>> {
    let gaps = lab.run_json(&["gaps", "--format", "json"])?;
    let all = gaps.as_array().context("a list of gaps")?;
    Ok(all.iter().map(|gap| gap["reason"].as_str().unwrap_or("?").to_owned()).collect())
}

#[test]
fn a_daemon_killed_at_any_instant_books_every_byte_once() -> Result<()> {
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
    thread::sleep(Duration::from_millis(300));
    end(&lab, last)?;
    let said = fs::read_to_string(lab.path("daemon.log"))?;
    ensure!(!said.contains("ERROR"), "a daemon after a kill could not go on:\n{said}");
    let counters = check_ledger(&lab)?;
    let udp = counters.class("101", 2, "ipv4");
    assert_eq!((udp.out_packets, udp.out_bytes), sent, "and the counters hold what was sent");
    Ok(())
}

#[test]
fn a_second_daemon_is_refused_and_harms_nothing() -> Result<()> {
    let (lab, a, b) = node("ledger-two", "")?;
    let first = daemon(&lab)?;
    wait_for("the first daemon", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    let output = lab.trafctl(&["run"])?.output()?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("another `trafctl run` keeps the ledger"), "{said}");
    tcp_exchange(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 1 << 20, 1 << 20)?;
    end(&lab, first)?;
    check_ledger(&lab)?;
    Ok(())
}

#[test]
fn traffic_is_booked_under_the_table_it_was_counted_under() -> Result<()> {
    let (lab, a, b) = node("ledger-classes", "")?;
    let running = daemon(&lab)?;
    wait_for("the daemon", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    let send = || udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 100, 100);
    let first = send()?;
    // Loaded by another process than the one that keeps the ledger.
    let other = lab.write("other", "5 0.0.0.0/0\n")?;
    lab.run_ok(&["classes", "load", other.to_str().context("a path")?])?;
    let second = send()?;
    end(&lab, running)?;
    assert_eq!(booked(&lab, "101", 2)?.out_bytes, first.l3_bytes);
    assert_eq!(booked(&lab, "101", 5)?.out_bytes, second.l3_bytes);
    // And both tables are kept, as they were compiled.
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
fn the_articles_queries_run_on_a_plain_copy() -> Result<()> {
    let (lab, a, b) = node("ledger-pva", "")?;
    let running = daemon(&lab)?;
    wait_for("the daemon", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    tcp_exchange(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 700_000, 90_000)?;
    let live = Counters::at_rest(&lab)?.class("101", 2, "ipv4");
    wait_for("the booking", || Ok(booked(&lab, "101", 2)? == live))?;
    // A drain is in the file itself at once, or after the next drain where a reader was in the way, as this test's was.
    let log = lab.state_dir().join("ledger.sqlite-wal");
    wait_for("the file to be whole", || Ok(fs::metadata(&log)?.len() == 0))?;
    // While the daemon goes on, as the article has it.
    let copy = lab.path("copy.sqlite");
    fs::copy(lab.state_dir().join("ledger.sqlite"), &copy)?;
    for period in ["%Y-%m", "%Y-%m-%d", "%Y-%m-%d %H"] {
        let query = format!(
            "select strftime('{period}', datetime(ldat.startTime,'unixepoch','localtime')) as period, ldef.counter, \
             sum(ldat.avg) from log_def ldef join log_data ldat on ldef.id = ldat.id \
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
fn an_audit_finds_a_row_that_somebody_altered() -> Result<()> {
    let (lab, a, b) = node("ledger-audit", "")?;
    let running = daemon(&lab)?;
    wait_for("the daemon", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    tcp_exchange(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 50_000, 2000)?;
    end(&lab, running)?;
    check_ledger(&lab)?;
    for (altered, said) in [
        ("update traffic_5min set in_bytes = in_bytes - 1 where class = 2", "the rows of traffic hold"),
        ("delete from passed_5min", "the rows of passed hold"),
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
        ensure!(output.status.code() == Some(1) && found.contains(said), "{altered}: {found}");
        fs::write(&ledger, untouched)?;
    }
    ensure!(lab.run_ok(&["audit"])?.contains("no problems"));
    Ok(())
}

#[test]
fn a_copy_made_while_the_daemon_writes_is_whole_and_every_question_has_its_answer() -> Result<()> {
    let (lab, a, b) = node("ledger-copy", "")?;
    let running = daemon(&lab)?;
    wait_for("the daemon", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    let load = Load::start(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 300)?;
    load.passes(1000)?;
    wait_for("a booking", || Ok(booked(&lab, "101", 2)?.out_packets > 0))?;
    let copies = lab.path("copies");
    fs::create_dir(&copies)?;
    let copy = copies.join("ledger.sqlite");
    lab.run_ok(&["ledger", "backup", copy.to_str().context("a path")?])?;
    load.passes(1000)?;
    load.stop()?;
    ensure!(running.terminate(PATIENCE)?.success());
    check_ledger(&lab)?;

    // The copy stands still, and answers are compared with what sqlite3 finds in it.
    let copies = copies.to_str().context("a path")?;
    let ask = |question: &str| -> Result<serde_json::Value> {
        let words: Vec<&str> = question.split(' ').collect();
        lab.run_json(&[&words[..], &["--state-dir", copies, "--format", "json"]].concat())
    };
    ensure!(ask("audit")?["problems"] == serde_json::json!([]));
    let sum = |what: &str| -> Result<u64> {
        let query = format!(
            "select {what} from traffic_5min t join container c on c.id = t.container where name = '101' and class <> 0"
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
    let most = "select max(bytes) from (select sum(out_bytes) as bytes from traffic_5min t join container c on c.id = t.container
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
fn a_retired_id_begins_anew_and_the_old_figures_stay() -> Result<()> {
    let (lab, a, b) = node("ledger-retire", "")?;
    let running = daemon(&lab)?;
    wait_for("the daemon", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    let send = |datagrams| udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), datagrams, 50);
    let old = send(70)?;
    lab.run_ok(&["container", "retire", "101"])?;
    let new = send(110)?;
    end(&lab, running)?;
    assert_eq!(booked(&lab, "101", 2)?.out_packets, new.packets);
    let report = lab.run_json(&["report", "--format", "json"])?;
    let rows = report["rows"].as_array().context("rows")?;
    let retired = rows
        .iter()
        .find(|row| row["container"].as_str().is_some_and(|id| id.starts_with("101@")))
        .context("the retired one")?;
    assert_eq!(retired["out"]["packets"].as_u64(), Some(old.packets));
    Counters::at_rest(&lab)?;
    Ok(())
}

#[test]
fn a_purge_books_first_and_a_new_epoch_adds_up() -> Result<()> {
    let (lab, a, b) = node("ledger-purge", "")?;
    let send = |datagrams| udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), datagrams, 60);
    let mut packets = 0;
    for round in 1..=3 {
        let running = daemon(&lab)?;
        wait_for("the daemon", || Ok(lab.run_ok(&["status"]).is_ok()))?;
        packets += send(round * 100)?.packets;
        // Killed, so that only the purge itself can have booked the rest.
        let mut running = running;
        running.signal(Signal::KILL)?;
        running.wait(PATIENCE)?;
        packets += send(round * 10)?.packets;
        lab.run_ok(&["detach", "--purge"])?;
    }
    assert_eq!(booked(&lab, "101", 2)?.out_packets, packets);
    Ok(())
}
