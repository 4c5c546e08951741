//! Interfaces on which more was counted than the kernel's statistics show.

use std::{thread, time::Duration};

use traffic_common::{Direction, InterfaceCounters, InterfaceRecord};

use crate::{
    kernel::{
        counters::{
            self,
            excess::{self, Excess, Sending, Suspect},
        },
        hooks::{AttachedProgram, HookListing},
        maps::Maps,
    },
    net::{interface::NetInterface, netlink::Netlink},
    node::registry::Registry,
};

/// How long what an interface sends is compared.
const WINDOW: Duration = Duration::from_millis(200);

/// Interfaces whose first comparison shows an excess.
#[derive(Debug, Default)]
struct Suspicions {
    received: Vec<NetInterface>,
    sent: Vec<NetInterface>,
}

/// Compares all listed interfaces with `counted`, the totals by slot that were read before the listing: the
/// kernel's statistics are then never behind. Returns a problem for each with an excess.
///
/// # Errors
/// When a map or a hook cannot be read.
pub(super) fn problems(
    netlink: &Netlink,
    (maps, counted): (&Maps, &[InterfaceCounters]),
    registry: &Registry,
    listed: &[NetInterface],
    hooks: &HookListing<'_>,
) -> anyhow::Result<Vec<String>> {
    let mut suspicions = Suspicions::default();
    for (slot, record, interface) in counters::attached(registry.interfaces(), listed) {
        if let Some(ours) = counted.get(slot) {
            suspicions.look_at(interface, record, ours);
        }
    }
    suspicions.problems(maps, netlink, hooks, |ifindex| {
        let slot = registry.interface_of_index(ifindex)?;
        Some((slot, *registry.interface(slot)))
    })
}

impl Suspicions {
    /// Looks at an interface that has a slot.
    fn look_at(&mut self, interface: &NetInterface, record: &InterfaceRecord, ours: &InterfaceCounters) {
        if excess::of_received(record, interface, ours).is_some() {
            self.received.push(interface.clone());
        }
        if excess::sends_at_once(interface) && excess::may_exceed_sent(record, interface, ours) {
            self.sent.push(interface.clone());
        }
    }

    /// Compares again, so that neither the order of the readings nor a queue can be the reason. Returns a problem
    /// for each interface where the excess stays.
    ///
    /// # Errors
    /// When a map cannot be read or the kernel does not answer.
    fn problems(
        self,
        maps: &Maps,
        netlink: &Netlink,
        hooks: &HookListing<'_>,
        slot_of: impl Fn(u32) -> Option<(u32, InterfaceRecord)>,
    ) -> anyhow::Result<Vec<String>> {
        let mut suspects: Vec<Suspect> = Vec::new();
        for interface in &self.received {
            // A device that was made again under this index has no program of ours, until it is attached.
            if hooks.state(interface, Direction::Out)?.ours() > 0
                && let Some((slot, record)) = slot_of(interface.index)
            {
                suspects.push((record, counters::interface_totals(maps, slot)?));
            }
        }
        let received = excess::confirmed(&suspects, |index| netlink.interface(index))?;
        let mut problems: Vec<String> = received.iter().map(|found| problem(&self.received, found)).collect();

        let read = |interface: &NetInterface| -> anyhow::Result<Option<InterfaceCounters>> {
            slot_of(interface.index).map(|(slot, _)| counters::interface_totals(maps, slot)).transpose()
        };
        let mut begun = Vec::new();
        for interface in &self.sent {
            if is_alone(netlink, hooks, interface)?
                && let Some(interface) = netlink.interface(interface.index)?
                && let Some(ours) = read(&interface)?
            {
                begun.push(Sending { interface, ours });
            }
        }
        if !begun.is_empty() {
            thread::sleep(WINDOW);
        }
        for first in begun {
            if let Some(ours) = read(&first.interface)?
                && let Some(interface) = netlink.interface(first.interface.index)?
                && excess::sends_at_once(&interface)
                && let Some(found) = excess::of_sent(&first, &Sending { interface, ours })
            {
                problems.push(problem(&self.sent, &found));
            }
        }
        Ok(problems)
    }
}

/// Whether nothing on the sending hook can take away what our program has counted.
fn is_alone(netlink: &Netlink, hooks: &HookListing<'_>, interface: &NetInterface) -> anyhow::Result<bool> {
    // Our program is on this side of the host for the direction in which the interface sends.
    let state = hooks.state(interface, Direction::In)?;
    // BPF filters are among the programs. A handle of 0 only begins the list of a priority.
    let filters = netlink.all_filters(interface.index, Direction::In)?;
    // A second filter with our program may have any name.
    let own: Vec<u32> =
        state.programs.iter().filter(|one| one.is_this_installations).map(|one| one.id).collect();
    let counts = |program: &AttachedProgram| program.is_ours() || own.contains(&program.id);
    Ok(state.programs.iter().all(counts)
        && filters.iter().all(|filter| filter.handle == 0 || filter.kind == "bpf"))
}

fn problem(interfaces: &[NetInterface], found: &Excess) -> String {
    let name = interfaces.iter().find(|one| one.index == found.ifindex).map_or("?", |one| one.name.as_str());
    let direction = match found.direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    format!(
        "{name}: {} {direction} counted where the kernel has {}: packets pass the hook twice, or another tool puts \
         them there, and they count too often; look for redirects to it in `tc filter show` of other interfaces",
        traffic_model::counted(found.counted.skbs, "buffer"),
        found.kernel.skbs,
    )
}
