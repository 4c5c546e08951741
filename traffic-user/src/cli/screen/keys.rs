//! The keys, read on a thread that waits for them, and the end of the terminal, on another.

use std::{
    fs::File,
    io::{self, IsTerminal as _, stdin, stdout},
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    time::Timespec,
};
use tokio::sync::mpsc;

use super::key_codes::Decoder;
use crate::render::screen::Key;

/// How long the rest of a key may take after its first byte. Over a slow connection, it may come in parts.
const REST_OF_KEY: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// What comes from the terminal.
pub(super) enum Event {
    Key(Key),
    /// Keys cannot be read any more.
    Failed(io::Error),
    /// The terminal is gone.
    Gone,
}

/// Starts the threads. They end with the process.
pub(super) fn start() -> anyhow::Result<mpsc::Receiver<Event>> {
    // Whoever holds a key down waits for the screen, and not the other way round.
    let (sender, receiver) = mpsc::channel(64);
    let gone = sender.clone();
    let ends = [stdout().as_fd().try_clone_to_owned(), keyboard()].map(|end| end.context("no terminal"));
    let [output, input] = ends;
    let (output, input) = (output?, input?);
    let keys = input.try_clone().context("no terminal")?;
    let watch = move || {
        if wait_for_end(&output, &input).is_ok() {
            let _ended = gone.blocking_send(Event::Gone);
        }
    };
    thread::Builder::new().name("terminal".to_owned()).spawn(watch).context("cannot start a thread")?;
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || listen(&keys, &sender))
        .context("cannot start a thread")?;
    Ok(receiver)
}

/// Where keys come from: the input, or the terminal of the session if the input is something else.
fn keyboard() -> io::Result<OwnedFd> {
    if stdin().is_terminal() {
        return stdin().as_fd().try_clone_to_owned();
    }
    Ok(File::open("/dev/tty")?.into())
}

/// Whether keys can be read.
pub(super) fn are_possible() -> bool {
    keyboard().is_ok()
}

/// Waits until one of both hangs up. The SIGHUP of a terminal that is gone may have gone to another process.
fn wait_for_end(output: &OwnedFd, input: &OwnedFd) -> Result<(), Errno> {
    while !hangs_up([output, input], None)? {}
    Ok(())
}

/// Whether the terminal hung up.
pub(super) fn is_terminal_gone() -> bool {
    let output = stdout().as_fd().try_clone_to_owned();
    output.is_ok_and(|output| is_gone(&output))
}

/// Whether one of both hangs up within a time.
fn hangs_up(both: [&OwnedFd; 2], within: Option<&Timespec>) -> Result<bool, Errno> {
    // A hang-up is reported unasked.
    match poll(&mut both.map(|end| PollFd::new(end, PollFlags::empty())), within) {
        Ok(found) => Ok(found > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends the keys that come. crossterm's own reader is not used: 0.29 loses the news of a key if a signal comes with it,
/// as while a window is resized. That key then waits for the next one.
fn listen(input: &OwnedFd, sender: &mpsc::Sender<Event>) {
    let mut decoder = Decoder::default();
    let mut bytes = [0; 1024];
    loop {
        let keys = match next_bytes(input, &mut bytes, decoder.is_waiting()) {
            Ok(Some(0)) if is_gone(input) => return,
            Ok(Some(count)) => decoder.take(&bytes[..count]),
            Ok(None) => decoder.time_out().into_iter().collect(),
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(error) => {
                let _ended = sender.blocking_send(Event::Failed(error.into()));
                return;
            }
        };
        for key in keys {
            if sender.blocking_send(Event::Key(key)).is_err() {
                return;
            }
        }
    }
}

/// Reads what is there. Within a key, it waits for the rest only for a short time, and returns `None` then.
fn next_bytes(input: &OwnedFd, bytes: &mut [u8], is_within_key: bool) -> Result<Option<usize>, Errno> {
    let wait = is_within_key.then_some(&REST_OF_KEY);
    if poll(&mut [PollFd::new(input, PollFlags::IN)], wait)? == 0 {
        return Ok(None);
    }
    rustix::io::read(input, bytes).map(Some)
}

/// Whether a terminal hung up.
fn is_gone(terminal: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    hangs_up([terminal, terminal], Some(&now)).unwrap_or(false)
}
