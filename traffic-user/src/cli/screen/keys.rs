//! The keys, read on a thread that waits for them, and the end of the terminal, on another.

use std::{
    fs::File,
    io::{self, IsTerminal as _, stdin, stdout},
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use anyhow::Context as _;
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    time::Timespec,
};
use tokio::sync::mpsc;

use crate::render::screen::Key;

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
    let watch = move || {
        if wait_for_end(&output, &input).is_ok() {
            let _ended = gone.blocking_send(Event::Gone);
        }
    };
    thread::Builder::new().name("terminal".to_owned()).spawn(watch).context("cannot start a thread")?;
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || listen(&sender))
        .context("cannot start a thread")?;
    Ok(receiver)
}

/// Where keys come from, as crossterm chooses it.
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

/// Waits until one of both hangs up. crossterm 0.29 would read the end of its input again and again, and a process
/// whose SIGHUP went to another one would stay and take a whole CPU
/// (<https://github.com/crossterm-rs/crossterm/issues/793>).
fn wait_for_end(output: &OwnedFd, input: &OwnedFd) -> Result<(), Errno> {
    while !hangs_up([output, input], None)? {}
    Ok(())
}

/// Whether the terminal hung up.
pub(super) fn is_terminal_gone() -> bool {
    let output = stdout().as_fd().try_clone_to_owned();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    output.is_ok_and(|output| hangs_up([&output, &output], Some(&now)).unwrap_or(false))
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

fn listen(sender: &mpsc::Sender<Event>) {
    loop {
        let event = match event::read() {
            Ok(event::Event::Key(key)) => key_of(key).map(Event::Key),
            // A resize comes as a signal, from the beginning on; this thread hears of it only once it reads.
            Ok(_) => None,
            Err(error) => {
                let _ended = sender.blocking_send(Event::Failed(error));
                return;
            }
        };
        if let Some(event) = event
            && sender.blocking_send(event).is_err()
        {
            return;
        }
    }
}

fn key_of(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let is_ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char(c) if is_ctrl => Key::Ctrl(c.to_ascii_lowercase()),
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab => Key::Tab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::F(1) => Key::Char('?'),
        KeyCode::F(10) => Key::Char('q'),
        _ => return None,
    })
}
