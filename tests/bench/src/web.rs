//! Part 5: what a page waits for. A ledger of a year behind `trafctl web`, and `/metrics` of a node with 1,000
//! interfaces. Every request comes in every round, in an order that rotates, and the answer is read to its end.
//!
//! The ledger is that of `cargo xtask seed-ledger`, which takes long to make and stays. Its end may be ahead of the
//! clock, so spans are counted back from there.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Lab, Namespace,
    check::eventually,
    lab::trafctl_program,
    process::{Process, run_ok},
};

use crate::{progress::Progress, results::Results};

/// The name of the times.
pub const PART: &str = "web";
/// The name of the memory of the process.
pub const MEMORY: &str = "web, memory";
/// What is seen first: the page, its script and plots, and the document that it waits for.
pub const FIRST_VIEW: &str = "first view";
/// The metrics of a node with 1,000 interfaces.
pub const METRICS: &str = "/metrics, 1,000 interfaces";
/// The memory after some rounds of requests, and after all.
pub const WARM: &str = "after the first rounds";
/// See [`WARM`].
pub const LAST: &str = "at the end";
/// Memory without files.
pub const ANONYMOUS: &str = "anonymous memory";

const VARIANT: &str = "trafctl";
const INTERFACES: u32 = 1000;
const FIRST_CONTAINER: u32 = 1001;
/// Rounds of all requests for the memory. A page that is open for an hour asks once a minute.
const HOUR: usize = 60;

/// A request for a span of the ledger: its name, how far back it begins, and the document.
type Asked = (&'static str, &'static str, &'static str);

/// Spans that the page offers. `{}` is the end of the ledger, from which `from` is counted.
const SPANS: [Asked; 12] = [
    ("node, a day in five minutes", "1 day", "series?by=5min"),
    ("node, a week", "7 days", "series?"),
    ("node, a month", "1 month", "series?"),
    ("node, three months", "3 months", "series?"),
    ("node, ten months", "10 months", "series?"),
    ("node, a year by day", "1 year", "series?by=day"),
    ("a container, a day with percentile", "1 day", "series?container=1&percentile=95"),
    ("a container, a month with percentile", "1 month", "series?container=1&percentile=95"),
    ("a container, a year", "1 year", "series?container=1"),
    ("all containers, a day", "1 day", "top?count=1000"),
    ("all containers, a year", "1 year", "top?count=1000"),
    ("node, thirteen months as a table", "", "months?"),
];

/// The names of the requests whose time has a bar.
pub fn spans() -> impl Iterator<Item = &'static str> {
    SPANS.iter().map(|(name, ..)| *name)
}

/// Runs the measurement.
pub fn run(ledger: &Path, rounds: usize, results: &mut Results, progress: &Progress) -> Result<()> {
    pages(ledger, rounds, results, progress)?;
    metrics(rounds, results, progress)
}

/// A server in a namespace of its own.
struct Server<'a> {
    namespace: &'a Namespace,
    base: String,
    process: Process,
}

impl Server<'_> {
    /// The milliseconds from sending a request to the last byte of its answer.
    fn get(&self, path: &str) -> Result<f64> {
        let format = "%{http_code} %{size_download} %{time_total}";
        let mut curl = self.namespace.command("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", "--header", "Accept-Encoding: gzip"]);
        let text = run_ok(curl.args(["--output", "/dev/null", "--write-out", format]).arg(self.url(path)))?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let [status, size, seconds] = words[..] else { anyhow::bail!("curl printed {text:?}") };
        ensure!(status == "200" && size != "0", "{path}: status {status}, {size} bytes");
        Ok(seconds.parse::<f64>()? * 1000.0)
    }

    fn text(&self, path: &str) -> Result<String> {
        run_ok(
            self.namespace.command("curl").args(["--silent", "--show-error", "--fail"]).arg(self.url(path)),
        )
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Memory of the process that no file is behind, in MB.
    fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024.0 / 1e6)
    }
}

fn pages(ledger: &Path, rounds: usize, results: &mut Results, progress: &Progress) -> Result<()> {
    progress.note("web: opening the ledger");
    let namespace = Namespace::new("web")?;
    let mut command = namespace.command(trafctl_program()?);
    command.arg("web").arg(ledger).args(["--listen", "127.0.0.1:9177"]).stdout(Stdio::piped());
    let mut process = Process::spawn(&mut command)?;
    let stdout = process.child().stdout.take().context("its standard output")?;
    let mut base = String::new();
    BufReader::new(stdout).read_line(&mut base)?;
    ensure!(base.starts_with("http://"), "trafctl web printed {base:?} instead of its address");
    let server = Server { namespace: &namespace, base: base.trim().to_owned(), process };
    let end = end_of(&server)?;
    let paths = SPANS.map(|(name, back, document)| Ok((name, path(document, back, &end)?)));
    let paths = paths.into_iter().collect::<Result<Vec<_>>>()?;
    let view = ["", "style.css", "js/main.js", "vendor/uplot/uPlot.iife.min.js", "api/v1/overview"];

    for round in 0..rounds {
        progress.note(&format!("web: round {} of {rounds}", round + 1));
        let first = view.iter().map(|path| server.get(path)).sum::<Result<f64>>()?;
        results.push(PART, FIRST_VIEW, VARIANT, (first, "ms"));
        for at in 0..paths.len() {
            let (name, path) = &paths[(at + round) % paths.len()];
            results.push(PART, name, VARIANT, (server.get(path)?, "ms"));
        }
    }
    for at in 0..HOUR {
        progress.note(&format!("web: memory, {} of {HOUR}", at + 1));
        server.get("api/v1/overview")?;
        server.get(&paths[at % paths.len()].1)?;
        if at + 1 == HOUR / 3 {
            results.push(MEMORY, ANONYMOUS, WARM, (server.memory()?, "MB"));
        }
    }
    results.push(MEMORY, ANONYMOUS, LAST, (server.memory()?, "MB"));
    Ok(())
}

/// The end of the ledger.
fn end_of(server: &Server<'_>) -> Result<String> {
    let overview: serde_json::Value = serde_json::from_str(&server.text("api/v1/overview")?)?;
    Ok(overview["to"].as_str().context("the overview has no end; is the ledger empty?")?.to_owned())
}

/// The path of a document, with its span.
fn path(document: &str, back: &str, end: &str) -> Result<String> {
    if back.is_empty() {
        return Ok(format!("api/v1/{document}"));
    }
    let mut date = Command::new("date");
    let from = run_ok(date.args(["--utc", "+%FT%TZ", "--date", &format!("{end} {back} ago")]))?;
    Ok(format!("api/v1/{document}&from={}&to={end}", from.trim()))
}

fn metrics(rounds: usize, results: &mut Results, progress: &Progress) -> Result<()> {
    progress.note("web: creating 1,000 interfaces");
    let lab = Lab::new("metrics")?;
    let classes = lab.write("classes", "1 0.0.0.0/0\n1 ::/0\n2 198.51.100.0/24\n")?;
    lab.configure(&format!(
        "class_file = {classes:?}\n[limits]\ncontainers = 1024\ninterfaces = 1100\n[api]\nlisten = \"127.0.0.1:9177\"\n"
    ))?;
    let links: String = (FIRST_CONTAINER..FIRST_CONTAINER + INTERFACES)
        .map(|id| format!("link add veth{id}.0 type veth peer name guest{id}\n"))
        .collect();
    lab.host().ip_batch(&links)?;
    lab.run_ok(&["attach"])?;
    let mut command = lab.trafctl(&["run"])?;
    let process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let server = Server { namespace: lab.host(), base: "http://127.0.0.1:9177/".to_owned(), process };
    eventually("the daemon answers", || Ok(server.text("metrics").is_ok()))?;
    let series = server.text("metrics")?.lines().filter(|line| !line.starts_with('#')).count();
    ensure!(series > INTERFACES as usize, "only {series} lines of metrics");
    for round in 0..rounds {
        progress.note(&format!("web: metrics, round {} of {rounds}", round + 1));
        results.push(PART, METRICS, VARIANT, (server.get("metrics")?, "ms"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_ends_where_the_ledger_does() {
        let end = "2026-12-27T17:00:00Z";
        assert_eq!(
            path("series?by=5min", "1 day", end).unwrap(),
            "api/v1/series?by=5min&from=2026-12-26T17:00:00Z&to=2026-12-27T17:00:00Z"
        );
        assert_eq!(path("months?", "", end).unwrap(), "api/v1/months?");
    }
}
