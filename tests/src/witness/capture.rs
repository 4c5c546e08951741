//! Captures packets with tcpdump, and reads the capture file.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::namespace::Namespace;
use crate::process::Process;

/// The limit for tcpdump to start and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A packet of a capture. With offloads on it is a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedPacket {
    /// Its original length in bytes.
    pub original_bytes: usize,
    /// The captured bytes, from the link header on.
    pub data: Vec<u8>,
}

/// A running tcpdump. A drop without [`Capture::stop`] kills it.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    messages: mpsc::Receiver<String>,
    file: PathBuf,
}

impl Capture {
    /// Starts tcpdump on an interface with a file as output. Returns when it listens. The filter is in
    /// tcpdump's language and may be empty.
    ///
    /// # Errors
    ///
    /// When tcpdump does not start; the error contains its output.
    pub fn start(namespace: &Namespace, interface: &str, file: &Path, filter: &str) -> Result<Self> {
        let mut command = namespace.command("tcpdump");
        // Stays root, because the file is in a directory that no other user may enter. A large buffer, and a
        // write after each packet, so that the file is complete when the traffic has ended.
        command.args(["-Z", "root", "-n", "-U", "--immediate-mode", "-B", "32768", "-i", interface, "-w"]);
        command.arg(file).args(filter.split_whitespace());
        let mut tcpdump = Process::spawn(command.stdin(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = tcpdump.child().stderr.take().context("cannot take the stderr of tcpdump")?;
        let messages = lines(stderr);
        let mut output = String::new();
        while let Ok(line) = messages.recv_timeout(PATIENCE) {
            if line.contains("listening on") {
                return Ok(Self { tcpdump, messages, file: file.to_owned() });
            }
            output += &line;
            output.push('\n');
        }
        bail!("tcpdump does not listen on {interface}: {output}")
    }

    /// The process id of tcpdump.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.tcpdump.id()
    }

    /// Stops the capture when the file has stopped growing, and reads it.
    ///
    /// # Errors
    ///
    /// When tcpdump fails or has lost packets.
    pub fn stop(mut self) -> Result<Vec<CapturedPacket>> {
        let mut size = None;
        loop {
            // tcpdump discards what it has not yet read when it is stopped.
            let now = fs::metadata(&self.file).context("cannot stat the capture")?.len();
            if size.replace(now) == Some(now) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.tcpdump.signal(Signal::INT)?;
        let status = self.tcpdump.wait(PATIENCE)?;
        let output: Vec<String> = self.messages.iter().collect();
        ensure!(status.success(), "tcpdump ended with {status}: {}", output.join("\n"));
        if let Some(lost) = output.iter().find(|line| line.contains("dropped by kernel")) {
            ensure!(lost.starts_with("0 "), "tcpdump: {lost}");
        }
        read_pcap(&self.file)
    }
}

/// Reads lines on a thread, so that a wait for one can have a limit.
fn lines(stderr: ChildStderr) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads a capture file in the classic format with this machine's byte order, as tcpdump writes it.
///
/// # Errors
///
/// When it has another format or is truncated.
pub fn read_pcap(path: &Path) -> Result<Vec<CapturedPacket>> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    let word = |offset: usize| {
        let word = bytes.get(offset..offset + 4).and_then(|word| <[u8; 4]>::try_from(word).ok());
        word.map(u32::from_ne_bytes).with_context(|| format!("{} ends too early", path.display()))
    };
    // Microseconds or nanoseconds.
    ensure!([0xa1b2_c3d4, 0xa1b2_3c4d].contains(&word(0)?), "{} is not a capture file", path.display());
    let mut packets = Vec::new();
    let mut offset = 24;
    while offset < bytes.len() {
        // Two words of time, then the captured and the original length.
        let (kept, original) = (word(offset + 8)? as usize, word(offset + 12)? as usize);
        offset += 16;
        let data = bytes.get(offset..offset + kept).context("a capture is truncated in a packet")?;
        packets.push(CapturedPacket { original_bytes: original, data: data.to_vec() });
        offset += kept;
    }
    Ok(packets)
}
