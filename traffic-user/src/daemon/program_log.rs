//! The log lines of the kernel program: one for each fault, if they were asked for.

use anyhow::Context as _;
use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

/// Copies log lines of the kernel program to our own log, as long as the task lives.
///
/// # Errors
/// When the log cannot be opened.
pub(super) fn follow(mut object: Ebpf) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let logger = EbpfLogger::init(&mut object).context("cannot read the program's log")?;
    // SAFETY: the logger keeps its file descriptor open and the same for as long as it lives.
    let mut logger = unsafe { AsyncFd::register(logger) }.context("cannot wait for the program's log")?;
    Ok(tokio::spawn(async move {
        // The maps of the log live as long as the object.
        let _object = object;
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }))
}
