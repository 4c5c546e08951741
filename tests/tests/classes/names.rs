//! The names of classes beside their numbers: in every output but Virtuozzo's, and after every change.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use traffic_tests::{
    Counters, Daemon, Lab, check::eventually, container::introduce, daemon::Resync, traffic::udp_send,
};

/// The configuration goes before the class file. A name may have what CSV and Prometheus must escape.
const CLASSES: &str = "# name 1 = \"World\"\n# name 2 = \"UA-IX, Kyiv\"\n\
                       1 0.0.0.0/0\n1 ::/0\n2 10.1.0.0/16\n3 10.9.0.0/16\n";

fn configure(lab: &Lab, names: &str) -> Result<()> {
    lab.configure(&format!(
        "class_file = {:?}\n[drain]\ninterval = \"100ms\"\n[api]\nlisten = \"unix:{}\"\n[classes.names]\n{names}",
        lab.path("classes"),
        lab.path("api.sock").display()
    ))
}

fn ask(socket: &Path, path: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}\n{body}");
    Ok(body.to_owned())
}

/// The names that both documents of the API have; null while they differ, in the middle of a change.
fn served(lab: &Lab) -> Result<Value> {
    let socket = lab.path("api.sock");
    let counters: Value = serde_json::from_str(&ask(&socket, "/api/v1/counters")?)?;
    let metrics = ask(&socket, "/metrics")?;
    let info = metrics.lines().filter(|line| line.starts_with("trafctl_class_info{")).count();
    let names = counters["class_names"].as_object().map_or(0, serde_json::Map::len);
    let mut are_same = info == names;
    for (class, name) in counters["class_names"].as_object().into_iter().flatten() {
        let name = name.as_str().context("a name")?;
        let line = format!("trafctl_class_info{{class=\"{class}\",name=\"{name}\"}} 1\n");
        are_same &= metrics.contains(&line);
    }
    Ok(if are_same { counters["class_names"].clone() } else { Value::Null })
}

#[test]
fn every_output_has_the_names_and_follows_their_changes() -> Result<()> {
    let lab = Lab::new("class-names")?;
    let file = lab.write("classes", CLASSES)?;
    configure(&lab, "1 = \"Everybody\"\n")?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let mut daemon = Daemon::start_with(&lab, Resync::Off)?;
    daemon.settled()?;
    udp_send(a.namespace(), b.namespace(), (b.v4(), 0).into(), 7, 300)?;
    udp_send(a.namespace(), b.namespace(), (b.v6(), 0).into(), 5, 200)?;
    Counters::at_rest(&lab)?;
    eventually("both classes are in the ledger", || {
        let report = lab.run_json(&["report", "--split", "class", "--format", "json"])?;
        Ok(report["rows"].as_array().is_some_and(|rows| rows.len() == 4))
    })?;

    let names = json!({"1": "Everybody", "2": "UA-IX, Kyiv"});
    for command in [
        &["dump"][..],
        &["top", "--by-class", "--times", "1", "--interval", "100ms"],
        &["report", "--split", "class"],
        &["top-talkers", "--by-class"],
    ] {
        let document = lab.run_json(&[command, &["--format", "json"]].concat())?;
        assert_eq!(document["class_names"], names, "{command:?}");
        // Nothing passes while `top` looks, so that it has no rows.
        if command[0] != "top" {
            let text = lab.run_ok(command)?;
            let is_named = |name: &str| text.lines().any(|line| line.contains(&format!("  {name}  ")));
            ensure!(is_named("1 Everybody") && is_named("2 UA-IX, Kyiv"), "{command:?}: {text}");
        }
    }
    for command in [&["dump"][..], &["report", "--split", "class"], &["top-talkers", "--by-class"]] {
        let csv = lab.run_ok(&[command, &["--format", "csv"]].concat())?;
        let mut lines = csv.lines();
        ensure!(lines.next().is_some_and(|header| header.ends_with(",class_name")), "{csv}");
        ensure!(
            lines.all(|line| line.ends_with(",Everybody") || line.ends_with(",\"UA-IX, Kyiv\"")),
            "{csv}"
        );
    }
    ensure!(
        lab.run_ok(&["classes", "explain", "10.1.0.1"])?.starts_with("10.1.0.1 is class 2 \"UA-IX, Kyiv\"")
    );
    // Scripts read Virtuozzo's formats.
    for command in
        [&["vznetstat", "-a"][..], &["vznetstat"], &["vztactl", "class_list"], &["classes", "list"]]
    {
        let text = lab.run_ok(command)?;
        ensure!(!text.contains("UA-IX") && !text.contains("Everybody"), "{command:?}: {text}");
    }
    assert_eq!(served(&lab)?, names);

    // A reload, and a change of nothing but a name in the class file.
    configure(&lab, "1 = \"All\"\n3 = \"Third\"\n")?;
    daemon.signal(Signal::HUP)?;
    let names = json!({"1": "All", "2": "UA-IX, Kyiv", "3": "Third"});
    eventually("the API has the names of the reload", || Ok(served(&lab)? == names))?;
    fs::write(lab.path("new"), CLASSES.replace("UA-IX, Kyiv", "Kyiv"))?;
    fs::rename(lab.path("new"), &file)?;
    let names = json!({"1": "All", "2": "Kyiv", "3": "Third"});
    eventually("the API has the name in the file", || Ok(served(&lab)? == names))?;
    assert_eq!(lab.run_json(&["dump", "--format", "json"])?["class_names"], names);
    // A configuration with a mistake changes nothing.
    configure(&lab, "1 = \"\"\n")?;
    daemon.signal(Signal::HUP)?;
    daemon.logs("the name of class 1 is not usable")?;
    assert_eq!(served(&lab)?, names);
    daemon.stop_after_errors()
}
