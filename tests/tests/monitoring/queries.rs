//! Every query of the dashboards and every rule, by a real Prometheus that scrapes a real daemon under traffic,
//! compared with `trafctl dump`.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use traffic_tests::check::eventually;
use traffic_tests::container::introduce;
use traffic_tests::counters::FaultRow;
use traffic_tests::process::Process;
use traffic_tests::prometheus::{Labels, Prometheus};
use traffic_tests::traffic::{send_raw, udp_send};
use traffic_tests::{Amounts, Counters, Lab};

use crate::dashboards::{self, Query};
use crate::expected::{Expected, Truth};

const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.0/16\n3 fd00:1::/32\n";
/// The same daemon under two names, which are two nodes for Prometheus.
const NODES: [&str; 2] = ["127.0.0.1:9177", "localhost:9177"];
/// Samples, one a second: the fewer there are, the more is extrapolated.
const SAMPLES: f64 = 25.0;
const FRAMES: u64 = 40;
const BEHIND_ETHERNET: u64 = 46;

/// `contrib/prometheus/prometheus.yml`, with more samples, two nodes and no need to copy the rules.
fn configuration() -> Result<String> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../contrib/prometheus").canonicalize()?;
    let mut text = fs::read_to_string(directory.join("prometheus.yml"))?;
    let rules = |file: &str| format!("{}/{file}", directory.display());
    for (shipped, here) in [
        ("scrape_interval: 30s", "scrape_interval: 1s".to_owned()),
        ("evaluation_interval: 30s", "evaluation_interval: 1s".to_owned()),
        ("[\"127.0.0.1:9177\"]", format!("{NODES:?}")),
        ("- trafctl.rules.yml", format!("- {}", rules("trafctl.rules.yml"))),
        ("- trafctl.alerts.yml", format!("- {}", rules("trafctl.alerts.yml"))),
    ] {
        ensure!(text.contains(shipped), "prometheus.yml has no {shipped}");
        text = text.replace(shipped, &here);
    }
    Ok(text)
}

/// An expression as Grafana sends it, with all of the test in one window.
fn filled(expression: &str, instance: &str) -> String {
    expression
        .replace("$__rate_interval", "5m")
        // A subquery has its points at multiples of its step, so one of five minutes may have none yet.
        .replace("[$__range:5m]", "[5m:1s]")
        .replace("$__range", "5m")
        .replace("$instance", instance)
        .replace("$class", ".*")
        .replace("$container", "101")
}

struct Node<'l> {
    lab: &'l Lab,
    prometheus: &'l Prometheus<'l>,
    truth: Truth,
    at: f64,
    samples: f64,
}

impl Node<'_> {
    /// Compares all results of an expression. There must be some.
    fn compare(&self, name: &str, expression: &str) -> Result<()> {
        let found = self.prometheus.query(expression, Some(self.at)).with_context(|| name.to_owned())?;
        ensure!(!found.is_empty(), "{name} is empty: {expression}");
        for (labels, value) in found {
            let expected = self.truth.of(name, &labels).with_context(|| name.to_owned())?;
            // At most half a sample before the first one, and up to the end of the window behind the last one.
            let most = 1.0 + 3.0 / (self.samples - 1.0);
            let fits = match expected {
                Expected::Exactly(exact) => (value - exact).abs() <= exact.abs() * 1e-9,
                Expected::Grown(exact) => (exact * (1.0 - 1e-9)..=exact * most).contains(&value),
                Expected::Within(least, most) => (least..=most).contains(&value),
            };
            ensure!(fits, "{name} {labels:?}: {value}, not {expected:?}: {expression}");
        }
        Ok(())
    }

    fn dashboard(&self, query: &Query, instance: &str) -> Result<()> {
        ensure!(!query.expression.contains("$datasource"), "{}", query.name);
        let expression = filled(&query.expression, instance);
        ensure!(!expression.contains('$'), "{}: something is left of {expression}", query.name);
        self.compare(&query.name, &expression)?;
        if query.is_range {
            let (start, end) = ((self.at - 20.0).to_string(), self.at.to_string());
            let parameters = [("query", &*expression), ("start", &start), ("end", &end), ("step", "5")];
            let drawn = self.prometheus.get("/api/v1/query_range", &parameters)?;
            ensure!(
                drawn["result"].as_array().is_some_and(|series| !series.is_empty()),
                "{}: {drawn}",
                query.name
            );
        }
        Ok(())
    }

    /// What the variables of the dashboards offer.
    fn variables(&self) -> Result<()> {
        for (name, dashboard) in dashboards::all()? {
            for variable in dashboard["templating"]["list"].as_array().into_iter().flatten().skip(1) {
                let query = filled(variable["query"]["query"].as_str().context("a query")?, ".*");
                let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')'));
                let (series, label) =
                    inner.and_then(|inner| inner.rsplit_once(", ")).context("label_values")?;
                let path = format!("/api/v1/label/{label}/values");
                let found: Vec<String> =
                    serde_json::from_value(self.prometheus.get(&path, &[("match[]", series)])?)?;
                let expected: &[&str] = match label {
                    "instance" => &NODES,
                    "container" => &["101", "102"],
                    "class" => &["0", "1", "2", "3"],
                    other => bail!("{name} asks for {other}"),
                };
                ensure!(found == expected, "{name}: {query} gives {found:?}, not {expected:?}");
            }
        }
        Ok(())
    }

    /// The recorded sums, and that every alert could be evaluated and none fires without a reason.
    fn rules(&self) -> Result<()> {
        let groups = self.prometheus.get("/api/v1/rules", &[])?;
        let mut seen = 0;
        for rule in
            groups["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array())
        {
            for rule in rule {
                seen += 1;
                let name = rule["name"].as_str().context("a name")?;
                ensure!(rule["health"] == "ok", "{name}: {rule}");
                match rule["type"].as_str() {
                    Some("recording") => self.compare(&format!("rules: {name}"), name)?,
                    _ => ensure!(rule["state"] == "inactive", "{name}: {rule}"),
                }
            }
        }
        ensure!(seen == 33, "{seen} rules instead of 10 sums and 23 alerts");
        Ok(())
    }
}

/// The sums over both families, by container and class.
fn amounts(counters: &Counters, container: &str, class: u8) -> Amounts {
    ["ipv4", "ipv6"]
        .map(|family| counters.class_or_zero(container, class, family))
        .into_iter()
        .fold(Amounts::default(), Amounts::plus)
}

/// What one fault of an interface gained.
fn not_ip_since(before: &Counters, row: &FaultRow) -> Amounts {
    let earlier = before.faults.iter().find(|one| one.interface == row.interface && one.fault == row.fault);
    row.amounts.since(earlier.map_or(Amounts::default(), |one| one.amounts))
}

fn tables(status: &Value) -> Result<impl Iterator<Item = (String, (f64, f64))>> {
    let tables = status["tables"].as_array().context("tables")?.clone();
    Ok(tables.into_iter().filter_map(|table| {
        let number = |field: &str| table[field].as_f64();
        let used = number("used")? - number("gone")?;
        Some((table["table"].as_str()?.to_owned(), (used, number("capacity")?)))
    }))
}

#[test]
fn every_query_and_rule_gives_what_dump_shows() -> Result<()> {
    let lab = Lab::new("dashboards")?;
    let classes = lab.write("classes", CLASSES)?;
    lab.configure(&format!(
        "class_file = {classes:?}\n[classes.names]\n2 = \"exchange\"\n[api]\nlisten = \"{}\"\n\
         [drain]\ninterval = \"1s\"\n",
        NODES[0]
    ))?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let mut daemon = lab.trafctl(&["run"])?;
    let daemon = Process::spawn(daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    eventually("the daemon counts", || Ok(lab.run_ok(&["status"]).is_ok()))?;
    // The first fault counter of an interface appears with its first fault.
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    frame.resize(60, 0);
    send_raw(a.namespace(), "eth0", &frame)?;
    let before = Counters::at_rest(&lab)?;

    let prometheus = Prometheus::start(&lab, &configuration()?)?;
    let scraped = |least: f64| -> Result<bool> {
        let counted = prometheus.value("min(count_over_time(trafctl_table_used[5m]))")?;
        Ok(counted.is_some_and(|counted| counted >= least))
    };
    eventually("some samples before the traffic", || scraped(3.0))?;
    // Every sum is at least a third larger than the next one.
    udp_send(a.namespace(), b.namespace(), (b.v4(), 0).into(), 1500, 900)?;
    udp_send(b.namespace(), a.namespace(), (a.v4(), 0).into(), 400, 1100)?;
    udp_send(a.namespace(), b.namespace(), (b.v6(), 0).into(), 700, 300)?;
    udp_send(b.namespace(), a.namespace(), (a.v6(), 0).into(), 3100, 1200)?;
    for _ in 0..FRAMES {
        send_raw(a.namespace(), "eth0", &frame)?;
    }
    let after = Counters::at_rest(&lab)?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !scraped(SAMPLES)? {
        ensure!(std::time::Instant::now() < deadline, "Prometheus scrapes too slowly");
        std::thread::sleep(std::time::Duration::from_millis(300));
    }

    let gained = ["101", "102"].into_iter().flat_map(|container| {
        let [before, after] = [&before, &after].map(|at| move |class| amounts(at, container, class));
        [1, 2, 3].map(|class| ((container.to_owned(), class), after(class).since(before(class))))
    });
    let status: Value = lab.run_json(&["status", "--format", "json"])?;
    let truth = Truth {
        gained: gained.collect(),
        not_ip: after.faults.iter().map(|row| (row.interface.clone(), not_ip_since(&before, row))).collect(),
        tables: tables(&status)?.collect(),
        prefixes: 4.0,
        hash: after.class_table.hash.clone(),
        nodes: 2.0,
        window: 300.0,
    };
    let sent = truth.not_ip.get("veth101.0").context("faults of its interface")?;
    ensure!(sent.out_packets >= FRAMES && sent.out_bytes >= FRAMES * BEHIND_ETHERNET, "{truth:?}");
    ensure!(truth.gained.values().any(|amounts| amounts.in_bytes > 3100 * 1200), "{truth:?}");
    let at = prometheus.value("vector(time())")?.context("the time")?;
    let samples = prometheus.value("max(count_over_time(trafctl_table_used[5m]))")?.context("samples")?;
    let mut node = Node { lab: &lab, prometheus: &prometheus, truth, at, samples };
    for (instance, nodes) in [(".*", 2.0), (NODES[0], 1.0)] {
        node.truth.nodes = nodes;
        for (name, dashboard) in dashboards::all()? {
            for query in dashboards::queries(name, &dashboard)? {
                node.dashboard(&query, instance)?;
            }
        }
    }
    node.variables()?;
    node.rules()?;
    names_change(&mut node, &daemon)?;
    ensure!(daemon.terminate(std::time::Duration::from_secs(10))?.success());
    Ok(())
}

/// While a class gets another name, and where nodes name it differently, queries must not fail: two names of one
/// class would be two partners of each series.
fn names_change(node: &mut Node<'_>, daemon: &Process) -> Result<()> {
    let configuration = fs::read_to_string(node.lab.config())?;
    node.lab.configure(&configuration.replace("\"exchange\"", "\"IX\"\n3 = \"v6 <&>\""))?;
    daemon.signal(rustix::process::Signal::HUP)?;
    eventually("the new names", || {
        let named = node.prometheus.query("trafctl_class_info", None)?;
        Ok(named.iter().any(|(labels, _): &(Labels, f64)| labels["name"] == "IX"))
    })?;
    for (name, dashboard) in dashboards::all()? {
        for query in dashboards::queries(name, &dashboard)? {
            // The window has both names.
            let expression = filled(&query.expression, ".*");
            let end = node.prometheus.value("vector(time())")?.context("the time")?.to_string();
            let parameters =
                [("query", &*expression), ("start", &node.at.to_string()), ("end", &end), ("step", "1")];
            let drawn = node
                .prometheus
                .get("/api/v1/query_range", &parameters)
                .with_context(|| query.name.clone())?;
            ensure!(drawn["result"].as_array().is_some_and(|series| !series.is_empty()), "{}", query.name);
        }
    }
    Ok(())
}
