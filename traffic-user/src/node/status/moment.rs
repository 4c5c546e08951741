//! The kernel's statistics of all interfaces, with our counters just before and just after them.
//!
//! They are read first and together. Whatever else is looked up for `trafctl status` afterwards, such as the owners of
//! the interfaces, may take its time.

use std::collections::{HashMap, HashSet};

use traffic_common::{Direction, InterfaceCounters, InterfaceRecord};

use crate::{
    kernel::{counters, hooks, maps::Maps},
    net::interface::NetInterface,
    node::Host,
};

/// All interfaces of the host with the kernel's statistics, and our counters just before and just after them.
#[derive(Debug)]
pub struct Moment {
    pub(super) listed: Vec<NetInterface>,
    /// By slot.
    pub(super) counted_before: Vec<InterfaceCounters>,
    pub(super) counted: Counted,
}

impl Moment {
    /// Lists them. Ours are read before the kernel's statistics and again right after them: packets that pass in
    /// between must look neither like packets that count twice, nor like missed ones. `when_listed` begins what
    /// needs the interfaces listed, and nothing else.
    ///
    /// # Errors
    /// When a map or the list of interfaces cannot be read.
    pub fn read(
        host: &Host,
        maps: &Maps,
        when_listed: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let counted_before = counters::all_interfaces_totals(maps)?;
        let mut listed = host.netlink.interfaces()?;
        // One request for each container, so only where there could be a difference.
        if hooks::may_redirect() {
            let attached: HashSet<u32> =
                counters::used_interface_records(maps)?.iter().map(|record| record.ifindex).collect();
            host.netlink.add_other_ends(&mut listed, |interface| attached.contains(&interface.index));
        }
        when_listed()?;
        let counted = Counted::read(maps)?;
        Ok(Self { listed, counted_before, counted })
    }

    /// The interfaces.
    pub fn interfaces(&self) -> &[NetInterface] {
        &self.listed
    }
}

/// What the interfaces' slots have counted, by the index of the interface.
#[derive(Debug)]
pub(super) struct Counted(HashMap<u32, (InterfaceRecord, InterfaceCounters)>);

impl Counted {
    fn read(maps: &Maps) -> anyhow::Result<Self> {
        let records = counters::used_interface_records(maps)?;
        let end = records.iter().rposition(|record| record.ifindex != 0).map_or(0, |last| last + 1);
        let counters = counters::interfaces_totals(maps, u32::try_from(end)?)?;
        let mut by_index = HashMap::new();
        for (record, counters) in records.into_iter().zip(counters).filter(|(record, _)| record.ifindex != 0)
        {
            // An attach that was interrupted leaves two records of an index; the first one counts.
            by_index.entry(record.ifindex).or_insert((record, counters));
        }
        Ok(Self(by_index))
    }

    /// The directions in which fewer buffers reached the program than the kernel counted: both numbers.
    pub(super) fn missed_buffers(&self, interface: &NetInterface) -> Vec<(Direction, u64, u64)> {
        let Some((record, ours)) = self.0.get(&interface.index) else { return Vec::new() };
        let since = counters::since_attach(record, &interface.statistics, ours);
        let sides = [(Direction::In, since.incoming), (Direction::Out, since.outgoing)];
        let missed = sides
            .into_iter()
            .filter(|&(direction, side)| counters::is_missed(side, &ours.passed[direction as usize]))
            .map(|(direction, side)| (direction, side.kernel.skbs, side.counted.skbs));
        missed.collect()
    }
}
