//! The documents of the API and of `trafctl web` against what the commands print, live rates, and the token.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_tests::{
    Lab,
    check::eventually,
    container::introduce,
    daemon::{Daemon, Resync},
    process::Process,
    traffic::udp_send,
};

const PATIENCE: Duration = Duration::from_secs(20);
const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.0/16\n# name 2 = \"inside\"\n";

/// Sends a request; returns head and body of the answer.
fn ask(mut stream: impl Read + Write, path: &str, header: &str) -> Result<(String, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}Connection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer but {answer:?}"))?;
    Ok((head.to_owned(), body.to_owned()))
}

fn get(socket: &Path, path: &str) -> Result<String> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (head, body) = ask(stream, path, "")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}\n{body}");
    Ok(body)
}

fn same(served: &str, lab: &Lab, command: &[&str]) -> Result<()> {
    let printed = lab.run_ok(command)?;
    ensure!(served == printed, "{command:?} prints\n{printed}\nbut served is\n{served}");
    Ok(())
}

#[test]
fn the_page_shows_what_the_commands_print_with_a_daemon_and_without() -> Result<()> {
    let lab = Lab::new("web")?;
    let classes = lab.write("classes", CLASSES)?;
    let socket = lab.path("api.sock");
    lab.configure(&format!(
        "class_file = {classes:?}\n[api]\nlisten = \"unix:{}\"\n[drain]\ninterval = \"100ms\"\n",
        socket.display()
    ))?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let daemon = Daemon::start_with(&lab, Resync::Every(Duration::from_millis(500)))?;
    udp_send(a.namespace(), b.namespace(), (b.v4(), 0).into(), 30, 300)?;
    udp_send(b.namespace(), a.namespace(), (a.v6(), 0).into(), 11, 500)?;
    eventually("the ledger has the traffic", || {
        Ok(lab.run_ok(&["report", "--format", "json", "--container", "101"]).is_ok_and(|text| {
            serde_json::from_str::<Value>(&text)
                .is_ok_and(|report| report["total"]["total"]["bytes"].as_u64() > Some(10_000))
        }))
    })?;

    let index = get(&socket, "/")?;
    ensure!(index.contains("<html"), "{index}");
    let rates = first_event(&socket, "/api/v1/rates?by_class=true")?;
    ensure!(rates["rows"].is_array() && rates["seconds"].as_f64() > Some(0.5), "{rates:#}");
    let served: Value = serde_json::from_str(&get(&socket, "/api/v1/interfaces")?)?;
    let status = lab.run_json(&["status", "--format", "json"])?;
    for field in ["attachments", "not_watched", "faults", "tables", "problems"] {
        ensure!(served[field] == status[field], "{field}: {:#} is not {:#}", served[field], status[field]);
    }
    ensure!(served["passed"].as_array().is_some_and(|passed| passed.len() == 2), "{served:#}");
    let overview: Value = serde_json::from_str(&get(&socket, "/api/v1/overview")?)?;
    ensure!(overview["live"] == true && overview["problems"] == serde_json::json!([]), "{overview:#}");
    let table: Value = serde_json::from_str(&get(&socket, "/api/v1/classes")?)?;
    ensure!(table["table"]["file"] == classes.to_string_lossy().as_ref(), "{table:#}");
    ensure!(table["classes"][2]["name"] == "inside" && table["classes"][2]["prefixes"] == 1, "{table:#}");
    let explained = get(&socket, "/api/v1/classes/explain?address=10.1.0.7")?;
    same(&explained, &lab, &["classes", "explain", "10.1.0.7", "--format", "json"])?;
    let metrics = get(&socket, "/metrics")?;
    for name in [
        "trafctl_build_info{version=",
        "trafctl_ledger_bytes ",
        "trafctl_class_table_loaded_timestamp_seconds ",
    ] {
        ensure!(metrics.contains(name), "no {name} in {metrics}");
    }
    eventually("the tables are in the metrics", || {
        Ok(get(&socket, "/metrics")?.contains("\ntrafctl_table_used{table=\"containers\"} 2\n"))
    })?;
    daemon.stop()?;

    let ledger = lab.state_dir().join("ledger.sqlite");
    let path = ledger.to_string_lossy().into_owned();
    let mut command = lab.trafctl(&["web", &path, "--listen", "127.0.0.1:0"])?;
    let mut web = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut url = String::new();
    BufReader::new(web.child().stdout.take().context("its stdout")?).read_line(&mut url)?;
    let address = url.trim().strip_prefix("http://").and_then(|url| url.strip_suffix('/'));
    let address = address.with_context(|| format!("{url:?} is no address"))?;
    let of_web = |path: &str| -> Result<(String, String)> {
        let stream = lab.host().enter(|| Ok(TcpStream::connect(address)))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        ask(stream, path, "")
    };
    for (query, command) in [
        ("report?by=day&split=class,direction", &["report", "--by", "day", "--split", "class,direction"][..]),
        (
            "report?container=101&percentile=95&basis=l2",
            &["report", "--container", "101", "--percentile", "95", "--basis", "l2"],
        ),
        ("report?show=balance&by=hour", &["report", "--show", "balance", "--by", "hour"]),
        ("top?by_class=true", &["top-talkers", "--by-class"]),
        ("gaps?container=102", &["gaps", "--container", "102"]),
    ] {
        let (head, body) = of_web(&format!("/api/v1/{query}"))?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{query}: {head}\n{body}");
        same(&body, &lab, &[command, &["--format", "json"]].concat())?;
    }
    let (_, csv) = of_web("/api/v1/report?by=hour&format=csv")?;
    same(&csv, &lab, &["report", "--by", "hour", "--format", "csv"])?;
    let (head, body) = of_web("/api/v1/rates")?;
    ensure!(head.starts_with("HTTP/1.1 404 ") && body.contains("without a daemon"), "{head}\n{body}");
    let (_, explained) = of_web("/api/v1/classes/explain?address=10.1.0.7")?;
    let explained: Value = serde_json::from_str(&explained)?;
    ensure!(explained["class"] == 2, "{explained:#}");
    let status = web.terminate(PATIENCE)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// The first event of a stream.
fn first_event(socket: &Path, path: &str) -> Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    for line in BufReader::new(stream).lines() {
        if let Some(data) = line?.strip_prefix("data: ") {
            return Ok(serde_json::from_str(data)?);
        }
    }
    anyhow::bail!("the stream ended without an event")
}

#[test]
fn a_token_protects_the_figures_and_follows_its_file() -> Result<()> {
    let lab = Lab::new("webtoken")?;
    let classes = lab.write("classes", CLASSES)?;
    let socket = lab.path("api.sock");
    let token = lab.path("token");
    lab.configure(&format!(
        "class_file = {classes:?}\n[api]\nlisten = \"unix:{}\"\ntoken_file = {token:?}\n",
        socket.display()
    ))?;
    let mut daemon = Daemon::start_with(&lab, Resync::Every(Duration::from_millis(200)))?;
    // Without its token nothing is served, and everything else works.
    daemon.logs("cannot use the token file")?;
    ensure!(!socket.exists(), "the API is served without the token");
    let write = |text: &str| -> Result<()> {
        fs::write(&token, text)?;
        Ok(fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?)
    };
    write("first-token-1234\n")?;
    // The file is there a moment before the daemon listens on it.
    eventually("the API is served", || Ok(UnixStream::connect(&socket).is_ok()))?;
    let status = |header: &str| -> Result<String> {
        let (head, _) = ask(UnixStream::connect(&socket)?, "/api/v1/status", header)?;
        Ok(head.split(' ').nth(1).unwrap_or_default().to_owned())
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    ensure!(status("")? == "401" && status(&bearer("first-token-1235"))? == "401");
    ensure!(status(&bearer("first-token-1234"))? == "200");
    get(&socket, "/")?;

    write("second-token-123\n")?;
    daemon.signal(rustix::process::Signal::HUP)?;
    eventually("the other token is in force", || Ok(status(&bearer("second-token-123"))? == "200"))?;
    ensure!(status(&bearer("first-token-1234"))? == "401");
    // A file that others can read protects nothing: the token before stays.
    fs::write(&token, "third-token-1234\n")?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644))?;
    daemon.signal(rustix::process::Signal::HUP)?;
    daemon.logs("its mode is 0644")?;
    ensure!(status(&bearer("third-token-1234"))? == "401" && status(&bearer("second-token-123"))? == "200");
    daemon.stop_after_errors()
}
