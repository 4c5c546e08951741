//! The maps of the kernel made of plain data.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use traffic_common::{ContainerRecord, InterfaceCounters, InterfaceEntry, InterfaceRecord, slot_state};

use super::{FakeKernel, slot};
use crate::{kernel::tables::OtherAddresses, node::kernel_access::SlotMaps};

impl SlotMaps for FakeKernel {
    fn container_records(&self) -> anyhow::Result<Vec<ContainerRecord>> {
        self.call("read containers")?;
        Ok(self.state.borrow().containers.clone())
    }

    fn interface_records(&self) -> anyhow::Result<Vec<InterfaceRecord>> {
        self.call("read interfaces")?;
        Ok(self.state.borrow().interfaces.clone())
    }

    fn set_container_record(&mut self, number: u32, record: ContainerRecord) -> anyhow::Result<()> {
        self.call("write a container")?;
        let mut state = self.state.borrow_mut();
        if record.state == slot_state::FREE {
            let (counted, in_ledger) = (state.counted[slot(number)], state.in_ledger[slot(number)]);
            if counted != in_ledger {
                state
                    .violations
                    .push(format!("slot {number} was freed with {in_ledger} of {counted} written"));
            }
        }
        if record.state == slot_state::FREE {
            state.counted_of.retain(|(of, _), _| *of != number);
        }
        state.containers[slot(number)] = record;
        Ok(())
    }

    fn set_interface_record(&mut self, number: u32, record: InterfaceRecord) -> anyhow::Result<()> {
        self.call("write an interface")?;
        let mut state = self.state.borrow_mut();
        let old = state.interfaces[slot(number)];
        if record.state == slot_state::FREE {
            state.former_missed += old.missed.packets.iter().sum::<u64>();
        }
        state.interfaces[slot(number)] = record;
        Ok(())
    }

    fn interface_totals(&self, number: u32) -> anyhow::Result<InterfaceCounters> {
        self.call("read totals")?;
        Ok(self.state.borrow().totals[slot(number)])
    }

    fn rebase_container(&mut self, number: u32) -> anyhow::Result<()> {
        self.call("rebase a container")?;
        let mut state = self.state.borrow_mut();
        if state.counted[slot(number)] != state.in_ledger[slot(number)] {
            state.violations.push(format!("slot {number} got another owner before its final reading"));
        }
        Ok(())
    }

    fn rebase_interface(&mut self, _: u32) -> anyhow::Result<()> {
        self.call("rebase an interface")
    }

    fn skb_marks(&self) -> anyhow::Result<Option<Vec<u64>>> {
        self.call("read marks").map(|()| None)
    }

    fn set_skb_mark(&mut self, _: u32, _: u64) -> anyhow::Result<()> {
        self.call("write a mark")
    }

    fn entries(&self) -> anyhow::Result<Vec<(u32, InterfaceEntry)>> {
        self.call("read entries")?;
        Ok(self.state.borrow().entries.iter().map(|(index, entry)| (*index, *entry)).collect())
    }

    fn entries_of(&self, indexes: &BTreeSet<u32>) -> anyhow::Result<Vec<(u32, InterfaceEntry)>> {
        self.call("read entries of some")?;
        let state = self.state.borrow();
        Ok(indexes.iter().filter_map(|index| Some((*index, *state.entries.get(index)?))).collect())
    }

    fn set_entry(&mut self, ifindex: u32, entry: InterfaceEntry) -> anyhow::Result<()> {
        self.call("write an entry")?;
        let mut state = self.state.borrow_mut();
        if entry == InterfaceEntry::default() {
            state.entries.remove(&ifindex);
        } else {
            state.entries.insert(ifindex, entry);
        }
        Ok(())
    }

    fn sync_addresses(
        &mut self,
        wanted: &BTreeMap<IpNet, u32>,
        others: OtherAddresses,
    ) -> anyhow::Result<Vec<IpNet>> {
        self.call("write addresses")?;
        let mut state = self.state.borrow_mut();
        if others == OtherAddresses::Remove {
            state.addresses.clear();
        }
        state.addresses.extend(wanted);
        Ok(Vec::new())
    }

    fn sync_node_addresses(&mut self, _: &BTreeSet<IpAddr>) -> anyhow::Result<Vec<IpAddr>> {
        self.call("write the node's addresses").map(|()| Vec::new())
    }

    fn wait_for_packets(&mut self) -> anyhow::Result<()> {
        self.call("wait for packets")
    }
}
