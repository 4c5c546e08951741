//! A real Prometheus in a node's namespace, and promtool.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Lab;
use crate::check::eventually;
use crate::process::Process;

/// The limit of a request.
const PATIENCE: Duration = Duration::from_secs(20);
const ADDRESS: &str = "127.0.0.1:9099";

/// Labels of a series, without its name.
pub type Labels = BTreeMap<String, String>;

/// The path of a program of the package `prometheus`: unpacked by `cargo xtask setup`, or installed.
fn program(name: &str) -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/promtool").join(name);
    if unpacked.is_file() { unpacked } else { name.into() }
}

/// Prometheus's own checker.
#[must_use]
pub fn promtool() -> Command {
    Command::new(program("promtool"))
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Prometheus<'l> {
    lab: &'l Lab,
    _process: Process,
}

impl<'l> Prometheus<'l> {
    /// Starts a server with the text of its configuration, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When there is no such program, or it refuses the configuration.
    pub fn start(lab: &'l Lab, configuration: &str) -> Result<Self> {
        let file = lab.write("prometheus.yml", configuration)?;
        let mut command = lab.host().command(program("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", lab.path("prometheus").display()))
            .arg(format!("--web.listen-address={ADDRESS}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process =
            Process::spawn(&mut command).context("prometheus is not there: run `cargo xtask setup`")?;
        let server = Self { lab, _process: process };
        eventually("Prometheus", || Ok(server.get("/api/v1/status/buildinfo", &[]).is_ok()))?;
        Ok(server)
    }

    /// The data of a document of its API.
    ///
    /// # Errors
    ///
    /// When it answers with an error, which is in the error.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let encode = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
        let query: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let query = query.join("&");
        let answer = self.lab.host().enter(|| -> Result<String> {
            let mut stream = TcpStream::connect(ADDRESS)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "GET {path}?{query} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        let (_, body) = answer.split_once("\r\n\r\n").with_context(|| answer.clone())?;
        let mut body: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
        ensure!(body["status"] == "success", "{body}");
        Ok(body["data"].take())
    }

    /// The series of an expression at a time (Unix seconds) or now, with their values.
    ///
    /// # Errors
    ///
    /// When Prometheus refuses the expression.
    pub fn query(&self, expression: &str, at: Option<f64>) -> Result<Vec<(Labels, f64)>> {
        let at = at.map(|at| at.to_string());
        let mut parameters = vec![("query", expression)];
        parameters.extend(at.as_deref().map(|at| ("time", at)));
        let data = self.get("/api/v1/query", &parameters)?;
        let result = data["result"].as_array().with_context(|| data.to_string())?;
        result
            .iter()
            .map(|series| {
                let mut labels: Labels = serde_json::from_value(series["metric"].clone())?;
                labels.remove("__name__");
                let value = series["value"][1].as_str().with_context(|| series.to_string())?;
                Ok((labels, value.parse()?))
            })
            .collect()
    }

    /// The value of an expression with one result; `None` while there is none.
    ///
    /// # Errors
    ///
    /// See [`Prometheus::query`].
    pub fn value(&self, expression: &str) -> Result<Option<f64>> {
        Ok(self.query(expression, None)?.first().map(|series| series.1))
    }
}
