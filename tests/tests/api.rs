//! The API of `trafctl run`: its answers against `trafctl dump`, its filter, and how its socket appears and
//! disappears.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use traffic_tests::check::eventually;
use traffic_tests::container::introduce;
use traffic_tests::daemon::{Daemon, Resync};
use traffic_tests::process::Process;
use traffic_tests::prometheus::promtool;
use traffic_tests::traffic::{send_raw, udp_send};
use traffic_tests::{Amounts, Counters, Lab};

const PATIENCE: Duration = Duration::from_secs(10);
const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.0/16\n2 fd00:1::/32\n";

/// A node that serves at `listen`, which may name a path in the lab's directory as `{lab}`.
fn node(name: &str, listen: &str) -> Result<Lab> {
    let lab = Lab::new(name)?;
    let classes = lab.write("classes", CLASSES)?;
    let listen = listen.replace("{lab}", &lab.path("").to_string_lossy());
    // Pins that were removed are noticed at a drain.
    let drain = "[drain]\ninterval = \"250ms\"\n";
    lab.configure(&format!("class_file = {classes:?}\n[api]\nlisten = {listen:?}\n{drain}"))?;
    Ok(lab)
}

/// Sends a request; returns head and body of the answer.
fn ask(stream: impl Read + Write, path: &str) -> Result<(String, String)> {
    ask_for(stream, path, "*/*")
}

fn ask_for(mut stream: impl Read + Write, path: &str, accept: &str) -> Result<(String, String)> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer but {answer:?}"))?;
    Ok((head.to_owned(), body.to_owned()))
}

fn ask_socket(socket: &Path, path: &str) -> Result<String> {
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (head, body) = ask(stream, path)?;
    ensure!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}\n{body}");
    Ok(body)
}

/// Starts `trafctl run` and waits until it answers.
fn start(lab: &Lab, socket: &Path) -> Result<Process> {
    let mut daemon = Process::spawn(lab.trafctl(&["run"])?.stdin(Stdio::null()))?;
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(socket).is_err() {
        if let Some(status) = daemon.child().try_wait()? {
            bail!("the daemon ended: {status}");
        }
        ensure!(Instant::now() < deadline, "no process listens on {}", socket.display());
        thread::sleep(Duration::from_millis(10));
    }
    // A connection from before the attach is answered afterwards.
    ask_socket(socket, "/api/v1/status")?;
    Ok(daemon)
}

/// The value of a sample, named with its labels.
fn sample(metrics: &str, name: &str) -> Result<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name} in {metrics}"))?.parse()?)
}

#[test]
fn the_api_serves_what_dump_prints() -> Result<()> {
    let lab = node("api", "unix:{lab}api.sock")?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let socket = lab.path("api.sock");
    let daemon = start(&lab, &socket)?;
    let file = fs::symlink_metadata(&socket)?;
    ensure!(file.file_type().is_socket() && file.mode() & 0o7777 == 0o660, "{file:?}");

    udp_send(a.namespace(), b.namespace(), (b.v4(), 0).into(), 7, 300)?;
    udp_send(b.namespace(), a.namespace(), (a.v6(), 0).into(), 11, 500)?;
    let counters = Counters::at_rest(&lab)?;
    let served: Counters = serde_json::from_str(&ask_socket(&socket, "/api/v1/counters")?)?;
    ensure!(served == counters, "served {served:#?} instead of {counters:#?}");
    let filtered: Counters =
        serde_json::from_str(&ask_socket(&socket, "/api/v1/counters?container=101&family=ipv4")?)?;
    let dumped: Counters =
        serde_json::from_value(lab.run_json(&["dump", "--container", "101", "-4", "--format", "json"])?)?;
    ensure!(filtered == dumped && !dumped.counters.is_empty(), "{filtered:#?} instead of {dumped:#?}");
    for (query, status) in [("container=777", 404), ("contaner=101", 400), ("class=x", 400)] {
        let (head, body) = ask(UnixStream::connect(&socket)?, &format!("/api/v1/counters?{query}"))?;
        ensure!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{query}: {head}\n{body}");
    }

    let metrics = ask_socket(&socket, "/metrics")?;
    ensure!(metrics.ends_with("\n# EOF\n"), "{metrics}");
    ensure!(!metrics.contains("10.1.0") && !metrics.contains("fd00:"), "an address is in {metrics}");
    for container in ["101", "102"] {
        let both = counters.class(container, 2, "ipv4").plus(counters.class(container, 2, "ipv6"));
        let value = |what: &str| -> Result<u64> {
            let name = format!("trafctl_network_{what}_total{{container=\"{container}\",class=\"2\"}}");
            // Exact: the numbers are far below 2^53.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Ok(sample(&metrics, &name)? as u64)
        };
        let exported = Amounts {
            in_bytes: value("receive_bytes")?,
            in_packets: value("receive_packets")?,
            out_bytes: value("transmit_bytes")?,
            out_packets: value("transmit_packets")?,
        };
        ensure!(exported == both, "{container}: {exported:?} instead of {both:?}");
    }
    ensure!(counters.class("102", 2, "ipv4").in_packets >= 7, "{counters:#?}");
    ensure!(counters.class("102", 2, "ipv6").out_packets >= 11, "{counters:#?}");
    ensure!(sample(&metrics, "trafctl_unaccounted_bytes")? == 0.0, "{metrics}");
    ensure!(sample(&metrics, "trafctl_drain_failures_total")? == 0.0, "{metrics}");
    ensure!(sample(&metrics, "trafctl_last_drain_timestamp_seconds")? > 1_700_000_000.0, "{metrics}");
    let table = format!("trafctl_class_table_info{{hash=\"{}\"}}", counters.class_table.hash);
    ensure!(sample(&metrics, &table)? == 1.0, "{metrics}");

    // A connection without a request does not keep the daemon from ending.
    let _idle = UnixStream::connect(&socket)?;
    let status = daemon.terminate(PATIENCE)?;
    ensure!(status.success(), "{status}");
    ensure!(!socket.exists(), "the socket is still there");
    Ok(())
}

/// Runs promtool on an input; returns whether it succeeded, and its output.
fn judged(command: &mut Command, input: &str) -> Result<(bool, String)> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool is not there: run `cargo xtask setup`")?;
    child.stdin.take().context("its input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), said.into_owned()))
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() -> Result<()> {
    let lab = node("apiprom", "unix:{lab}api.sock")?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let socket = lab.path("api.sock");
    let daemon = start(&lab, &socket)?;
    udp_send(a.namespace(), b.namespace(), (b.v4(), 0).into(), 9, 400)?;
    let quotas = "[[quota]]\nname = 'traffic'\ndefault = true\nallowance = '1MB'\n";
    fs::write(lab.config().with_file_name("quotas.toml"), quotas)?;
    eventually("the quotas are there", || {
        let page = ask_socket(&socket, "/metrics")?;
        Ok(page.contains("trafctl_quota_allowance_bytes{container=\"102\",quota=\"traffic\"} 1000000\n"))
    })?;

    let (head, text) = ask_for(UnixStream::connect(&socket)?, "/metrics", "text/plain")?;
    ensure!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let (clean, said) = judged(promtool().args(["check", "metrics"]), &text)?;
    ensure!(clean && said.is_empty(), "{said}\nof {text}");
    // It does check: a counter with a wrong name is refused.
    let renamed = text.replace("trafctl_drain_failures_total", "trafctl_drain_failures");
    ensure!(!judged(promtool().args(["check", "metrics"]), &renamed)?.0, "promtool does not check names");

    // It reads OpenMetrics only for an import, where every sample has a time.
    let open = ask_socket(&socket, "/metrics")?;
    let timed: String = open
        .lines()
        .map(|line| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1794312000\n") })
        .collect();
    let import = |text: &str, into: &str| -> Result<(bool, String)> {
        let file = lab.write("openmetrics", text)?;
        judged(
            promtool().args(["tsdb", "create-blocks-from", "openmetrics"]).args([file, lab.path(into)]),
            "",
        )
    };
    let (taken, said) = import(&timed, "whole")?;
    ensure!(taken, "{said}\nof {timed}");
    let samples = open.lines().filter(|line| !line.starts_with('#')).count().to_string();
    // Its table has a block's name, times, and then the number of samples.
    let row = said.lines().nth(1).with_context(|| said.clone())?;
    ensure!(row.split_whitespace().any(|field| field == samples), "not {samples} samples: {said}");
    let cut = timed.replace("# EOF\n", "");
    ensure!(!import(&cut, "cut")?.0, "promtool accepts a page without its end");
    ensure!(daemon.terminate(PATIENCE)?.success());
    Ok(())
}

#[test]
fn a_killed_daemons_socket_is_taken_over() -> Result<()> {
    let lab = node("apikill", "unix:{lab}api.sock")?;
    let socket = lab.path("api.sock");
    let mut first = start(&lab, &socket)?;
    first.signal(Signal::KILL)?;
    first.wait(PATIENCE)?;
    ensure!(socket.exists(), "the killed daemon left no socket, so this tests nothing");

    let second = start(&lab, &socket)?;
    let status: Value = serde_json::from_str(&ask_socket(&socket, "/api/v1/status")?)?;
    ensure!(status["ledger"]["drain_failures"] == 0, "{status}");
    ensure!(status["ledger"]["last_drain"].is_string(), "{status}");
    // Somebody removes the maps that the daemon uses. It pins them again; until then it answers with an
    // error.
    fs::remove_dir_all(lab.bpffs().join("maps"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (head, body) = ask(UnixStream::connect(&socket)?, "/metrics")?;
        if head.starts_with("HTTP/1.1 200 ") {
            break;
        }
        ensure!(head.starts_with("HTTP/1.1 503 ") && body.contains("nothing is loaded"), "{head}\n{body}");
        ensure!(Instant::now() < deadline, "the daemon created no new maps: {head}\n{body}");
        thread::sleep(Duration::from_millis(10));
    }
    second.terminate(PATIENCE)?;
    Ok(())
}

#[test]
fn faults_of_a_former_owner_of_a_slot_stay_in_the_metrics() -> Result<()> {
    let lab = Lab::new("apislots")?;
    let socket = lab.path("api.sock");
    let listen = format!("unix:{}", socket.display());
    // One of the interface slots is reserved for unknown interfaces.
    lab.configure(&format!("[api]\nlisten = {listen:?}\n[limits]\ncontainers = 1\ninterfaces = 2\n"))?;
    let daemon = start(&lab, &socket)?;
    // A frame of a protocol number for local experiments.
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    frame.resize(60, 0);
    let mut sent = 0;
    for n in 1..=3_u8 {
        let container =
            lab.bridged(200 + u32::from(n), 0, [10, 1, 0, n].into(), format!("fd00:1::{n}").parse()?)?;
        let interface = container.interface();
        let deadline = Instant::now() + PATIENCE;
        while lab.run_ok(&["status"]).is_err() || !lab.run_ok(&["status"])?.contains(interface) {
            ensure!(Instant::now() < deadline, "{interface} is not attached");
            thread::sleep(Duration::from_millis(20));
        }
        for _ in 0..n * 5 {
            send_raw(container.namespace(), "eth0", &frame)?;
            sent += 1;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = ask_socket(&socket, "/metrics")?;
            let counted = sample(&metrics, "trafctl_faults_total{fault=\"not_ip\"}")?;
            if counted == f64::from(sent) {
                break;
            }
            ensure!(Instant::now() < deadline, "{counted} of {sent}: {metrics}");
            thread::sleep(Duration::from_millis(20));
        }
    }
    ensure!(Counters::at_rest(&lab)?.former_owners.faults.out_packets == 15, "no slot has changed hands");
    ensure!(daemon.terminate(PATIENCE)?.success());
    Ok(())
}

#[test]
fn only_a_loopback_port_is_served_and_only_under_its_own_names() -> Result<()> {
    let lab = node("apiport", "127.0.0.1:9177")?;
    let _daemon = Process::spawn(lab.trafctl(&["run"])?.stdin(Stdio::null()))?;
    let deadline = Instant::now() + PATIENCE;
    let (head, body) = loop {
        match lab.host().enter(|| Ok(TcpStream::connect("127.0.0.1:9177"))) {
            Ok(Ok(stream)) => break ask(stream, "/metrics")?,
            Ok(Err(_)) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            other => bail!("no process listens: {other:?}"),
        }
    };
    let content_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    ensure!(head.contains(content_type), "{head}");
    ensure!(body.ends_with("\n# EOF\n"), "{body}");
    // A page in a browser reaches the port under its own name (DNS rebinding).
    let mut stream = lab.host().enter(|| Ok(TcpStream::connect("127.0.0.1:9177")))??;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: attacker.example:9177\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 421 ") && !answer.contains("trafctl_"), "{answer}");

    let open = node("apiopen", "0.0.0.0:9177")?;
    let output = open.trafctl(&["run"])?.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let place = format!("{}:3:10: 0.0.0.0 is not a loopback address", open.config().display());
    ensure!(output.status.code() == Some(1) && said.contains(&place), "{}: {said}", output.status);
    Ok(())
}

#[test]
fn a_path_in_use_does_not_keep_the_daemon_from_counting() -> Result<()> {
    let lab = node("apitaken", "unix:{lab}api.sock")?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let socket = lab.path("api.sock");
    fs::write(&socket, "mine")?;
    let mut daemon = Daemon::start_with(&lab, Resync::Every(Duration::from_millis(200)))?;
    daemon.logs("cannot serve metrics on unix:")?;
    let sent = udp_send(a.namespace(), b.namespace(), (b.v4(), 9).into(), 20, 300)?;
    let expected = Amounts::outgoing(sent.packets, sent.l3_bytes);
    assert_eq!(Counters::at_rest(&lab)?.class("101", 2, "ipv4"), expected);
    ensure!(fs::read_to_string(&socket)? == "mine", "the file of another program was replaced");
    // Once the path is free, the daemon serves there without a restart.
    fs::remove_file(&socket)?;
    eventually("the API answers", || Ok(ask_socket(&socket, "/api/v1/status").is_ok()))?;
    daemon.stop_after_errors()
}
