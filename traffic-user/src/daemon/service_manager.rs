//! Messages to the service manager, sent by a thread of its own: its socket may be full, and a send would then
//! wait. Messages that find no room are left out.

use std::{
    sync::{
        OnceLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// Messages that wait to be sent.
const ROOM: usize = 16;

/// What the service manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Ready,
    Reloading,
    Stopping,
    Watchdog,
}

/// Sends a message, if there is a service manager that listens.
pub(super) fn tell(message: Message) {
    static QUEUE: OnceLock<Option<SyncSender<Message>>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        std::env::var_os("NOTIFY_SOCKET")?;
        let (queue, messages) = sync_channel(ROOM);
        let thread = thread::Builder::new().name("notify".to_owned()).spawn(move || send(&messages));
        thread.inspect_err(|error| tracing::warn!("cannot notify the service manager: {error}")).ok()?;
        Some(queue)
    });
    if let Some(queue) = queue {
        // Without room, the manager has not read the ones before.
        let _full = queue.try_send(message);
    }
}

fn send(messages: &Receiver<Message>) {
    let mut last_error = None;
    while let Ok(message) = messages.recv() {
        let state = match message {
            Message::Ready => sd_notify::NotifyState::Ready,
            Message::Reloading => sd_notify::NotifyState::Reloading,
            Message::Stopping => sd_notify::NotifyState::Stopping,
            Message::Watchdog => sd_notify::NotifyState::Watchdog,
        };
        let error = sd_notify::notify(&[state]).err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|_| error != last_error) {
            tracing::warn!("cannot notify the service manager: {error}");
        }
        last_error = error;
    }
}
