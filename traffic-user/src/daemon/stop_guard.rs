//! Ends the process after a signal to stop, whatever its other threads do.
//!
//! The event loop stops in an orderly way and takes less time than this. But a log that nobody reads, a file
//! system that does not answer, or a task that never ends can keep it from that. So a thread of its own waits
//! for the same signals. Nothing is lost: the kernel keeps counting, and the ledger survives a kill.

use std::{process, sync::mpsc, thread, time::Duration};

use anyhow::Context as _;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time,
};

use crate::kernel::expedite;

/// How long the orderly end may take. A service manager and an operator wait two seconds.
const LIMIT: Duration = Duration::from_millis(1800);
/// How long the end waits until the kernel's switch for grace periods is as it was.
const RESTORING: Duration = Duration::from_millis(50);

/// Starts the thread.
///
/// # Errors
/// When the thread cannot be started or the signals cannot be caught.
pub(super) fn start() -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the thread that ends the process in time")?;
    let (mut terminate, mut interrupt) = {
        let _context = runtime.enter();
        let catch = |kind| signal(kind).context("cannot catch the signals to stop");
        (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?)
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            time::sleep(LIMIT).await;
        });
        // The switch is the machine's. Whoever holds it may be what blocks, so that this has an end as well.
        let (restored, is_restored) = mpsc::channel();
        let restore = move || {
            expedite::end_of_process();
            let _late = restored.send(());
        };
        if thread::Builder::new().spawn(restore).is_ok() {
            let _stuck = is_restored.recv_timeout(RESTORING);
        }
        // Without a message: the log may be what blocks.
        process::exit(0);
    };
    thread::Builder::new()
        .name("stop-guard".to_owned())
        .spawn(wait)
        .context("cannot start the thread that ends the process in time")?;
    Ok(())
}
