//! Brings interfaces to what is wanted: observes them, plans, acts, and observes again what was changed.
//!
//! All interfaces are observed at once. Each is then planned and changed by itself, so that one that fails
//! keeps no other from being counted. A change has succeeded when a new look shows nothing left to change.

use std::collections::{BTreeSet, HashMap};

use anyhow::{anyhow, bail};
use traffic_common::{DIRECTIONS, Direction};
use traffic_model::ContainerId;

use super::{
    kernel_access::NodeKernel,
    missed,
    plan::{self, Seen, Step, Wanted, WithoutRoom},
    policy::Policy,
    session::Session,
    slot_reclaim::FinalReading,
};
use crate::{
    kernel::{
        counters::{is_missed, since_attach},
        hooks::{Change, DeviceFate, HookSeen, OnHook},
        records::read_text,
    },
    net::interface::NetInterface,
};

/// How often an interface is changed before it counts as failed. More than once is needed where something
/// else changes it at the same time.
const ROUNDS: usize = 3;

/// An interface, and for whom it should be counted.
pub(super) type Target = (NetInterface, Wanted);

/// What carrying out a plan did.
#[derive(Default)]
struct Done {
    /// To the interface; `None` if nothing was left to change.
    change: Option<Change>,
    /// Indexes of other interfaces that were changed with it.
    others: Vec<u32>,
    /// For whom it is counted.
    owner: Option<ContainerId>,
    /// The owner that it had until now, if that is another one.
    former_owner: Option<ContainerId>,
}

/// What was done on an interface.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// On its hooks.
    pub change: Change,
    /// For whom it is counted; `None` if several share it, or nothing is wanted of it.
    pub owner: Option<ContainerId>,
    /// The owner that it had until now, if that is another one. A pending one has become this owner, with
    /// everything that was counted for it.
    pub former_owner: Option<ContainerId>,
}

impl<K: NodeKernel + FinalReading> Session<K> {
    /// Brings each interface to what is wanted of it. Returns what was done on each, in their order.
    ///
    /// # Errors
    /// When what all of them share cannot be read.
    pub(super) fn reach(
        &mut self,
        policy: &Policy,
        targets: &[Target],
    ) -> anyhow::Result<Vec<anyhow::Result<Reached>>> {
        let nothing = || Reached { change: Change::Kept, owner: None, former_owner: None };
        let mut results: Vec<anyhow::Result<Reached>> = targets.iter().map(|_| Ok(nothing())).collect();
        let mut to_see: Vec<usize> = (0..targets.len()).collect();
        for round in 0..=ROUNDS {
            let mut changed = BTreeSet::new();
            for (&at, seen) in to_see.iter().zip(self.observe(targets, &to_see)?) {
                let done = match seen {
                    Ok(seen) if round == ROUNDS => self.settled(&seen),
                    Ok(seen) => self.carry_out(policy, seen),
                    Err(error) => Err(error),
                };
                match (done, &mut results[at]) {
                    (Ok(Done { change, others, owner, former_owner }), Ok(result)) => {
                        result.change = result.change.max(change.unwrap_or(Change::Kept));
                        result.owner = owner;
                        result.former_owner = result.former_owner.take().or(former_owner);
                        changed.extend(change.map(|_| at));
                        let is_other = |(_, target): &(usize, &Target)| others.contains(&target.0.index);
                        changed.extend(targets.iter().enumerate().filter(is_other).map(|(at, _)| at));
                    }
                    (Err(error), result) => *result = Err(error),
                    (Ok(_), Err(_)) => {}
                }
            }
            to_see = changed.into_iter().filter(|&at| results[at].is_ok()).collect();
            if to_see.is_empty() {
                break;
            }
        }
        Ok(results)
    }

    /// Looks at interfaces: those at these places among the targets.
    fn observe(&self, targets: &[Target], places: &[usize]) -> anyhow::Result<Vec<anyhow::Result<Seen>>> {
        let interfaces: Vec<&NetInterface> = places.iter().map(|&at| &targets[at].0).collect();
        let hooks = self.kernel.look(&interfaces)?;
        let indexes = interfaces.iter().map(|interface| interface.index).collect();
        let entries: HashMap<_, _> = self.kernel.entries_of(&indexes)?.into_iter().collect();
        let seen = places.iter().zip(hooks).map(|(&at, hooks)| {
            let (interface, wanted) = targets[at].clone();
            let hooks = hooks?;
            let seen = Seen {
                starved: self.starved(&interface, &hooks)?,
                entry: entries.get(&interface.index).copied().unwrap_or_default(),
                without_room: WithoutRoom::default(),
                interface,
                wanted,
                hooks,
            };
            Ok(plan::with_pending_owner(seen, &self.registry, self.kernel.unix_seconds()))
        });
        Ok(seen.collect())
    }

    /// By direction: whether another program runs before ours and keeps packets from it. Other programs stay
    /// as they are: running after ours has no disadvantage for them.
    fn starved(
        &self,
        interface: &NetInterface,
        hooks: &[HookSeen; DIRECTIONS],
    ) -> anyhow::Result<[bool; DIRECTIONS]> {
        let mut starved = [false; DIRECTIONS];
        let Some(slot) = self.registry.interface_of_index(interface.index) else { return Ok(starved) };
        for direction in Direction::BOTH.into_iter().filter(|at| !hooks[*at as usize].before.is_empty()) {
            // The kernel's statistics first: packets that pass between the two readings must not count as
            // missed.
            let Some(now) = self.kernel.interface(interface.index)? else { break };
            let ours = self.kernel.interface_totals(slot)?;
            let since = since_attach(self.registry.interface(slot), &now.statistics, &ours);
            let counted_as = interface.side(direction);
            let passed = &ours.passed[counted_as as usize];
            starved[direction as usize] = is_missed(*since.of(counted_as), passed);
        }
        Ok(starved)
    }

    /// Fails while something is left to change.
    fn settled(&self, seen: &Seen) -> anyhow::Result<Done> {
        match plan::steps(seen, &self.registry).into_iter().find(|step| step.is_change()) {
            None => Ok(Done { owner: seen.wanted.container().cloned(), ..Done::default() }),
            Some(step) => Err(anyhow!(
                "something else keeps changing it: after {ROUNDS} attempts the kernel still lacks {step:?}"
            )),
        }
    }

    /// Carries out what is left to do for an interface.
    fn carry_out(&mut self, policy: &Policy, mut seen: Seen) -> anyhow::Result<Done> {
        let mut done = Done {
            former_owner: self.former_owner(&seen),
            owner: seen.wanted.container().cloned(),
            ..Done::default()
        };
        let mut steps = plan::steps(&seen, &self.registry);
        if steps == [Step::Attribute] {
            self.attribute(&seen)?;
            done.change = Some(Change::Kept);
            steps = plan::steps(&seen, &self.registry);
        }
        if steps == [Step::AssignSlots] {
            seen.without_room = self.assign_slots(policy, &seen)?;
            steps = plan::steps(&seen, &self.registry);
        }
        let mut former_fate = DeviceFate::Unknown;
        let mut refused = None;
        for step in steps {
            // One hook that another tool occupies does not keep the other direction from being counted.
            let change = match self.take(step, &seen, &mut former_fate) {
                Err(error) if matches!(step, Step::Attach(_)) => {
                    refused = refused.or(Some(error));
                    continue;
                }
                Ok(_) if refused.is_some() && !step.is_change() => continue,
                taken => taken?,
            };
            if let Step::EndFormer { index, .. } = step {
                done.others.push(index);
            }
            if step.is_change() {
                done.change = done.change.max(Some(change));
            }
        }
        refused.map_or(Ok(done), Err)
    }

    /// The container for which the interface was counted until now, if another one is wanted.
    fn former_owner(&self, seen: &Seen) -> Option<ContainerId> {
        let wanted = seen.wanted.container()?;
        let slot = self.registry.interface_of_index(seen.interface.index)?;
        let is_counted = seen.hooks.iter().any(|hook| hook.ours != OnHook::Nothing);
        let recorded = read_text(&self.registry.interface(slot).container);
        let former = plan::attributable(seen, &self.registry).or_else(|| ContainerId::new(recorded).ok());
        former.filter(|former| is_counted && former != wanted)
    }

    /// Gives what was counted under a pending id to the wanted container.
    fn attribute(&mut self, seen: &Seen) -> anyhow::Result<()> {
        let pending = plan::attributable(seen, &self.registry);
        if let (Some(pending), Some(owner)) = (pending, seen.wanted.container()) {
            self.registry.attribute(&mut self.kernel, &pending, owner)?;
        }
        Ok(())
    }

    fn take(&mut self, step: Step, seen: &Seen, former_fate: &mut DeviceFate) -> anyhow::Result<Change> {
        let Seen { interface, .. } = seen;
        let index = interface.index;
        let Self { kernel, registry, .. } = self;
        match step {
            Step::Attribute => {
                bail!("what was counted for its pending owner is not recorded for its container")
            }
            Step::AssignSlots => bail!("its slots are not recorded as they were assigned"),
            Step::Attach(direction) => return kernel.attach(interface, direction),
            Step::LeaveLaterPlace(direction) => {
                tracing::warn!(
                    "{}: {} ran before trafctl and kept packets from it; putting trafctl first",
                    interface.name,
                    seen.hooks[direction as usize].before.join(", ")
                );
                kernel.detach(interface, direction)?;
            }
            Step::EndFormer { index, slot } => {
                if !self.release_if_gone(index)? {
                    self.move_out_of_slot(index, slot)?;
                }
            }
            Step::RecordAttach { slot, counted_so_far } => {
                *former_fate = missed::record_attach(kernel, registry, slot, interface, counted_so_far)?;
            }
            Step::SetEntry(entry) => kernel.set_entry(index, entry)?,
            Step::NoteGone { slot } => missed::note_gone(kernel, registry, slot, *former_fate)?,
            Step::DetachOtherKind(direction) => {
                kernel.detach_other_kind(interface, direction)?;
            }
            Step::Settle { slot, counted_so_far } => {
                missed::settle_missed(kernel, registry, (slot, index), counted_so_far)?;
            }
            Step::Compare { slot } => missed::rebase_statistics(kernel, registry, slot, interface)?,
            Step::ReleaseUplink { slot } => self.release_former_uplink(interface, slot)?,
            Step::ReleaseFormer { slot } => self.release_former_device(interface, slot)?,
        }
        Ok(Change::Kept)
    }
}
