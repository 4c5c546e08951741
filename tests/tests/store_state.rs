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
use traffic_tests::{
    Daemon, Lab, check::eventually, container::introduce, postgres::Postgres, process::Process,
    traffic::udp_send,
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
    let mut command = lab.trafctl(&["ship"])?;
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
