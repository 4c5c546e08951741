//! A pass over all selected interfaces in batches, between which the lock on the pinned state is free: a
//! container's start hook must not wait until a thousand interfaces are attached.
//!
//! Every batch is a session of its own, with its own listing: between two of them, others may have attached,
//! detached or released anything.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{
    kernel_access::NodeKernel,
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
        *self = Self::new(self.selection.clone());
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
        // Under the lock: what another process attached while this one waited for it is not gone.
        self.interfaces = session.kernel.interfaces()?;
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
            self.report.append(session.attach(policy, chunk, &Selection::Matching)?);
            self.done.extend(chunk.iter().map(key));
            if Instant::now() >= until {
                break;
            }
        }
        let all_done = pending.iter().all(|interface| self.done.contains(&key(interface)));
        Ok(is_released && all_done)
    }
}

fn key(interface: &NetInterface) -> (u32, String) {
    (interface.index, interface.name.clone())
}
