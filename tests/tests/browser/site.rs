//! A node with traffic, history and a page, and what the tests read from the page.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::Value;
use traffic_tests::browser::Browser;
use traffic_tests::check::eventually;
use traffic_tests::container::introduce;
use traffic_tests::process::{Process, run_ok};
use traffic_tests::traffic::udp_send;
use traffic_tests::{Container, Lab};

/// The address of the page in the node's namespace.
pub const PAGE: &str = "http://127.0.0.1:9177/";
const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.0/16 # the bridge\n2 fd00:1::/32\n";

/// A node with two containers.
pub struct Site {
    pub lab: Lab,
    pub a: Container,
    pub b: Container,
}

impl Site {
    /// Creates it. `api` are more lines of the configuration's `[api]`.
    pub fn new(name: &str, api: &str) -> Result<Self> {
        Self::configured(name, "", api)
    }

    /// The same as a node of another name than its host.
    pub fn named(name: &str, node: &str) -> Result<Self> {
        Self::configured(name, &format!("node = {node:?}\n"), "")
    }

    fn configured(name: &str, first: &str, api: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let classes = lab.write("networks_classes", CLASSES)?;
        lab.configure(&format!(
            "{first}class_file = {classes:?}\n[classes.names]\n1 = \"world\"\n2 = \"UA-IX <b>\"\n\
             [api]\nlisten = \"127.0.0.1:9177\"\n{api}\n[drain]\ninterval = \"250ms\"\n"
        ))?;
        let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
        let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
        introduce(&[&a, &b])?;
        Ok(Self { lab, a, b })
    }

    /// Starts `trafctl run` and waits until it answers.
    pub fn start(&self) -> Result<Process> {
        let mut command = self.lab.trafctl(&["run"])?;
        let daemon =
            Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
        eventually("the API", || Ok(self.curl(&format!("{PAGE}index.html")).is_ok()))?;
        Ok(daemon)
    }

    /// What curl gets in the node's namespace.
    pub fn curl(&self, url: &str) -> Result<String> {
        run_ok(self.lab.host().command("curl").args(["--silent", "--show-error", "--fail", url]))
    }

    /// Sends datagrams from each container to the other.
    pub fn send(&self, count: u64) -> Result<()> {
        udp_send(self.a.namespace(), self.b.namespace(), (self.b.v4(), 0).into(), count, 900)?;
        udp_send(self.b.namespace(), self.a.namespace(), (self.a.v6(), 0).into(), count, 300)?;
        Ok(())
    }

    /// A document of a command.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        self.lab.run_json(&[arguments, &["--format", "json"]].concat())
    }

    /// Waits until the ledger has all traffic of both containers, and nothing more comes.
    pub fn settled(&self) -> Result<()> {
        let mut last = Value::Null;
        eventually("a ledger at rest", || {
            std::thread::sleep(Duration::from_millis(600));
            let Ok(report) = self.json(&["report"]) else { return Ok(false) };
            let total = report["total"].clone();
            let is_same = total == last && total["total"]["bytes"].as_u64().is_some_and(|bytes| bytes > 0);
            last = total;
            Ok(is_same)
        })
    }

    /// Imports history of containers, as `(id, seconds before now, bytes)` sent in one minute each.
    pub fn import(&self, samples: &[(String, u64, u64)]) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut sql = "BEGIN; CREATE TABLE log_def (id, eid, lclass, instance, counter);
            CREATE TABLE log_data (id, startTime, avg);"
            .to_owned();
        let mut ids: Vec<&str> = samples.iter().map(|(id, ..)| id.as_str()).collect();
        ids.dedup();
        for (at, id) in ids.iter().enumerate() {
            write!(
                sql,
                "INSERT INTO log_def VALUES ({at}, '{id}', 'counters_vz_net', '', 'counter_net_outgoing_bytes');"
            )?;
        }
        for (id, before, bytes) in samples {
            let at = ids.iter().position(|other| other == id).context("its counter")?;
            write!(sql, "INSERT INTO log_data VALUES ({at}, {}, {bytes});", now - before)?;
        }
        sql += "COMMIT;";
        let file = self.lab.write("pva.sql", &sql)?;
        let database = self.lab.path("pva.db");
        run_ok(Command::new("sqlite3").arg(&database).arg(format!(".read {}", file.display())))?;
        let database = database.to_str().context("a path")?;
        self.lab.run_ok(&["ledger", "import-pva", database, "--class", "1", "--yes"])?;
        Ok(())
    }
}

/// The rows of the table with a caption: what each cell shows, or its exact value where it has one.
pub fn rows(browser: &Browser<'_>, caption: &str) -> Result<Vec<Vec<String>>> {
    let script = format!(
        "const table = [...document.querySelectorAll('table')].find((one) => one.caption?.textContent === {caption:?});
        return table && [...table.tBodies[0].rows].map((row) => [...row.cells].map(
            (cell) => cell.querySelector('data')?.value ?? cell.textContent));"
    );
    let found = browser.run(&script)?;
    serde_json::from_value(found.clone()).with_context(|| format!("the table {caption:?} is {found}"))
}

/// Runs an expression in the page, with what a module of the page exports.
pub fn with_module(browser: &Browser<'_>, module: &str, expression: &str) -> Result<Value> {
    browser.run(&format!("return import(new URL({module:?}, location.href)).then((all) => {expression})"))
}

/// Opens a page by its fragment, and waits until it has what it shows.
pub fn open(browser: &Browser<'_>, fragment: &str, heading: &str) -> Result<()> {
    browser.open("about:blank")?;
    browser.open(&format!("{PAGE}{fragment}"))?;
    browser.wait(&format!("document.title.startsWith({heading:?})"))?;
    browser.wait("!document.querySelector('main').innerText.includes('Loading')")
}

/// The bytes of a document's figure, as the page has them.
pub fn bytes(value: &Value, path: &str) -> Result<String> {
    let number = value.pointer(path).and_then(Value::as_u64);
    Ok(number.with_context(|| format!("{path} in {value:#}"))?.to_string())
}
