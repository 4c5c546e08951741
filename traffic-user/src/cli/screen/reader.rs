//! The thread that reads the counters.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::render::screen::Reading;

/// Reads the counters. It opens the maps each time, because counters that were made anew are other maps.
pub type Read = Box<dyn FnMut() -> anyhow::Result<Reading> + Send>;

/// Starts the thread. It ends with the screen. A reading that takes longer than the interval delays the next
/// one and nothing else.
pub(super) fn start(
    interval: Duration,
    mut read: Read,
) -> anyhow::Result<mpsc::Receiver<Result<Reading, String>>> {
    let (sender, receiver) = mpsc::channel(1);
    let work = move || {
        let mut due = Instant::now();
        loop {
            let reading = read().map_err(|error| format!("{error:#}"));
            if sender.blocking_send(reading).is_err() {
                break;
            }
            due = (due + interval).max(Instant::now());
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    };
    thread::Builder::new().name("reader".to_owned()).spawn(work).context("cannot start a thread")?;
    Ok(receiver)
}
