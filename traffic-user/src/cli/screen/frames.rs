//! Frames on their way to the terminal. Drawing fills a buffer, and the terminal takes from it when it can: one
//! that takes nothing holds up neither keys nor signals.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Write},
    rc::Rc,
};

use anyhow::Context as _;
use ratatui::{Terminal, backend::CrosstermBackend, layout::Rect};
use tokio::io::{Interest, unix::AsyncFd};

use super::guard::{Guard, is_transient};
use crate::render::screen::{Screen, draw};

/// The bytes of the last frame.
#[derive(Clone, Default)]
struct Buffer(Rc<RefCell<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The frames of a screen.
pub(super) struct Frames {
    terminal: Terminal<CrosstermBackend<Buffer>>,
    buffer: Buffer,
    written: usize,
    ready: AsyncFd<File>,
}

impl Frames {
    pub fn new(guard: &Guard) -> anyhow::Result<Self> {
        let buffer = Buffer::default();
        let terminal = Terminal::new(CrosstermBackend::new(buffer.clone()));
        Ok(Self {
            terminal: terminal.context("cannot set up the terminal")?,
            buffer,
            written: 0,
            ready: ready(guard)?,
        })
    }

    /// Whether the terminal has taken the last frame.
    pub fn are_written(&self) -> bool {
        self.written == self.buffer.0.borrow().len()
    }

    /// Draws a frame: what differs from the last one.
    pub fn draw(&mut self, screen: &mut Screen) -> anyhow::Result<()> {
        self.buffer.0.borrow_mut().clear();
        self.written = 0;
        self.terminal.draw(|frame| draw(screen, frame)).context("cannot draw")?;
        Ok(())
    }

    /// Clears the terminal, so that the next frame is drawn as a whole. `Terminal::clear` would ask the terminal
    /// where its cursor is, and the thread that reads keys would take the answer.
    pub fn forget(&mut self) -> anyhow::Result<()> {
        let size = self.terminal.size().context("cannot ask for the size of the terminal")?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height)).context("cannot clear the terminal")
    }

    /// Sets up the terminal again, after somebody else had it. What was not written yet is left out.
    pub fn take_again(&mut self, guard: &Guard) -> anyhow::Result<()> {
        guard.take_again().context("cannot set up the terminal")?;
        self.ready = ready(guard)?;
        self.buffer.0.borrow_mut().clear();
        self.written = 0;
        self.forget()
    }

    /// Waits until the terminal has taken the frame. May be dropped at any time and called again.
    pub async fn write(&mut self, guard: &Guard) -> anyhow::Result<()> {
        while !self.are_written() {
            let mut ready = self.ready.writable().await.context("cannot wait for the terminal")?;
            match guard.write(&self.buffer.0.borrow()[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error).context("cannot write to the terminal"),
            }
        }
        Ok(())
    }
}

fn ready(guard: &Guard) -> anyhow::Result<AsyncFd<File>> {
    let output = guard.output().context("cannot set up the terminal")?;
    // SAFETY: the file is handed over, and nothing closes it while it is registered.
    let ready = unsafe { AsyncFd::register_with_interest(output, Interest::WRITABLE) };
    ready.context("cannot wait for the terminal")
}
