//! Where log lines go: to stderr, by a thread of its own.
//!
//! A reader of stderr may stop reading: a pager, a stopped journal, a terminal after Ctrl-S. A write would then
//! wait, and with it whoever logs. Here it waits for nobody: lines that find no room are counted and left out.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

/// Lines that wait to be written. A busy start of a large node logs some thousand at once.
const ROOM: usize = 8192;
/// How long the end of the process waits for what is left.
const LAST_WAIT: Duration = Duration::from_millis(300);

enum Message {
    Line(Vec<u8>),
    /// Everything before this is written: says so.
    Written(SyncSender<()>),
}

/// Hands lines over to the thread. One call of `write` is one line.
#[derive(Clone, Debug)]
pub struct Lines {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    /// Starts the thread that writes to stderr.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn to_stderr() -> io::Result<Self> {
        Self::to(io::stderr(), ROOM)
    }

    fn to(output: impl Write + Send + 'static, room: usize) -> io::Result<Self> {
        let (queue, lines) = sync_channel(room);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(output, &lines, &counted))?;
        Ok(Self { queue, lost })
    }

    /// Waits until everything so far is written, but not for a reader that does not read.
    pub fn finish(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Message::Written(done)).is_ok() {
            // Nobody reads: then there is nothing more to do.
            let _unread = written.recv_timeout(LAST_WAIT);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(mut output: impl Write, lines: &Receiver<Message>, lost: &AtomicU64) {
    while let Ok(message) = lines.recv() {
        match message {
            // A closed or full stderr is nobody's problem but its reader's.
            Message::Line(line) => drop(output.write_all(&line)),
            Message::Written(done) => drop(done.try_send(())),
        }
        let left_out = lost.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            drop(writeln!(output, " WARN {left_out} log lines were left out: nobody read them in time"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        os::unix::net::UnixStream,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn lines_arrive_in_order_and_before_the_end() {
        let (ours, mut reader) = UnixStream::pair().unwrap();
        let mut lines = Lines::to(ours, 10).unwrap();
        lines.write_all(b"first\n").unwrap();
        lines.write_all(b"second\n").unwrap();
        lines.finish();
        let mut text = [0; 13];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"first\nsecond\n");
    }

    #[test]
    fn a_reader_that_does_not_read_keeps_nobody_waiting_and_learns_what_it_missed() {
        let (ours, mut reader) = UnixStream::pair().unwrap();
        let mut lines = Lines::to(ours, 10).unwrap();
        let begun = Instant::now();
        let long = [b'x'; 100_000];
        for _ in 0..50 {
            lines.write_all(&long).unwrap();
        }
        lines.finish();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        reader.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut text = Vec::new();
        let mut part = vec![0; 1 << 16];
        while !String::from_utf8_lossy(&text).contains("log lines were left out: nobody read them in time\n")
        {
            let length = reader.read(&mut part).unwrap();
            text.extend_from_slice(&part[..length]);
        }
    }
}
