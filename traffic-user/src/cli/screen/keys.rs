//! The keys, read on a thread that waits for them.

use std::thread;

use anyhow::Context as _;
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use crate::render::screen::Key;

/// What comes from the terminal.
pub(super) enum Event {
    Key(Key),
    Resized,
}

/// Starts the thread. It ends with the process, or when the terminal is gone.
pub(super) fn start() -> anyhow::Result<mpsc::Receiver<Event>> {
    // Whoever holds a key down waits for the screen, and not the other way round.
    let (sender, receiver) = mpsc::channel(64);
    let listen = move || {
        while let Ok(event) = event::read() {
            let event = match event {
                event::Event::Key(key) => key_of(key).map(Event::Key),
                event::Event::Resize(..) => Some(Event::Resized),
                _ => None,
            };
            if let Some(event) = event
                && sender.blocking_send(event).is_err()
            {
                break;
            }
        }
    };
    thread::Builder::new().name("keys".to_owned()).spawn(listen).context("cannot start a thread")?;
    Ok(receiver)
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
