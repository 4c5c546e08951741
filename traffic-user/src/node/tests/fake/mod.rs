//! A kernel made of plain data: devices with statistics, hooks, pins and maps. Any call can be made to fail,
//! and packets can pass during any call.

mod hooks;
mod maps;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::bail;
use ipnet::IpNet;
use traffic_common::{
    ContainerRecord, Direction, InterfaceCounters, InterfaceEntry, InterfaceRecord, InterfaceStatistics,
    UNKNOWN_INTERFACE_SLOT, interface_flags, slot_state,
};

use crate::{
    kernel::records::{EMPTY_CONTAINER, EMPTY_INTERFACE, read_text},
    net::interface::NetInterface,
    node::{
        kernel_access::{Clock, InterfaceList},
        slot_reclaim::FinalReading,
    },
};

/// Layer-2 bytes of each packet.
const PACKET: u64 = 100;

/// One device, which keeps its identity when it is renamed or moved.
#[derive(Clone, Debug)]
pub struct Device {
    pub index: u32,
    pub name: String,
    pub mac: Option<[u8; 6]>,
    pub statistics: InterfaceStatistics,
    /// By direction: the programs on the hook, by the index that their link is pinned under.
    hooks: [BTreeMap<u32, u32>; 2],
    /// By direction: packets that passed while nothing of ours was on the hook, since it last was.
    missed: [u64; 2],
}

/// Everything that changes, behind a cell because readers let packets pass as well.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Devices in the node's network namespace.
    pub devices: BTreeMap<u64, Device>,
    /// Devices in another one.
    pub elsewhere: BTreeMap<u64, Device>,
    next_device: u64,
    /// By index and direction: the device that the pinned link is attached to.
    pins: BTreeMap<(u32, u32), u64>,
    containers: Vec<ContainerRecord>,
    interfaces: Vec<InterfaceRecord>,
    entries: BTreeMap<u32, InterfaceEntry>,
    totals: Vec<InterfaceCounters>,
    /// By container slot: packets counted.
    counted: Vec<u64>,
    /// By container slot and device: packets counted since the slot was last free.
    pub counted_of: BTreeMap<(u32, u64), u64>,
    /// By container slot: packets in the ledger.
    in_ledger: Vec<u64>,
    has_ledger: bool,
    addresses: BTreeMap<IpNet, u32>,
    program: u32,
    /// Packets that passed uncounted.
    missed: u64,
    /// Those of them on devices that were attached afterwards.
    expected_missed: u64,
    /// Packets not counted for their own interface, because the device came back under another index a moment
    /// ago.
    strays: u64,
    /// Missed packets in the records of slots that were given to others.
    former_missed: u64,
    /// What must never happen, and did.
    pub violations: Vec<String>,
}

/// The kernel.
#[derive(Debug)]
pub struct FakeKernel {
    pub state: RefCell<State>,
    /// Calls until one fails.
    pub fails_in: Cell<Option<u32>>,
    /// Calls so far.
    pub calls: Cell<u32>,
    /// Listings of all interfaces so far.
    pub listings: Cell<u32>,
    /// The next listing lacks the interface of this index.
    pub hidden: Cell<Option<u32>>,
    /// So many attaches are acknowledged without an effect.
    pub lost_attaches: Cell<u32>,
    /// Let packets pass on every device before each so many calls; 0 for never.
    pub traffic_every: Cell<u32>,
}

fn slot(number: u32) -> usize {
    number as usize
}

impl FakeKernel {
    pub fn new(containers: usize, interfaces: usize) -> Self {
        let mut records = vec![EMPTY_INTERFACE; interfaces];
        records[slot(UNKNOWN_INTERFACE_SLOT)].state = slot_state::IN_USE;
        let state = State {
            containers: vec![EMPTY_CONTAINER; containers],
            interfaces: records,
            totals: vec![InterfaceCounters::default(); interfaces],
            counted: vec![0; containers],
            in_ledger: vec![0; containers],
            has_ledger: true,
            program: 1,
            ..State::default()
        };
        Self {
            state: RefCell::new(state),
            fails_in: Cell::new(None),
            calls: Cell::new(0),
            listings: Cell::new(0),
            hidden: Cell::new(None),
            lost_attaches: Cell::new(0),
            traffic_every: Cell::new(0),
        }
    }

    pub fn add_device(&self, index: u32, name: &str) -> u64 {
        let mut state = self.state.borrow_mut();
        state.next_device += 1;
        let id = state.next_device;
        let device = Device {
            index,
            name: name.to_owned(),
            mac: None,
            statistics: InterfaceStatistics::default(),
            hooks: Default::default(),
            missed: [0; 2],
        };
        state.devices.insert(id, device);
        id
    }

    /// Another program is wanted from now on.
    pub fn change_program(&self) {
        self.state.borrow_mut().program += 1;
    }

    /// A call: it may fail, and packets may pass before it.
    fn call(&self, what: &str) -> anyhow::Result<()> {
        self.calls.set(self.calls.get() + 1);
        let every = self.traffic_every.get();
        if every != 0 && self.calls.get().is_multiple_of(every) {
            self.pass_packets();
        }
        match self.fails_in.get() {
            Some(0) => {
                self.fails_in.set(None);
                bail!("{what}: made to fail");
            }
            Some(left) => self.fails_in.set(Some(left - 1)),
            None => {}
        }
        Ok(())
    }

    /// A packet in each direction of every device.
    pub fn pass_packets(&self) {
        let mut state = self.state.borrow_mut();
        let ids: Vec<u64> = state.devices.keys().copied().collect();
        for id in ids {
            for direction in Direction::BOTH {
                state.pass(id, direction);
            }
        }
    }

    /// Missed packets that the records of all slots hold.
    pub fn recorded_missed(&self) -> u64 {
        let state = self.state.borrow();
        let in_records: u64 =
            state.interfaces.iter().map(|record| record.missed.packets.iter().sum::<u64>()).sum();
        in_records + state.former_missed
    }

    pub fn strays(&self) -> u64 {
        self.state.borrow().strays
    }

    /// Packets that passed uncounted, on whatever device.
    pub fn missed(&self) -> u64 {
        self.state.borrow().missed
    }

    pub fn expected_missed(&self) -> u64 {
        self.state.borrow().expected_missed
    }

    /// What is wrong with the node when nothing is left to do.
    pub fn unsettled(&self, owner_of: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let state = self.state.borrow();
        let mut wrong = state.violations.clone();
        let mut indexes = BTreeSet::new();
        for device in state.devices.values() {
            indexes.insert(device.index);
            let Some(owner) = owner_of(&device.name) else { continue };
            let wanted = BTreeMap::from([(device.index, state.program)]);
            if device.hooks.iter().any(|hook| *hook != wanted) {
                wrong.push(format!("{}: hooks {:?}", device.name, device.hooks));
            }
            let Some(entry) = state.entries.get(&device.index) else {
                wrong.push(format!("{}: no entry", device.name));
                continue;
            };
            if entry.flags & interface_flags::NO_SLOT == 0 && state.owner(entry.container_slot) != owner {
                wrong.push(format!("{}: counted for {}", device.name, state.owner(entry.container_slot)));
            }
        }
        let stale = |kind: &str, index: &u32| format!("{kind} of index {index}, which does not exist");
        wrong.extend(
            state.entries.keys().filter(|index| !indexes.contains(*index)).map(|index| stale("entry", index)),
        );
        wrong.extend(
            state
                .pins
                .keys()
                .filter(|(index, _)| !indexes.contains(index))
                .map(|(index, _)| stale("pin", index)),
        );
        for record in state.interfaces.iter().filter(|record| record.ifindex != 0) {
            if !indexes.contains(&record.ifindex) {
                wrong.push(stale("record", &record.ifindex));
            }
        }
        wrong
    }
}

impl State {
    /// Who has a container slot.
    pub fn owner(&self, container_slot: u32) -> &str {
        self.containers
            .get(slot(container_slot))
            .filter(|record| record.state == slot_state::IN_USE)
            .map_or("nobody", |record| read_text(&record.id))
    }

    /// A packet, as the kernel and the program handle it.
    fn pass(&mut self, id: u64, direction: Direction) {
        let at = direction as usize;
        let Some(device) = self.devices.get_mut(&id) else { return };
        device.statistics.packets[at] += 1;
        device.statistics.bytes[at] += PACKET;
        if device.hooks[at].is_empty() {
            device.missed[at] += 1;
            self.missed += 1;
            return;
        }
        let (index, name) = (device.index, device.name.clone());
        let entry = self.entries.get(&index).copied();
        let interface_slot = entry.map_or(UNKNOWN_INTERFACE_SLOT, |entry| entry.interface_slot);
        let passed = &mut self.totals[slot(interface_slot)].passed[at];
        passed.skbs += 1;
        passed.skb_bytes += PACKET;
        passed.wire.packets += 1;
        passed.wire.bytes += PACKET - 14;
        // A device that came back under another index is noticed with the next event. Until then its packets
        // are in the fault for unknown interfaces, or in the slot of the index's former interface.
        let is_at_its_pin = self.pins.get(&(index, direction as u32)) == Some(&id);
        if !is_at_its_pin {
            self.strays += 1;
        }
        let Some(entry) = entry else {
            if !is_at_its_pin {
                return;
            }
            self.violations.push(format!("{name}: a packet of an attached interface met no entry"));
            return;
        };
        if entry.flags & interface_flags::NO_SLOT != 0 {
            return;
        }
        if self.owner(entry.container_slot) == "nobody" && is_at_its_pin {
            self.violations.push(format!("{name}: a packet was counted in a slot without an owner"));
        }
        self.counted[slot(entry.container_slot)] += 1;
        *self.counted_of.entry((entry.container_slot, id)).or_default() += 1;
    }

    /// The device of an index in the node's namespace.
    fn device_of(&mut self, index: u32) -> Option<(u64, &mut Device)> {
        self.devices.iter_mut().find(|(_, device)| device.index == index).map(|(id, device)| (*id, device))
    }

    fn unhook(&mut self, id: u64, at: usize, index: u32) {
        for devices in [&mut self.devices, &mut self.elsewhere] {
            if let Some(device) = devices.get_mut(&id) {
                device.hooks[at].remove(&index);
            }
        }
    }
}

impl InterfaceList for FakeKernel {
    fn interfaces(&self) -> anyhow::Result<Vec<NetInterface>> {
        self.call("list interfaces")?;
        self.listings.set(self.listings.get() + 1);
        let hidden = self.hidden.take();
        let state = self.state.borrow();
        let listed = state.devices.values().filter(|device| Some(device.index) != hidden);
        Ok(listed.map(as_interface).collect())
    }

    fn interface(&self, index: u32) -> anyhow::Result<Option<NetInterface>> {
        self.call("ask for an interface")?;
        let state = self.state.borrow();
        Ok(state.devices.values().find(|device| device.index == index).map(as_interface))
    }

    fn own_addresses(&self) -> anyhow::Result<BTreeSet<IpAddr>> {
        self.call("list addresses")?;
        Ok(BTreeSet::new())
    }
}

pub(crate) fn as_interface(device: &Device) -> NetInterface {
    NetInterface {
        index: device.index,
        name: device.name.clone(),
        mac: device.mac,
        ethernet: true,
        statistics: device.statistics,
        ..NetInterface::default()
    }
}

impl Clock for FakeKernel {
    fn unix_seconds(&self) -> u64 {
        1_800_000_000 + u64::from(self.calls.get())
    }
}

impl FinalReading for FakeKernel {
    fn write_final_reading(&mut self) -> anyhow::Result<bool> {
        self.call("drain")?;
        let mut state = self.state.borrow_mut();
        let counted = state.counted.clone();
        state.in_ledger = counted;
        Ok(state.has_ledger)
    }
}

/// Owners of the entries, for a comparison by eye when a test fails.
pub fn shown(kernel: &FakeKernel) -> HashMap<u32, String> {
    let state = kernel.state.borrow();
    let owner = |entry: &InterfaceEntry| state.owner(entry.container_slot).to_owned();
    state.entries.iter().map(|(index, entry)| (*index, owner(entry))).collect()
}
