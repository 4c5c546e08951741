//! The screen on a terminal whose other end the test holds: it must be given back at every end. The screen runs in
//! a process of its own, which is this test program with the test [`on_a_terminal`] alone.

use std::{
    env,
    fs::File,
    io::{ErrorKind, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{self, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags},
    process::{Pid, Signal},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Action, Winsize, tcflow, tcgetattr, tcsetwinsize},
    time::Timespec,
};
use traffic_model::{live_rates::Order, sample};

use super::*;
use crate::render::{
    ClassNames,
    dump::Filter,
    screen::{ContainerNames, Kind, Reading},
};

const ROLE: &str = "TRAFCTL_TEST_ROLE";
/// Only a broken screen takes that long.
const LONG: Duration = Duration::from_secs(60);
const ENTERED: &str = "\x1b[?1049h";
const LEFT: &str = "\x1b[?1049l";

/// The process on the terminal: what it does is its role.
#[test]
#[ignore = "the other tests run it on a terminal of its own"]
fn on_a_terminal() {
    let role = env::var(ROLE).unwrap();
    if role == "panics itself" {
        let _guard = Guard::enter().unwrap();
        panic!("planted");
    }
    let mut snapshot = sample::snapshot();
    let mut number = 0;
    let read = move || {
        number += 1;
        match role.as_str() {
            "has a reader that panics" if number == 3 => panic!("planted"),
            // The reading never comes.
            "rests" if number == 2 => loop {
                thread::park();
            },
            _ => {}
        }
        snapshot.boottime_ns += 1_000_000;
        for counter in &mut snapshot.counters {
            counter.tally.incoming.bytes = number * 1000;
        }
        let names = (ClassNames::new(), ContainerNames::new());
        Ok(Reading { snapshot: snapshot.clone(), classes: names.0, containers: names.1 })
    };
    let start = Start {
        kind: Kind::Totals,
        filter: Filter::default(),
        order: Order::Total,
        by_class: true,
        by_family: true,
        human: false,
        colours: false,
        ascii: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = runtime.block_on(run(start, Duration::from_millis(1), Box::new(read)));
    assert_eq!(done.unwrap(), Done::Success);
}

/// A terminal with the process on it.
struct Terminal {
    ours: File,
    theirs: OwnedFd,
    modes: String,
    process: process::Child,
    shown: String,
}

impl Terminal {
    fn start(role: &str, is_controlling: bool) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(name, flags, Mode::empty()).unwrap();
        tcsetwinsize(&theirs, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let modes = format!("{:?}", tcgetattr(&theirs).unwrap());
        let end = || theirs.try_clone().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "cli::screen::tests::on_a_terminal", "--ignored", "--nocapture"]);
        command.env(ROLE, role).stdin(end()).stdout(end()).stderr(end());
        // SAFETY: both are system calls, and nothing else is done between fork and exec.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                if is_controlling {
                    rustix::process::ioctl_tiocsctty(std::io::stdin().as_fd())?;
                }
                Ok(())
            });
        }
        let process = command.spawn().unwrap();
        drop(command);
        Self { ours: ours.into(), theirs, modes, process, shown: String::new() }
    }

    /// Reads until a text is there, or the end.
    fn read_until(&mut self, text: &str) {
        self.read_until_so(text, |shown| shown.contains(text));
    }

    /// Reads until something is so, or the end.
    fn read_until_so(&mut self, what: &str, is_so: impl Fn(&str) -> bool) {
        let end = Instant::now() + LONG;
        let mut bytes = [0; 4096];
        while !is_so(&self.shown) {
            assert!(Instant::now() < end, "no {what:?}: {:?}", self.shown);
            let wait = Timespec { tv_sec: 1, tv_nsec: 0 };
            if poll(&mut [PollFd::new(&self.ours, PollFlags::IN)], Some(&wait)).unwrap() == 0 {
                continue;
            }
            match self.ours.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => self.shown += &String::from_utf8_lossy(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The other end is closed, and everything is read.
                Err(_) => return,
            }
        }
    }

    /// Waits until the terminal takes no more.
    fn is_full(&self) {
        eventually("the terminal is full", || {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(&self.theirs, PollFlags::OUT)], Some(&now)).unwrap() == 0
        });
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for the end of the process without reading, and then reads what is left. The terminal must be as it was.
    fn ended(mut self) -> (ExitStatus, String) {
        let mut status = None;
        eventually("the process ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(format!("{:?}", tcgetattr(&self.theirs).unwrap()), self.modes);
        drop(std::mem::replace(&mut self.theirs, File::open("/dev/null").unwrap().into()));
        self.read_until("the end");
        (status.unwrap(), std::mem::take(&mut self.shown))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _ended = self.process.wait();
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_panic_gives_the_terminal_back_before_its_message() {
    for role in ["panics itself", "has a reader that panics"] {
        let mut terminal = Terminal::start(role, true);
        // The message of a panic in another thread is not the last.
        terminal.read_until("FAILED");
        let (status, shown) = terminal.ended();
        assert!(!status.success(), "{role}");
        let [entered, left, message] = [ENTERED, LEFT, "planted"].map(|text| shown.find(text).unwrap_or(0));
        assert!(0 < entered && entered < left && left < message, "{role}: {shown:?}");
        assert_eq!(shown.matches(ENTERED).count(), 1, "{role}: {shown:?}");
        // No frame on top of the message: frames move the cursor.
        assert!(!shown[left + LEFT.len()..].contains(";1H"), "{role}: {shown:?}");
    }
}

#[test]
fn a_terminal_that_takes_nothing_holds_up_no_signal() {
    for (signal, ends_by) in
        [(Signal::TERM, Some(libc::SIGTERM)), (Signal::HUP, Some(libc::SIGHUP)), (Signal::INT, None)]
    {
        for is_stopped in [false, true] {
            let mut terminal = Terminal::start("runs", true);
            terminal.read_until(ENTERED);
            if is_stopped {
                // As by Ctrl-S.
                tcflow(&terminal.theirs, Action::OOff).unwrap();
            }
            terminal.is_full();
            terminal.signal(signal);
            let (status, shown) = terminal.ended();
            assert_eq!(status.signal(), ends_by, "{status:?}");
            assert!(status.success() || ends_by.is_some(), "{status:?}");
            assert!(shown.contains(LEFT), "{shown:?}");
        }
    }
}

#[test]
fn a_slow_terminal_gets_the_newest_frame() {
    let mut terminal = Terminal::start("runs", true);
    terminal.read_until(ENTERED);
    terminal.is_full();
    terminal.shown.clear();
    // What is drawn now was not there when the terminal was full.
    rustix::io::write(&terminal.ours, b"?").unwrap();
    terminal.read_until("any key: back");
    rustix::io::write(&terminal.ours, b"xq").unwrap();
    terminal.read_until(LEFT);
    let (status, _) = terminal.ended();
    assert!(status.success());
}

#[test]
fn a_size_that_changes_and_returns_is_drawn_as_a_whole() {
    // What is cut off by a smaller size stays away when the terminal is large again. A program that only compares
    // sizes when it draws sees no difference, and no reading comes that would change a line.
    let mut terminal = Terminal::start("rests", true);
    terminal.read_until("rates appear");
    for sizes in [&[(10, 50), (24, 80)][..], &[(24, 80)], &[(5, 20), (60, 200)], &[(24, 80)]] {
        terminal.shown.clear();
        for &(ws_row, ws_col) in sizes {
            tcsetwinsize(&terminal.ours, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        }
        if sizes.len() == 1 {
            // The size it has already. Programs that write to all terminals are answered with this signal.
            terminal.signal(Signal::WINCH);
        }
        // What was on its way before may come first.
        let is_whole =
            |frame: &str| frame.find("node ").zip(frame.find("q quit")).is_some_and(|(a, b)| a < b);
        terminal.read_until_so("whole frame", |shown| shown.split("\x1b[2J").skip(1).any(is_whole));
        assert!(terminal.shown.contains("q quit"), "{sizes:?}: {:?}", terminal.shown);
    }
    terminal.signal(Signal::TERM);
    let (status, _) = terminal.ended();
    assert_eq!(status.signal(), Some(libc::SIGTERM));
}

#[test]
fn a_key_that_comes_with_a_resize_is_read_at_once() {
    let mut terminal = Terminal::start("rests", true);
    terminal.read_until("rates appear");
    let mut resize_and_press = |key: &[u8], answer: &str| {
        terminal.shown.clear();
        terminal.signal(Signal::WINCH);
        rustix::io::write(&terminal.ours, key).unwrap();
        terminal.read_until(answer);
        assert!(terminal.shown.contains(answer), "{answer:?}: {:?}", terminal.shown);
    };
    // A reader that takes the signal for all there is loses about one key in forty.
    for _ in 0..100 {
        resize_and_press(b"?", "any key: back");
        resize_and_press(b"x", "q quit");
    }
    resize_and_press(b"q", LEFT);
    let (status, _) = terminal.ended();
    assert!(status.success());
}

#[test]
fn a_terminal_that_is_gone_ends_the_screen_also_without_a_signal() {
    let mut terminal = Terminal::start("rests", false);
    terminal.read_until("q quit");
    let nothing = || File::open("/dev/null").unwrap();
    drop(std::mem::replace(&mut terminal.ours, nothing()));
    drop(std::mem::replace(&mut terminal.theirs, nothing().into()));
    let mut status = None;
    eventually("the process ends", || {
        status = terminal.process.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().signal(), Some(libc::SIGHUP));
}
