//! A pass over all selected interfaces in batches, between which the lock on the pinned state is free: a
//! container's start hook must not wait until a thousand interfaces are attached.
//!
//! Every batch is a session of its own, after a listing of its own: between two of them, others may have attached,
//! detached or released anything. The listing is made before the lock is taken, because it waits for others that
//! hold the kernel's lock on interfaces. So whatever is acted on is looked at again under the lock.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{
    kernel_access::{InterfaceList, NodeKernel},
    policy::{Policy, Selection},
    session::{AttachReport, Session},
    slot_reclaim::FinalReading,
};
use crate::net::interface::NetInterface;

/// How long a batch may hold the lock, apart from the interfaces at hand.
const BATCH: Duration = Duration::from_millis(250);
/// Interfaces that are attached without a look at the time.
pub const AT_ONCE: usize = 4;

/// The moment when a batch that begins now should end.
pub fn end_of_batch() -> Instant {
    Instant::now() + BATCH
}

/// What of a pass is done.
#[derive(Debug)]
pub struct Pass {
    selection: Selection,
    /// Index and name of the interfaces that the pass has dealt with.
    done: HashSet<(u32, String)>,
    /// The last listing.
    pub interfaces: Vec<NetInterface>,
    /// What the batches so far did.
    pub report: AttachReport,
}

impl Pass {
    /// Begins a pass over these interfaces.
    pub fn new(selection: Selection) -> Self {
        Self { selection, done: HashSet::new(), interfaces: Vec::new(), report: AttachReport::default() }
    }

    /// Forgets what is done, because program and maps were created again.
    pub fn start_over(&mut self) {
        let interfaces = std::mem::take(&mut self.interfaces);
        *self = Self { interfaces, ..Self::new(self.selection.clone()) };
    }

    /// The interfaces that the pass has dealt with and the last listing lacks: index and name.
    pub fn ended(&self) -> Vec<NetInterface> {
        let listed: HashSet<u32> = self.interfaces.iter().map(|interface| interface.index).collect();
        let ended = self.done.iter().filter(|(index, _)| !listed.contains(index));
        ended
            .map(|(index, name)| NetInterface {
                index: *index,
                name: name.clone(),
                ..NetInterface::default()
            })
            .collect()
    }

    /// Lists the interfaces, for the next batch. The caller does not hold the change lock.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn list(&mut self, all: &impl InterfaceList) -> anyhow::Result<()> {
        self.interfaces = all.interfaces()?;
        Ok(())
    }

    /// Does one batch: releases interfaces that are gone, and attaches to those that remain to be done, until
    /// the given moment. Returns whether the pass is complete.
    ///
    /// # Errors
    /// When the kernel refuses, or a named interface does not exist or no rule assigns it.
    pub fn batch<K: NodeKernel + FinalReading>(
        &mut self,
        session: &mut Session<K>,
        policy: &Policy,
        until: Instant,
    ) -> anyhow::Result<bool> {
        // What another process attached since the listing is not gone: each is asked for by itself.
        let is_released = session.release_gone(&self.interfaces, until)?;
        let selected = policy.select(&self.interfaces, &self.selection)?;
        let pending: Vec<NetInterface> = selected
            .into_iter()
            .map(|(interface, _)| interface)
            .filter(|interface| !self.done.contains(&key(interface)))
            .cloned()
            .collect();
        // Even without interfaces, the node's own addresses are brought up to date.
        let chunks = pending.chunks(AT_ONCE).chain(pending.is_empty().then_some(&[][..]));
        for chunk in chunks {
            let mut report = session.attach(policy, chunk, &Selection::Matching)?;
            if self.selection == Selection::Matching {
                forgive_ended(&session.kernel, chunk, &mut report)?;
            }
            self.report.append(report);
            self.done.extend(chunk.iter().map(key));
            if Instant::now() >= until {
                break;
            }
        }
        let all_done = pending.iter().all(|interface| self.done.contains(&key(interface)));
        Ok(is_released && all_done)
    }
}

/// Takes from a report the failures on interfaces that have ended or have another name since they were listed.
pub fn forgive_ended(
    all: &impl InterfaceList,
    listed: &[NetInterface],
    report: &mut AttachReport,
) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for (name, reason) in std::mem::take(&mut report.failed) {
        let index = listed.iter().find(|interface| interface.name == name).map(|interface| interface.index);
        let now = index.map(|index| all.interface(index)).transpose()?.flatten();
        if now.is_some_and(|now| now.name == name) {
            failed.push((name, reason));
        }
    }
    report.failed = failed;
    Ok(())
}

fn key(interface: &NetInterface) -> (u32, String) {
    (interface.index, interface.name.clone())
}
