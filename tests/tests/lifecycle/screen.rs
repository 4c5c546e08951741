//! The live screen of `top` and `dump --watch` on a terminal of its own (`script` makes it), read by a terminal
//! emulator that is not ours.

use std::io::{Read, Write};
use std::process::{ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use traffic_tests::check::eventually;
use traffic_tests::container::introduce;
use traffic_tests::lab::trafctl_program;
use traffic_tests::process::Process;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Counters, Lab};

use crate::node::{PATIENCE, at, is_well, node, pair};

/// A command on a terminal.
struct Terminal {
    script: Process,
    keys: ChildStdin,
    output: Arc<Mutex<(vt100::Parser, Vec<u8>)>>,
    directory: std::path::PathBuf,
}

impl Terminal {
    /// Runs `trafctl` on a terminal of this size. The shell around it says how it ended.
    fn start(lab: &Lab, (rows, columns): (u16, u16), environment: &str, arguments: &str) -> Result<Self> {
        let directory = lab.path("terminal");
        fs::create_dir_all(&directory)?;
        let (program, place) = (trafctl_program()?, directory.display());
        let (state, config) = (lab.state_dir(), lab.config());
        let (bpffs, state, config) = (lab.bpffs().display(), state.display(), config.display());
        // The inner shell becomes the program, whose number it leaves; the outer one lives on.
        let command = format!(
            "stty rows {rows} cols {columns}; stty -g >{place}/before; tty >{place}/tty; \
             set -m; (echo $BASHPID >{place}/pid; exec env TERM=xterm-256color {environment} {program} --bpffs \
             {bpffs} --state-dir {state} --config {config} {arguments}); status=$?; \
             while [ $status = 148 ] || [ $status = 147 ]; do read -r; fg >/dev/null; status=$?; done; \
             echo \"ended with $status\"; stty -g >{place}/after",
            program = program.display()
        );
        let mut command_line = lab.host().command("script");
        command_line.args(["-qfec", &command, "/dev/null"]).env("SHELL", "/bin/bash");
        command_line.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = Process::spawn(&mut command_line)?;
        let keys = script.child().stdin.take().context("its standard input")?;
        let mut shown = script.child().stdout.take().context("its standard output")?;
        let output = Arc::new(Mutex::new((vt100::Parser::new(rows, columns, 0), Vec::new())));
        let sink = Arc::clone(&output);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = shown.read(&mut bytes) {
                if let Ok(mut sink) = sink.lock() {
                    sink.0.process(&bytes[..count]);
                    sink.1.extend_from_slice(&bytes[..count]);
                }
            }
        });
        Ok(Self { script, keys, output, directory })
    }

    fn text(&self) -> String {
        self.output.lock().map(|output| output.0.screen().contents()).unwrap_or_default()
    }

    fn is_alternate(&self) -> bool {
        self.output.lock().is_ok_and(|output| output.0.screen().alternate_screen())
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes())?;
        Ok(self.keys.flush()?)
    }

    /// Waits until a text is on the screen.
    fn shows(&self, text: &str) -> Result<()> {
        eventually(&format!("{text:?} is on the screen"), || Ok(self.text().contains(text)))
            .with_context(|| self.text())
    }

    fn left(&self, file: &str) -> Result<String> {
        Ok(fs::read_to_string(self.directory.join(file))?.trim().to_owned())
    }

    /// Changes the size as a terminal does: first its own, then the kernel's, of which the program is told.
    fn resize(&self, (rows, columns): (u16, u16)) -> Result<()> {
        let tty = fs::File::options().read(true).write(true).open(self.left("tty")?)?;
        let mut output = self.output.lock().map_err(|_| anyhow::anyhow!("the reader failed"))?;
        output.0.screen_mut().set_size(rows, columns);
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(tty, size)?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.left("pid")?.parse()?).context("a process")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Waits for the end. The terminal must be as it was, with the cursor shown.
    fn ended(mut self, how: &str) -> Result<()> {
        self.shows(how)?;
        self.script.wait(PATIENCE)?;
        ensure!(!self.is_alternate(), "the alternate screen was left");
        let is_hidden = self.output.lock().is_ok_and(|output| output.0.screen().hide_cursor());
        ensure!(!is_hidden, "the cursor is shown again");
        ensure!(
            self.left("before")? == self.left("after")?,
            "{} {}",
            self.left("before")?,
            self.left("after")?
        );
        Ok(())
    }
}

/// Two containers with traffic, and their counters.
fn with_traffic(name: &str) -> Result<(Lab, Value)> {
    let lab = node(name)?;
    let (a, b) = pair(&lab)?;
    introduce(&[&a, &b])?;
    lab.run_ok(&["attach"])?;
    udp_send(a.namespace(), b.namespace(), at(b.v4()), 700, 400)?;
    Counters::at_rest(&lab)?;
    let dump = lab.run_json(&["dump", "--format", "json"])?;
    Ok((lab, dump))
}

#[test]
fn a_watching_dump_shows_the_exact_figures_and_survives_a_purge() -> Result<()> {
    let (lab, dump) = with_traffic("screen-dump")?;
    let classes = lab.path("classes");
    lab.configure(&format!("class_file = {classes:?}\n[[container]]\nid = '101'\nname = 'shop of Meier'\n"))?;
    let mut terminal = Terminal::start(&lab, (24, 100), "", "dump --watch=0.2")?;
    terminal.shows("layer-3 bytes")?;
    ensure!(terminal.is_alternate());
    terminal.shows("shop of Meier")?;
    for row in dump["counters"].as_array().context("counters")? {
        let id = row["container"].as_str().context("an id")?;
        let figures =
            ["in_bytes", "in_packets", "out_bytes", "out_packets"].map(|name| row[name].to_string());
        let text = terminal.text();
        let line = text.lines().find(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&id) && figures.iter().all(|figure| words.contains(&figure.as_str()))
        });
        ensure!(line.is_some(), "{row}: {text}");
    }
    lab.run_ok(&["detach", "--purge", "--yes"])?;
    terminal.shows("no newer reading: ")?;
    lab.run_ok(&["attach"])?;
    eventually("the new counters are read", || Ok(!terminal.text().contains("no newer reading")))?;
    terminal.press("q")?;
    terminal.ended("ended with 0")
}

#[test]
fn a_reader_that_leaves_ends_what_is_printed_again_and_again() -> Result<()> {
    let (lab, _) = with_traffic("screen-pipe")?;
    for arguments in [&["top", "--interval", "100ms"][..], &["dump", "--watch=100ms", "--format", "json"]] {
        let mut child = Process::spawn(lab.trafctl(arguments)?.stdout(Stdio::piped()))?;
        drop(child.child().stdout.take());
        let status = child.wait(PATIENCE)?;
        ensure!(status.success(), "{arguments:?}: {status}");
    }
    Ok(())
}

#[test]
fn top_takes_keys_and_follows_the_size() -> Result<()> {
    let (lab, _) = with_traffic("screen-top")?;
    let mut terminal = Terminal::start(&lab, (24, 80), "NO_COLOR=1", "top --interval 0.2")?;
    terminal.shows("q quit")?;
    terminal.press("?")?;
    terminal.shows("sort by total")?;
    // Any key leaves the help; Ctrl-L draws everything anew.
    terminal.press("x\x0c/we")?;
    terminal.shows("/we_")?;
    // Escape alone is known after a moment, as keys begin with it too.
    terminal.press("\r")?;
    terminal.shows("only \"we\"")?;
    terminal.resize((10, 50))?;
    eventually("the screen has the new size", || {
        let text = terminal.text();
        Ok(text.lines().count() == 10 && text.lines().last().is_some_and(|line| line.contains("q quit")))
    })
    .with_context(|| terminal.text())?;
    // `NO_COLOR`: no sequence sets a colour.
    let written = terminal.output.lock().map(|output| output.1.clone()).unwrap_or_default();
    let written = String::from_utf8_lossy(&written).into_owned();
    ensure!(!written.contains("[36m") && !written.contains("38;5;6m"), "{written:?}");
    terminal.press("\x03")?;
    terminal.ended("ended with 0")?;
    is_well(&lab)
}

#[test]
fn a_resize_leaves_nothing_of_the_size_before() -> Result<()> {
    let (lab, _) = with_traffic("screen-resize")?;
    // Only one reading comes, so that nothing is drawn again but by the resize.
    let terminal = Terminal::start(&lab, (24, 100), "", "dump --watch=1h")?;
    terminal.shows("rates appear")?;
    let before = terminal.text();
    for sizes in
        [&[(10, 50), (24, 100)][..], &[(24, 60), (12, 100), (40, 160), (24, 100)], &[(3, 20), (24, 100)]]
    {
        for &size in sizes {
            terminal.resize(size)?;
        }
        eventually("the screen is as before", || Ok(terminal.text() == before))
            .with_context(|| format!("{sizes:?}\n{before}\n---\n{}", terminal.text()))?;
    }
    // Each size by itself: every line is drawn for it, and the last one is the last of the terminal.
    for (rows, columns) in [(10, 50), (24, 60), (40, 200), (6, 80), (24, 100)] {
        terminal.resize((rows, columns))?;
        eventually("the screen has the new size", || {
            let text = terminal.text();
            let lines: Vec<&str> = text.lines().collect();
            let is_last = lines.last().is_some_and(|line| line.contains("q quit"));
            let count =
                lines.iter().filter(|line| line.contains("q quit") || line.contains("CONTAINER")).count();
            Ok(lines.len() == usize::from(rows) && is_last && count == 2)
        })
        .with_context(|| terminal.text())?;
    }
    ensure!(terminal.text() == before, "{before}\n---\n{}", terminal.text());
    terminal.signal(Signal::TERM)?;
    terminal.ended("ended with 143")
}

#[test]
fn every_end_gives_the_terminal_back() -> Result<()> {
    let (lab, _) = with_traffic("screen-end")?;
    for (signal, how) in
        [(Signal::TERM, "ended with 143"), (Signal::HUP, "ended with 129"), (Signal::INT, "ended with 0")]
    {
        let terminal = Terminal::start(&lab, (24, 80), "", "top")?;
        terminal.shows("q quit")?;
        terminal.signal(signal)?;
        terminal.ended(how)?;
    }
    // Stopped, the terminal is the shell's, which continues it after a line; then it is ours again.
    let mut terminal = Terminal::start(&lab, (24, 80), "", "top")?;
    terminal.shows("q quit")?;
    terminal.signal(Signal::TSTP)?;
    eventually("the terminal is given back", || Ok(!terminal.is_alternate()))?;
    // Until it is stopped, it reads the keys.
    let stat = format!("/proc/{}/stat", terminal.left("pid")?);
    eventually("it is stopped", || Ok(fs::read_to_string(&stat)?.contains(") T ")))?;
    terminal.press("\n")?;
    eventually("the screen is back", || Ok(terminal.is_alternate() && terminal.text().contains("q quit")))?;
    // Nothing can be done before SIGSTOP, and its shell sets up the terminal for itself.
    terminal.signal(Signal::STOP)?;
    eventually("it is stopped", || Ok(fs::read_to_string(&stat)?.contains(") T ")))?;
    terminal.press("\n")?;
    eventually("keys are read again", || {
        terminal.press("?")?;
        Ok(terminal.text().contains("any key: back"))
    })?;
    terminal.press("xq")?;
    terminal.ended("ended with 0")
}
