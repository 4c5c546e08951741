//! A real browser that a test drives: headless Chromium in a namespace, by chromedriver.
//!
//! It has no network but the namespace's, so nothing it asks for leaves the test. [`Browser::requests`] has every
//! address that it asked for, and [`Browser::console`] every message of a page.

mod driver;

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Namespace;
use driver::Driver;

/// The limit of every wait for a page.
const PATIENCE: Duration = Duration::from_secs(30);

/// The rules for accessible pages, as their authors publish them.
const AXE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vendor/axe/axe.min.js");

/// What keeps Chromium from asking for hosts of its own, and from needing a display or a sandbox.
const ARGUMENTS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

/// A browser with one tab.
#[derive(Debug)]
pub struct Browser<'n> {
    namespace: &'n Namespace,
    driver: Option<Driver>,
    session: String,
    _profile: TempDir,
}

impl<'n> Browser<'n> {
    /// Starts a browser.
    ///
    /// # Errors
    ///
    /// When chromedriver or Chromium is not installed or does not start.
    pub fn start(namespace: &'n Namespace) -> Result<Self> {
        let profile = tempfile::Builder::new().prefix("trafctl-browser-").tempdir()?;
        let driver = Driver::start(namespace)?;
        let mut arguments: Vec<String> = ARGUMENTS.iter().map(ToString::to_string).collect();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": arguments},
        }}});
        let session = driver.command(namespace, ("POST", "/session"), &wanted)?;
        let session = session["sessionId"].as_str().context("a session without an id")?;
        let session = format!("/session/{session}");
        Ok(Self { namespace, driver: Some(driver), session, _profile: profile })
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let driver = self.driver.as_ref().context("the browser has ended")?;
        driver.command(self.namespace, (method, &format!("{}{path}", self.session)), body)
    }

    /// Opens an address and waits until its page is loaded.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(&self, url: &str) -> Result<()> {
        self.command("POST", "/url", &json!({"url": url})).map(drop)
    }

    /// Runs the body of a function in the page, and returns what it returns.
    ///
    /// # Errors
    ///
    /// When it throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.command("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text that an expression gives.
    ///
    /// # Errors
    ///
    /// When it throws, or gives something else.
    pub fn text(&self, expression: &str) -> Result<String> {
        let value = self.run(&format!("return {expression}"))?;
        value.as_str().map(str::to_owned).with_context(|| format!("{expression} is {value}"))
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    ///
    /// When it is not in time; the error has the text of the page and its console.
    pub fn wait(&self, expression: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.run(&format!("return Boolean({expression})"));
            if matches!(value, Ok(Value::Bool(true))) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let page = self.text("document.body.innerText").unwrap_or_default();
                let console = self.console().unwrap_or_default();
                bail!("not so: {expression} ({value:?})\n{console:#?}\n{page}");
            }
            thread::sleep(Duration::from_millis(30));
        }
    }

    /// A command of the DevTools protocol.
    ///
    /// # Errors
    ///
    /// When the browser refuses it.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.command("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// The size of the page's area, in CSS pixels.
    ///
    /// # Errors
    ///
    /// See [`Browser::devtools`].
    pub fn size(&self, width: u32, height: u32) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size).map(drop)
    }

    /// `light` or `dark`.
    ///
    /// # Errors
    ///
    /// See [`Browser::devtools`].
    pub fn theme(&self, name: &str) -> Result<()> {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": name}]});
        self.devtools("Emulation.setEmulatedMedia", &features).map(drop)
    }

    /// Presses a key, in WebDriver's notation (`"\u{e004}"` is the tabulator).
    ///
    /// # Errors
    ///
    /// When the browser refuses it.
    pub fn press(&self, key: &str) -> Result<()> {
        let keys = [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]});
        self.command("POST", "/actions", &actions).map(drop)
    }

    fn log(&self, kind: &str) -> Result<Vec<Value>> {
        let entries = self.command("POST", "/se/log", &json!({"type": kind}))?;
        entries.as_array().cloned().context("a log that is no list")
    }

    /// The console's messages since the last call.
    ///
    /// # Errors
    ///
    /// When the browser does not answer.
    pub fn console(&self) -> Result<Vec<String>> {
        let entries = self.log("browser")?;
        Ok(entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// The addresses that pages asked for since the last call.
    ///
    /// # Errors
    ///
    /// When the browser does not answer.
    pub fn requests(&self) -> Result<Vec<String>> {
        let mut addresses = Vec::new();
        for entry in self.log("performance")? {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap_or("null"))?;
            let event = &message["message"];
            if event["method"] == "Network.requestWillBeSent" {
                let url = event["params"]["request"]["url"].as_str().context("a request without a URL")?;
                addresses.push(url.to_owned());
            }
        }
        Ok(addresses)
    }

    /// Checks that nothing was written to the console, and nothing asked for outside `base`.
    ///
    /// # Errors
    ///
    /// When something was.
    pub fn is_quiet(&self, base: &str) -> Result<()> {
        self.only_asked(base)?;
        let console = self.console()?;
        ensure!(console.is_empty(), "messages on the console: {console:#?}");
        Ok(())
    }

    /// The same, where the browser itself is expected to report a kind of failure. Returns what was asked for.
    ///
    /// # Errors
    ///
    /// When something else was written, or another host was asked.
    pub fn is_quiet_but_for(&self, base: &str, expected: &str) -> Result<Vec<String>> {
        let requests = self.only_asked(base)?;
        let console = self.console()?;
        ensure!(console.iter().all(|message| message.contains(expected)), "{console:#?}");
        Ok(requests)
    }

    fn only_asked(&self, base: &str) -> Result<Vec<String>> {
        let requests = self.requests()?;
        // Chromium's own pages (`chrome:`) and what is in memory (`data:`, `blob:`) ask no host.
        let asks_a_host = |url: &&String| ["http", "ws", "ftp"].iter().any(|scheme| url.starts_with(scheme));
        let is_other = |url: &&String| asks_a_host(url) && !without_password(url).starts_with(base);
        let others: Vec<_> = requests.iter().filter(is_other).collect();
        ensure!(others.is_empty(), "requests to others: {others:#?}");
        Ok(requests)
    }

    /// Checks the page as it is now against the rules for accessible pages.
    ///
    /// # Errors
    ///
    /// When a rule is broken; the error has each rule and its elements.
    pub fn is_accessible(&self) -> Result<()> {
        if self.run("return typeof axe")? == "undefined" {
            self.run(&fs::read_to_string(AXE)?)?;
        }
        // A colour that is still changing is neither the old nor the new one.
        let script = "const done = arguments[arguments.length - 1];
            Promise.allSettled(document.getAnimations().map((one) => one.finished)).then(() => axe.run()).then(
                (found) => done(found.violations.map((rule) => [rule.id, rule.help, ...rule.nodes.map(
                    (node) => `${node.html} ${node.failureSummary}`)])),
                (error) => done([String(error)]));";
        let found = self.command("POST", "/execute/async", &json!({"script": script, "args": []}))?;
        ensure!(found.as_array().is_some_and(Vec::is_empty), "{found:#}");
        Ok(())
    }

    /// Writes the whole page as a picture, for whoever wants to see what a test saw.
    ///
    /// # Errors
    ///
    /// When it cannot be drawn or written.
    pub fn picture(&self, file: &Path) -> Result<()> {
        let picture = self.devtools("Page.captureScreenshot", &json!({"captureBeyondViewport": true}))?;
        let bytes = decode(picture["data"].as_str().context("no picture")?).context("not base64")?;
        fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The page as it would be printed on A4, as PDF.
    ///
    /// # Errors
    ///
    /// When it cannot be printed.
    pub fn printed(&self) -> Result<Vec<u8>> {
        let paper = json!({"preferCSSPageSize": true, "paperWidth": 8.27, "paperHeight": 11.69});
        let printed = self.devtools("Page.printToPDF", &paper)?;
        decode(printed["data"].as_str().context("no document")?).context("not base64")
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        // The browser may be gone already. Without these two, Chromium would outlive a killed driver.
        let _ended = self.command("DELETE", "", &json!({}));
        let _stopped = self.driver.take().map(Driver::stop);
    }
}

/// An address without the name and password that may stand before its host.
fn without_password(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.find('/').unwrap_or(rest.len());
            let begin = rest[..host].find('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[begin..])
        }
        None => url.to_owned(),
    }
}

/// Base64, which the browser's answers have.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        Some(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        held = held << 6 | u32::from(digit(byte)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{decode, without_password};

    #[test]
    fn passwords_are_no_part_of_a_host() {
        assert_eq!(without_password("http://a:b@c/d@e"), "http://c/d@e");
        assert_eq!(without_password("http://c/d@e"), "http://c/d@e");
        assert_eq!(without_password("about:blank"), "about:blank");
    }

    #[test]
    fn base64_is_decoded() {
        assert_eq!(decode("AAEC/w=="), Some(vec![0, 1, 2, 255]));
        assert_eq!(decode("aGVsbG8="), Some(b"hello".to_vec()));
        assert_eq!(decode(""), Some(Vec::new()));
        assert_eq!(decode("a-b"), None);
    }
}
