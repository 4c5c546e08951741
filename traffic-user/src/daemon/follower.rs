//! Which events of interfaces call for a change, and the change itself. Knows neither sockets nor threads:
//! the tests run it on a kernel of their own.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use super::came_and_went::CameAndWent;
use crate::{
    kernel::hooks::Change,
    net::{events::Batch, interface::NetInterface},
    node::{
        AttachReport, OwnerChange, Pass, PendingInterface, Policy, Selection, Session,
        kernel_access::NodeKernel,
        pass::{AT_ONCE, forgive_ended},
        registry::Registry,
        session,
        slot_reclaim::FinalReading,
    },
    ownership::interface_rules::Role,
    time,
};

/// What a batch of events calls for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PendingChanges {
    /// Indexes that the kernel announced to be gone.
    pub gone: Vec<u32>,
    /// Interfaces to attach to, or to look at again.
    pub seen: Vec<NetInterface>,
    /// Indexes of those whose former device ended: it did not only move.
    pub replaced: HashSet<u32>,
    /// Whether the node's own addresses are to be read again.
    pub addresses: bool,
    /// Whether the identity command should be asked.
    pub ask: bool,
}

impl PendingChanges {
    /// Whether nothing needs the lock.
    pub fn is_idle(&self) -> bool {
        self.gone.is_empty() && self.seen.is_empty() && !self.addresses
    }
}

/// What a batch of a plan did.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Attached interfaces, and those that failed.
    pub report: AttachReport,
    /// Whether any interface was released.
    pub released: bool,
}

/// What is known of the interfaces that are attached.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// Names of attached interfaces by index: events that change neither need no action.
    known: HashMap<u32, String>,
    /// Other indexes that may have something to be released when their interface ends: it is only described, an
    /// attach failed, or an end was not confirmed.
    to_release: HashSet<u32>,
    /// Whether the owner of any interface is unknown.
    waiting: bool,
    /// Which interfaces came and went unseen.
    pub came_and_went: CameAndWent,
    /// Interfaces that could not be attached and were reported, with the reason.
    reported: HashSet<(String, String)>,
}

impl Follower {
    /// Whether any interface's container is unknown.
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Attach everything again: the counters were created again.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Whether an interface is new whose container may have been configured only just now.
    pub fn calls_for_refresh(&self, batch: &Batch, policy: &Policy) -> bool {
        batch
            .interfaces
            .values()
            .any(|interface| !self.known.contains_key(&interface.index) && policy.is_unresolved(interface))
    }

    /// What these events call for.
    pub fn plan(&mut self, batch: Batch, policy: &Policy) -> PendingChanges {
        self.came_and_went.take_events(&batch, policy);
        let mut plan = PendingChanges {
            addresses: batch.addresses && !policy.config.uplinks.is_empty(),
            ..PendingChanges::default()
        };
        // A device that went and came back under its name and index is another one, with nothing attached to
        // it.
        let ended: HashSet<u32> = batch
            .ended
            .into_iter()
            .filter(|index| self.known.remove(index).is_some() | self.to_release.remove(index))
            .collect();
        plan.gone.extend(batch.gone.intersection(&ended));
        // The last end counts: one that moved away before may have come back.
        for end in batch.ends.iter().filter(|end| ended.contains(&end.last.index)) {
            match end.has_moved {
                true => plan.replaced.remove(&end.last.index),
                false => plan.replaced.insert(end.last.index),
            };
        }
        // The other end of a cable that moved into a container is the container's, and no event shows that.
        let ends = batch.ends.iter().filter(|end| end.has_moved && end.last.has_both_ends_here());
        for index in ends.filter_map(|end| end.last.peer) {
            if !self.known.contains_key(&index) && !batch.interfaces.contains_key(&index) {
                plan.seen.push(NetInterface { index, ..NetInterface::default() });
            }
        }
        for (index, interface) in batch.interfaces {
            // Which of several names it has now, only the kernel knows.
            if self.known.get(&index) == Some(&interface.name) && !batch.renamed.contains(&index) {
                continue;
            }
            match policy.role(&interface) {
                // The device that was attached under this index is gone, and must be released.
                Role::Ignored(_) if ended.contains(&index) => plan.seen.push(interface),
                Role::Ignored(_) if batch.renamed.contains(&index) => plan.seen.push(interface),
                Role::Ignored(_) => self.note_rename(&interface),
                // So does one whose new name looks like that of any container.
                Role::Unresolved { .. } if self.known.contains_key(&index) => self.note_rename(&interface),
                // It appeared and ended within this batch. The kernel is asked whether it did.
                _ if batch.gone.contains(&index) => plan.gone.push(index),
                Role::Container(_) | Role::Shared | Role::Uplink => plan.seen.push(interface),
                Role::Unresolved { .. } => {
                    plan.ask |= policy.is_unresolved(&interface);
                    plan.seen.push(interface);
                }
            }
        }
        plan.gone.sort_unstable();
        plan.gone.dedup();
        plan.seen.sort_unstable_by_key(|interface| interface.index);
        plan
    }

    /// Carries out a batch of a plan, until the given moment, and takes it from the plan. The caller does so
    /// until the plan is idle.
    ///
    /// # Errors
    /// When the kernel refuses; the next resync repeats what was left.
    pub fn follow<K: NodeKernel + FinalReading>(
        &mut self,
        session: &mut Session<K>,
        policy: &Policy,
        plan: &mut PendingChanges,
        until: Instant,
    ) -> anyhow::Result<Followed> {
        let mut followed = Followed::default();
        let mut is_time_left = true;
        self.came_and_went.judge(&session.registry, &session.kernel)?;
        while is_time_left && let Some(index) = plan.gone.pop() {
            if session.release_if_gone(index)? {
                followed.released = true;
            } else if let Some(interface) = session.kernel.interface(index)? {
                session.note_replaced(&interface, false)?;
                plan.seen.push(interface);
            }
            is_time_left = Instant::now() < until;
        }
        while is_time_left && !plan.is_idle() {
            let mut chunk = Vec::new();
            for seen in plan.seen.drain(..plan.seen.len().min(AT_ONCE)) {
                // The event is old when many came at once: the index may be another interface's by now.
                match session.kernel.interface(seen.index)? {
                    Some(interface) => {
                        if plan.replaced.remove(&interface.index) {
                            session.note_replaced(&interface, true)?;
                        }
                        chunk.push(interface);
                    }
                    None => followed.released |= session.release_if_gone(seen.index)?,
                }
            }
            // Reads the node's own addresses as well.
            plan.addresses = false;
            let mut attached = session.attach(policy, &chunk, &Selection::Matching)?;
            let failed = chunk.iter().filter(|one| attached.failed.iter().any(|(name, _)| *name == one.name));
            self.to_release.extend(failed.map(|one| one.index));
            forgive_ended(&session.kernel, &chunk, &mut attached)?;
            self.learn(&chunk, &attached);
            // Where the end was false, the interface stays attached, and its own end must release it.
            let ignored = chunk.iter().filter(|interface| matches!(policy.role(interface), Role::Ignored(_)));
            self.to_release.extend(ignored.map(|interface| interface.index));
            followed.report.append(attached);
            is_time_left = Instant::now() < until;
        }
        self.came_and_went.remember(&session.registry, time::now_or_end());
        Ok(followed)
    }

    /// Takes over what a complete pass over all interfaces found and did. Returns what it did.
    pub fn compared(&mut self, pass: Pass, registry: &Registry) -> AttachReport {
        let ended = pass.ended();
        let Pass { interfaces, report: attached, .. } = pass;
        let exists: HashSet<u32> = interfaces.iter().map(|interface| interface.index).collect();
        let named: HashSet<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
        self.known.retain(|index, _| exists.contains(index));
        // What no rule matches has its present name here. Else a device that got a lost one's index, and later
        // its name, would look attached.
        let others: HashSet<&str> =
            attached.failed.iter().chain(&attached.unresolved).map(|(name, _)| name.as_str()).collect();
        for interface in interfaces.iter().filter(|interface| !others.contains(interface.name.as_str())) {
            if let Some(name) = self.known.get_mut(&interface.index) {
                name.clone_from(&interface.name);
            }
        }
        // Even one that is not counted has an entry that describes it.
        self.to_release = exists;
        self.reported.retain(|(name, _)| named.contains(name.as_str()));
        self.waiting = false;
        // Before the listing, which lacks them: their ends are still to be announced.
        let names: HashSet<&str> = attached.attached.iter().map(|(name, _)| name.as_str()).collect();
        for one in &ended {
            match names.contains(one.name.as_str()) {
                true => self.came_and_went.attached(one),
                false => self.came_and_went.not_attached(one.index),
            }
        }
        self.came_and_went.listed(&interfaces, |interface| names.contains(interface.name.as_str()));
        self.learn(&interfaces, &attached);
        self.came_and_went.remember(registry, time::now_or_end());
        attached
    }

    fn learn(&mut self, interfaces: &[NetInterface], report: &AttachReport) {
        let attached: HashSet<&str> = report.attached.iter().map(|(name, _)| name.as_str()).collect();
        for interface in interfaces.iter().filter(|interface| attached.contains(interface.name.as_str())) {
            self.known.insert(interface.index, interface.name.clone());
            self.came_and_went.attached(interface);
        }
        let failed: HashSet<&str> = report.failed.iter().map(|(name, _)| name.as_str()).collect();
        let undecided: HashSet<&str> = report.unresolved.iter().map(|(name, _)| name.as_str()).collect();
        for interface in interfaces {
            let is = |names: &HashSet<&str>| names.contains(interface.name.as_str());
            if !is(&attached) && !is(&undecided) {
                self.came_and_went.not_attached(interface.index);
            }
        }
        let failed = interfaces.iter().filter(|interface| failed.contains(interface.name.as_str()));
        self.to_release.extend(failed.map(|interface| interface.index));
        self.waiting |= !report.unresolved.is_empty() || !report.pending.is_empty();
    }

    /// Logs what an attach did; returns whether an interface failed that had not failed in this way before,
    /// so that a retry may help. Each problem is reported once, and an unresolved interface not while the
    /// identity command is asked.
    pub fn log(&mut self, report: &AttachReport, kind: &str, is_asking: bool) -> bool {
        for (name, change) in &report.attached {
            if *change == Change::Attached {
                tracing::info!("{name}: attached ({kind})");
            }
        }
        let mut is_new = false;
        for (name, reason) in &report.failed {
            if self.reported.insert((name.clone(), reason.clone())) {
                tracing::warn!("{name}: {reason}");
                is_new = true;
            }
        }
        for (name, reason) in &report.unresolved {
            if !is_asking && self.reported.insert((name.clone(), reason.clone())) {
                tracing::warn!("{name}: not attached: {reason}");
            }
        }
        for PendingInterface { interface, owner, reason } in &report.pending {
            if !is_asking && self.reported.insert((interface.clone(), reason.clone())) {
                tracing::warn!("{}", session::counted_as(interface, owner, reason));
            }
        }
        for OwnerChange { interface, from, to } in &report.owner_changes {
            match from.is_pending() {
                true => tracing::info!("{interface}: {from} is {to}, with everything since its first packet"),
                false => tracing::warn!("{interface}: counted for {to} from now on, no longer for {from}"),
            }
        }
        is_new
    }

    /// An attached interface whose new name no rule knows: its wires are the same, so its container stays.
    fn note_rename(&mut self, interface: &NetInterface) {
        if let Some(name) = self.known.get_mut(&interface.index) {
            tracing::warn!(
                "{name} was renamed to {}, which no rule matches: it is counted as before",
                interface.name
            );
            name.clone_from(&interface.name);
        }
    }
}

#[cfg(test)]
mod tests;
