//! What becomes of shipping, in the metrics and in `trafctl status`; the comparison that comes by itself.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_ledger::{Ledger, LedgerConfig, testing::Node};
use traffic_tests::{
    Daemon, Lab, check::eventually, container::introduce, postgres::Postgres, process::Process,
    traffic::udp_send, wall_clock,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn get(socket: &Path, path: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}\n{body}");
    Ok(body.to_owned())
}

/// A metric of a store, if it is there.
fn metric_of(socket: &Path, store: &str, name: &str) -> Result<Option<f64>> {
    let page = get(socket, "/metrics")?;
    let prefix = format!("{name}{{store=\"{store}\"}} ");
    Ok(page.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::parse).transpose()?)
}

/// The problems of `status` that name the store.
fn problems(lab: &Lab) -> Result<Vec<String>> {
    let output = lab.trafctl(&["status", "--format", "json"])?.output()?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    let all: Vec<String> = serde_json::from_value(status["problems"].clone())?;
    Ok(all.into_iter().filter(|text| text.contains("postgresql://")).collect())
}

fn start_shipper(lab: &Lab) -> Result<Process> {
    start_shipper_to(lab, &[])
}

fn start_shipper_to(lab: &Lab, to: &[&str]) -> Result<Process> {
    let mut command = lab.trafctl(&[&["ship"][..], to].concat())?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(lab.path("shipper"))?);
    Process::spawn(&mut command)
}

#[test]
fn a_store_has_metrics_and_is_compared_by_itself() -> Result<()> {
    let lab = Lab::new("store-state")?;
    let classes = lab.write("networks_classes", "1 0.0.0.0/0\n1 ::/0\n")?;
    let mut server = Postgres::start(lab.host(), &[])?;
    lab.run_ok(&["store", "init", &server.url("postgres")])?;
    server.query("create user ship password 'hunter2' in role trafctl_ship")?;
    let socket = lab.path("api.sock");
    lab.configure(&format!(
        "class_file = {classes:?}\n[api]\nlisten = \"unix:{}\"\n[drain]\ninterval = '100ms'\n[ship]\nto = ['{}']\ninterval \
         = '1s'\n",
        socket.display(),
        server.url("ship")
    ))?;
    let url = server.url("ship");
    let metric = |name: &str| metric_of(&socket, &url, name);
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let daemon = Daemon::start(&lab)?;
    udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 300, 333)?;
    eventually("status misses the shipper", || {
        Ok(problems(&lab)?.iter().any(|text| text.starts_with("nothing was shipped to postgresql://ship@")))
    })?;
    eventually("the daemon answers", || Ok(get(&socket, "/metrics").is_ok()))?;
    ensure!(metric("trafctl_ship_lag_seconds")?.is_none());

    let shipper = start_shipper(&lab)?;
    eventually("it has shipped", || Ok(metric("trafctl_ship_rows_total")?.is_some_and(|rows| rows > 0.0)))?;
    ensure!(metric("trafctl_ship_lag_seconds")?.is_some_and(|lag| lag >= 0.0 && lag.is_finite()));
    ensure!(metric("trafctl_ship_failures_total")? == Some(0.0));
    ensure!(metric("trafctl_ship_verified_until_timestamp_seconds")? == Some(0.0));
    ensure!(problems(&lab)?.is_empty(), "{:?}", problems(&lab)?);
    server.kill()?;
    eventually("a round failed", || Ok(metric("trafctl_ship_failures_total")?.is_some_and(|of| of >= 1.0)))?;
    ensure!(shipper.terminate(PATIENCE)?.success());

    // Somebody alters a row, and the time of the comparison comes.
    server.restart()?;
    server.query("update trafctl.container set label = label || 'x' where name = '101'")?;
    let file = lab.state_dir().join("ship.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&file)?)?;
    for store in state["stores"].as_object_mut().context("stores")?.values_mut() {
        ensure!(store["compare_tried_s"] == 0 && store["since_s"].as_i64() > Some(1_000_000_000), "{store}");
        store["since_s"] = 1.into();
    }
    fs::write(&file, serde_json::to_vec(&state)?)?;
    let shipper = start_shipper(&lab)?;
    eventually("the altered row is found", || Ok(metric("trafctl_ship_differing_days")? == Some(1.0)))
        .with_context(|| fs::read_to_string(lab.path("shipper")).unwrap_or_default())?;
    let found = problems(&lab)?;
    ensure!(found.len() == 1 && found[0].contains("differs from the ledger (container)"), "{found:?}");
    ensure!(fs::read_to_string(lab.path("shipper"))?.contains("differs from the ledger: container"));
    ensure!(shipper.terminate(PATIENCE)?.success());
    let state: Value = serde_json::from_slice(&fs::read(&file)?)?;
    let store = &state["stores"][url.as_str()];
    ensure!(
        store["compare_tried_s"].as_i64() > Some(1_000_000_000) && store["compare_error"].is_null(),
        "{state}"
    );
    ensure!(store["compared"]["until_s"] == 0, "{state}");

    lab.run_ok(&["ship", "verify", "--repair"])?;
    ensure!(metric("trafctl_ship_differing_days")? == Some(0.0));
    ensure!(metric("trafctl_ship_verified_until_timestamp_seconds")?.is_some_and(|until| until > 1e9));
    ensure!(problems(&lab)?.is_empty(), "{:?}", problems(&lab)?);
    // What is shipped elsewhere by hand is not noted.
    lab.run_ok(&["ship", "--once", "--to", &server.url("postgres")])?;
    ensure!(!fs::read_to_string(&file)?.contains("postgres@"));
    daemon.stop()
}

/// 2026-09-26, noon UTC.
const BEGIN: i64 = 1_790_424_000;

/// A ledger of five days, which nothing changes, and a store that has it. The shipper was started once.
fn old_ledger<'l>(lab: &'l Lab) -> Result<Postgres<'l>> {
    let server = Postgres::start(lab.host(), &["-c", "fsync=off"])?;
    lab.run_ok(&["store", "init", &server.url("postgres")])?;
    server.query("create user ship password 'hunter2' in role trafctl_ship")?;
    lab.configure(&format!("[ship]\nto = ['{}']\ninterval = '1s'\n", server.url("ship")))?;
    let mut ledger = Ledger::open(&lab.state_dir().join("ledger.sqlite"), LedgerConfig::default())?;
    let mut node = Node::balanced(BEGIN);
    for bytes in 0..60 {
        node.traffic("101", 1, [1, 100 + bytes, 2, 300 + bytes]);
        node.pass(7200).drain(&mut ledger);
    }
    ledger.maintain(node.wall)?;
    Ok(server)
}

fn ship_state(lab: &Lab) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(lab.state_dir().join("ship.json"))?)?)
}

/// Lets a night pass, and returns what the comparison has shown.
fn night(lab: &Lab, change: impl FnOnce(&mut Value)) -> Result<Value> {
    let mut state = ship_state(lab)?;
    let store = state["stores"].as_object_mut().context("stores")?.values_mut().next().context("no store")?;
    (store["since_s"], store["compare_tried_s"]) = (1.into(), 2.into());
    change(&mut store["compared"]);
    fs::write(lab.state_dir().join("ship.json"), serde_json::to_vec(&state)?)?;
    let shipper = start_shipper(lab)?;
    let of = |state: &Value| {
        state["stores"].as_object().and_then(|stores| stores.values().next().cloned()).context("no store")
    };
    eventually("it was compared", || Ok(of(&ship_state(lab)?)?["compare_tried_s"].as_i64() > Some(2)))?;
    ensure!(shipper.terminate(PATIENCE)?.success());
    Ok(of(&ship_state(lab)?)?["compared"].clone())
}

#[test]
fn a_day_that_differs_does_so_until_a_comparison_has_seen_it_equal() -> Result<()> {
    let lab = Lab::new("store-nights")?;
    let server = old_ledger(&lab)?;
    lab.run_ok(&["ship", "--once"])?;
    let equal = night(&lab, |_| {})?;
    ensure!(
        equal["until_s"].as_i64() > Some(BEGIN) && equal["differing"] == serde_json::json!([]),
        "{equal}"
    );
    ensure!(equal["changes"].as_i64() > Some(0));

    // A row of a day that has not changed since, and whose turn it is on one night of thirty.
    let altered = "update trafctl.traffic set in_bytes = in_bytes + 1 where level = 0 and start >= 1790553600 and start < \
                   1790553600 + 7200 and in_bytes > 0";
    server.query(altered)?;
    let found = night(&lab, |compared| compared["differing"] = serde_json::json!(["2026-09-28"]))?;
    for _ in 0..2 {
        let again = night(&lab, |_| {})?;
        ensure!(again["differing"] == serde_json::json!(["2026-09-28"]), "{again}");
        ensure!(again["changes"] == equal["changes"] && again["until_s"] == equal["until_s"], "{again}");
    }
    ensure!(found["differing"] == serde_json::json!(["2026-09-28"]), "{found}");
    server.query(&altered.replace("+ 1 where", "- 1 where"))?;
    let repaired = night(&lab, |_| {})?;
    ensure!(repaired["differing"] == serde_json::json!([]), "{repaired}");

    // A day that only the store has.
    let insert = "select trafctl.add_months(array[1780272000::bigint]); insert into trafctl.part (ledger, name, number, rev) select ledger, 'day', 1780272000, rev from \
                  trafctl.part limit 1; insert into trafctl.unit (ledger, level, start, \"end\", day, month, rev) select \
                  ledger, 2, 1780272000, 1780358400, day, month, rev from trafctl.unit limit 1";
    server.query(insert)?;
    for _ in 0..2 {
        let extra = night(&lab, |_| {})?;
        ensure!(extra["differing"] == serde_json::json!(["2026-06-01"]), "{extra}");
    }
    server.query("delete from trafctl.part where number = 1780272000; delete from trafctl.unit where start = 1780272000")?;
    let equal = night(&lab, |_| {})?;
    ensure!(equal["differing"] == serde_json::json!([]), "{equal}");
    Ok(())
}

#[test]
fn a_store_of_the_command_line_is_compared_and_leaves_the_state_alone() -> Result<()> {
    let lab = Lab::new("store-to")?;
    let server = old_ledger(&lab)?;
    let url = server.url("ship");
    lab.run_ok(&["ship", "--once", "--to", &url])?;
    server.query("update trafctl.container set label = label || 'x' where name = '101'")?;
    // Its clock runs so fast that each night comes within seconds.
    let mut command = wall_clock::shifted(lab.trafctl(&["ship", "--to", &url])?, "+0 x10000");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(lab.path("shipper"))?);
    let shipper = Process::spawn(&mut command)?;
    eventually("the altered row is found", || {
        let log = fs::read_to_string(lab.path("shipper"))?;
        Ok(log
            .contains(&format!("differs from the ledger: container; `trafctl ship verify --to {url}` lists")))
    })
    .with_context(|| fs::read_to_string(lab.path("shipper")).unwrap_or_default())?;
    ensure!(shipper.terminate(PATIENCE)?.success());
    ensure!(!lab.state_dir().join("ship.json").exists());
    Ok(())
}
