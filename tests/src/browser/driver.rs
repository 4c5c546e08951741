//! The WebDriver protocol, as far as the tests need it: JSON over HTTP to a chromedriver in a namespace.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::Namespace;
use crate::process::Process;

/// The longest that one command may take: a page that loads, or a script.
const LIMIT: Duration = Duration::from_mins(1);

/// A chromedriver and its port in the namespace.
#[derive(Debug)]
pub struct Driver {
    process: Process,
    port: u16,
}

impl Driver {
    /// Starts a chromedriver on a port of its own choice.
    ///
    /// # Errors
    ///
    /// When it is not installed, or names no port.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let mut command = namespace.command("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process::spawn(&mut command)?;
        let mut lines = BufReader::new(process.child().stdout.take().context("its output")?).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| port_of(&line));
        let port = port.context("chromedriver names no port; `cargo xtask setup` installs it")?;
        // What it prints later must not fill the pipe.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(Self { process, port })
    }

    /// Sends a command and returns the value of its answer.
    ///
    /// # Errors
    ///
    /// When the driver does not answer, or answers with an error.
    pub fn command(
        &self,
        namespace: &Namespace,
        (method, path): (&str, &str),
        body: &Value,
    ) -> Result<Value> {
        let port = self.port;
        let mut stream = namespace.enter(move || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let body = body.to_string();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let answer = read_answer(&mut stream).with_context(|| format!("{method} {path}"))?;
        let mut answer: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        let value = answer["value"].take();
        if let Some(error) = value["error"].as_str() {
            bail!("{method} {path}: {error}: {}", value["message"].as_str().unwrap_or_default());
        }
        Ok(value)
    }

    /// Ends the driver, which ends its browser.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(self) -> Result<()> {
        self.process.terminate(Duration::from_secs(10)).map(drop)
    }
}

/// The port in `ChromeDriver was started successfully on port 34567.`
fn port_of(line: &str) -> Option<u16> {
    line.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()
}

/// The body of an answer, whose length is in its head: the driver keeps the connection open.
fn read_answer(stream: &mut TcpStream) -> Result<String> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(String::from_utf8(body)?)
}
