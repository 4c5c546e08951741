//! Reads the files and sockets of all platforms, each on a thread of its own.
//!
//! A platform's files can be on a file system that does not answer: `/etc/pve` is served by a daemon, and data
//! of Docker may be on the network. So nothing waits longer than [`PATIENCE`]. What came too late is used the
//! next time, and a reader that does not return is not started again.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use super::{
    Platform, Reading, docker, kubernetes, libvirt, lxc, lxd, nspawn, podman, proxmox, root::Root, virtuozzo,
};

/// How long all readers together may take.
const PATIENCE: Duration = Duration::from_millis(1500);

type Read = fn(&Root) -> Reading;

/// What reads each platform.
const READERS: [(Platform, Read); 10] = [
    (Platform::Virtuozzo, virtuozzo::read),
    (Platform::Proxmox, proxmox::read),
    (Platform::Incus, lxd::read_incus),
    (Platform::Lxd, lxd::read_lxd),
    (Platform::Libvirt, libvirt::read),
    (Platform::Lxc, lxc::read),
    (Platform::Nspawn, nspawn::read),
    (Platform::Docker, docker::read),
    (Platform::Podman, podman::read),
    (Platform::Kubernetes, kubernetes::read),
];

/// The readers of all platforms, and what they found last.
#[derive(Debug)]
pub(super) struct Readers {
    slots: Vec<Slot>,
    patience: Duration,
}

#[derive(Debug)]
struct Slot {
    platform: Platform,
    read: Read,
    running: Option<Receiver<Reading>>,
    last: Reading,
}

impl Default for Readers {
    fn default() -> Self {
        Self::new(&READERS, PATIENCE)
    }
}

impl Readers {
    fn new(readers: &[(Platform, Read)], patience: Duration) -> Self {
        let slot = |&(platform, read)| Slot { platform, read, running: None, last: Reading::default() };
        Self { slots: readers.iter().map(slot).collect(), patience }
    }

    /// Reads everything again, as far as it answers in time. Does something else meanwhile.
    pub(super) fn read_beside<T>(
        &mut self,
        root: &Root,
        meanwhile: impl FnOnce() -> T,
    ) -> (Vec<(Platform, Reading)>, T) {
        for slot in &mut self.slots {
            slot.start(root);
        }
        let deadline = Instant::now() + self.patience;
        let result = meanwhile();
        (self.slots.iter_mut().map(|slot| (slot.platform, slot.reading(deadline))).collect(), result)
    }
}

impl Slot {
    fn start(&mut self, root: &Root) {
        if self.running.is_some() {
            return;
        }
        let (sender, receiver) = mpsc::channel();
        let (read, root) = (self.read, root.clone());
        // Nobody receives it any more when the process is about to end.
        let run = move || drop(sender.send(read(&root)));
        match thread::Builder::new().name(self.platform.key().to_owned()).spawn(run) {
            Ok(_) => self.running = Some(receiver),
            Err(error) => {
                self.last.problems = vec![format!("cannot read {}'s files: {error}", self.platform)];
            }
        }
    }

    fn reading(&mut self, deadline: Instant) -> Reading {
        let Some(running) = &self.running else { return self.last.clone() };
        match running.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(reading) => {
                self.running = None;
                self.last = reading;
            }
            Err(RecvTimeoutError::Timeout) => {
                let late = format!(
                    "{}: its files do not answer; what was read of them before is used",
                    self.platform
                );
                return Reading { problems: vec![late], ..self.last.clone() };
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.running = None;
                let ended = format!("{}: reading its files ended unexpectedly", self.platform);
                return Reading { problems: vec![ended], ..self.last.clone() };
            }
        }
        self.last.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn of_docker(root: &Root) -> Reading {
        Reading { evidence: vec![root.shown(Path::new("/run/docker.sock"))], ..Reading::default() }
    }

    static ANSWERS: AtomicBool = AtomicBool::new(false);

    /// Stands for a file system that does not answer for a while.
    fn late(_: &Root) -> Reading {
        while !ANSWERS.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        Reading { evidence: vec!["/etc/pve".to_owned()], ..Reading::default() }
    }

    fn failing(_: &Root) -> Reading {
        panic!("a reader that fails");
    }

    #[test]
    fn a_reader_that_does_not_return_costs_only_itself() {
        let readers: [(Platform, Read); 3] =
            [(Platform::Docker, of_docker), (Platform::Podman, failing), (Platform::Proxmox, late)];
        let mut readers = Readers::new(&readers, Duration::from_secs(2));
        let root = Root::new(Path::new("/"));
        let (first, meanwhile) = readers.read_beside(&root, || 7);
        assert_eq!(meanwhile, 7);
        assert_eq!(first[0].1.evidence, ["/run/docker.sock"]);
        assert_eq!(first[2].1.evidence, [""; 0]);
        assert!(first[2].1.problems[0].starts_with("Proxmox: its files do not answer"), "{first:?}");
        assert!(first[1].1.problems[0].starts_with("Podman: reading its files ended"), "{first:?}");
        // It is taken when it comes.
        ANSWERS.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(20);
        while readers.read_beside(&root, || ()).0[2].1.evidence.is_empty() {
            assert!(Instant::now() < deadline);
        }
    }
}
