//! The hooks of the kernel made of plain data.

use anyhow::bail;
use traffic_common::{DIRECTIONS, Direction};

use super::FakeKernel;
use crate::{
    kernel::hooks::{Change, DeviceFate, HookSeen, OnHook},
    net::interface::NetInterface,
    node::kernel_access::Hooks,
};

impl FakeKernel {
    fn seen(&self, interface: &NetInterface) -> anyhow::Result<[HookSeen; DIRECTIONS]> {
        self.call("look at the hooks")?;
        let mut state = self.state.borrow_mut();
        let program = state.program;
        Ok(Direction::BOTH.map(|direction| {
            let pin = state.pins.get(&(interface.index, direction as u32)).copied();
            let device = state.device_of(interface.index);
            let on_hook = device
                .filter(|(id, _)| pin == Some(*id))
                .and_then(|(_, device)| device.hooks[direction as usize].get(&interface.index).copied());
            HookSeen {
                ours: match on_hook {
                    None => OnHook::Nothing,
                    Some(found) if found == program => OnHook::Current,
                    Some(_) => OnHook::Other,
                },
                pin: pin.map(|_| on_hook.is_some()),
                ..HookSeen::default()
            }
        }))
    }
}

impl Hooks for FakeKernel {
    fn look(
        &self,
        interfaces: &[&NetInterface],
    ) -> anyhow::Result<Vec<anyhow::Result<[HookSeen; DIRECTIONS]>>> {
        Ok(interfaces.iter().map(|interface| self.seen(interface)).collect())
    }

    fn is_known_device(&self, interface: &NetInterface) -> anyhow::Result<Option<bool>> {
        self.call("look for a device")?;
        let mut state = self.state.borrow_mut();
        let id = state.device_of(interface.index).map(|(id, _)| id);
        let pins = Direction::BOTH.map(|direction| state.pins.get(&(interface.index, direction as u32)));
        Ok(pins.into_iter().flatten().map(|pin| Some(*pin) == id).reduce(|a, b| a || b))
    }

    fn attach(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<Change> {
        if self.seen(interface)?[direction as usize].ours == OnHook::Current {
            return Ok(Change::Kept);
        }
        if self.replace(interface, direction)? {
            return Ok(Change::Replaced);
        }
        let key = (interface.index, direction as u32);
        let stale = self.state.borrow_mut().pins.remove(&key);
        if let Some(id) = stale {
            self.state.borrow_mut().unhook(id, direction as usize, interface.index);
        }
        self.call("attach")?;
        if let Some(left) = self.lost_attaches.get().checked_sub(1) {
            self.lost_attaches.set(left);
            return Ok(Change::Attached);
        }
        let mut state = self.state.borrow_mut();
        let program = state.program;
        let Some((id, device)) = state.device_of(interface.index) else { bail!("no such device") };
        device.hooks[direction as usize].insert(interface.index, program);
        let missed = std::mem::take(&mut device.missed[direction as usize]);
        state.expected_missed += missed;
        state.pins.insert(key, id);
        Ok(Change::Attached)
    }

    fn replace(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool> {
        self.call("replace a program")?;
        let mut state = self.state.borrow_mut();
        let program = state.program;
        let pin = state.pins.get(&(interface.index, direction as u32)).copied();
        match state.device_of(interface.index) {
            Some((id, device)) if pin == Some(id) => {
                let hook = device.hooks[direction as usize].get_mut(&interface.index);
                Ok(hook.map(|on_hook| *on_hook = program).is_some())
            }
            _ => Ok(false),
        }
    }

    fn detach(&mut self, interface: &NetInterface, direction: Direction) -> anyhow::Result<bool> {
        self.call("detach")?;
        let mut state = self.state.borrow_mut();
        let pin = state.pins.remove(&(interface.index, direction as u32));
        if let Some(id) = pin {
            state.unhook(id, direction as usize, interface.index);
        }
        Ok(pin.is_some())
    }

    fn detach_other_kind(&mut self, _: &NetInterface, _: Direction) -> anyhow::Result<bool> {
        self.call("detach the other kind").map(|()| false)
    }

    fn release(&mut self, ifindex: u32) -> anyhow::Result<DeviceFate> {
        let mut fate = DeviceFate::Unknown;
        for direction in Direction::BOTH {
            self.call("unpin")?;
            let mut state = self.state.borrow_mut();
            if let Some(id) = state.pins.remove(&(ifindex, direction as u32)) {
                let lives = state.devices.contains_key(&id) || state.elsewhere.contains_key(&id);
                fate = fate.and(if lives { DeviceFate::Moved } else { DeviceFate::Ended });
                state.unhook(id, direction as usize, ifindex);
            }
        }
        Ok(fate)
    }

    fn attached_interfaces(&self) -> anyhow::Result<Vec<u32>> {
        self.call("list pins")?;
        Ok(self.state.borrow().pins.keys().map(|(index, _)| *index).collect())
    }

    fn finish_replacement(&mut self) -> anyhow::Result<()> {
        self.call("finish the replacement")
    }
}
