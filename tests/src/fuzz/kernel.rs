//! Runs frames through the pinned program and reads the growth of the counters.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};

use super::{
    Counter, Growth, Interface, Way,
    frames::Frame,
    reference::{CLASSES, SHARED},
};
use crate::{Amounts, Container, Counters, Lab};

/// `TC_ACT_UNSPEC`
const UNSPEC: u32 = u32::MAX;
/// Size of `struct __sk_buff` in bytes, and offsets of the fields that are set.
const CONTEXT: usize = 192;
const IFINDEX: usize = 40;
const GSO_SEGMENTS: usize = 164;
const GSO_SIZE: usize = 176;
/// An interface without a program.
const LOOPBACK: u32 = 1;

/// A node with a container's own interface and a shared one.
pub struct Node<'a> {
    lab: &'a Lab,
    ingress: SchedClassifier,
    egress: SchedClassifier,
    own: u32,
    shared: u32,
    /// They keep their interfaces alive.
    _containers: [Container; 2],
}

impl<'a> Node<'a> {
    /// Creates the node and attaches.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let classes = lab.write("classes", CLASSES)?;
        lab.configure(&format!(
            "class_file = {classes:?}\n[[interfaces.rule]]\npattern = '^shared0$'\nkind = 'shared'\n"
        ))?;
        let own = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
        let shared = lab.bridged_as("shared0", [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
        lab.run_ok(&["attach"])?;
        for (id, address) in SHARED {
            lab.run_ok(&["address", "add", id, address])?;
        }
        let program = |name: &str| SchedClassifier::from_pin(lab.bpffs().join("programs").join(name));
        Ok(Self {
            lab,
            ingress: program("trafctl_ingress")?,
            egress: program("trafctl_egress")?,
            own: index_of(lab, own.interface())?,
            shared: index_of(lab, shared.interface())?,
            _containers: [own, shared],
        })
    }

    /// Runs frames and returns the growth of every counter that changed. Also compares the totals of the
    /// interfaces, and their buffers.
    pub fn send(&self, frames: &[Frame]) -> Result<Growth> {
        let before = Counters::read(self.lab)?;
        self.lab.host().enter(|| frames.iter().try_for_each(|frame| self.run(frame)))?;
        let after = Counters::read(self.lab)?;
        self.check_totals(frames, &before, &after)?;
        let (was, mut is) = (growth(&before)?, growth(&after)?);
        is.retain(|counter, amounts| {
            *amounts = amounts.since(was.get(counter).copied().unwrap_or_default());
            *amounts != Amounts::default()
        });
        Ok(is)
    }

    fn run(&self, frame: &Frame) -> Result<()> {
        let mut context = [0_u8; CONTEXT];
        let mut put = |at: usize, value: u32| context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        put(
            IFINDEX,
            match frame.interface {
                Interface::Own => self.own,
                Interface::Shared => self.shared,
                Interface::Unknown => LOOPBACK,
            },
        );
        if let Some((size, segments)) = frame.gso {
            put(GSO_SEGMENTS, segments.into());
            put(GSO_SIZE, size.into());
        }
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame.bytes);
        options.ctx_in = Some(&context);
        let program = match frame.way {
            Way::In => &self.egress,
            Way::Out => &self.ingress,
        };
        let verdict = program.test_run(options).with_context(|| frame.to_string())?.return_value;
        ensure!(verdict == UNSPEC, "the verdict was {verdict} for {frame}");
        Ok(())
    }

    fn check_totals(&self, frames: &[Frame], before: &Counters, after: &Counters) -> Result<()> {
        for (interface, name) in
            [(Interface::Own, "veth101.0"), (Interface::Shared, "shared0"), (Interface::Unknown, "(other)")]
        {
            // `(other)` is registered by its first packet.
            let (was, is) = (before.interface_or_zero(name), after.interface_or_zero(name));
            let buffers = Amounts::both(
                (is.in_skbs - was.in_skbs, is.in_skb_bytes - was.in_skb_bytes),
                (is.out_skbs - was.out_skbs, is.out_skb_bytes - was.out_skb_bytes),
            );
            let sent = frames.iter().filter(|frame| frame.interface == interface);
            let sent = sent.fold(Amounts::default(), |sum, frame| {
                let len = frame.bytes.len() as u64;
                sum.plus(match frame.way {
                    Way::In => Amounts::incoming(1, len),
                    Way::Out => Amounts::outgoing(1, len),
                })
            });
            ensure!(buffers == sent, "{name}: buffers {buffers:?}, sent {sent:?}");
        }
        let all = |counters: &Counters| {
            let interfaces = counters.interfaces.iter().map(|row| row.amounts);
            interfaces.fold(Amounts::default(), Amounts::plus)
        };
        let counted = |counters: &Counters| -> Result<Amounts> {
            Ok(growth(counters)?.into_values().fold(Amounts::default(), Amounts::plus))
        };
        let (passed, counted) = (all(after).since(all(before)), counted(after)?.since(counted(before)?));
        ensure!(passed == counted, "passed {passed:?}, classes and faults {counted:?}");
        Ok(())
    }
}

/// All counters by name. An unknown name is an error, because nothing would compare its counter.
pub fn growth(counters: &Counters) -> Result<BTreeMap<Counter, Amounts>> {
    const FAULTS: [&str; 6] =
        ["not_ip", "truncated", "malformed", "vlan_depth", "no_container", "unknown_interface"];
    let known = |names: &[&'static str], name: &str| {
        names.iter().copied().find(|known| *known == name).with_context(|| format!("{name} is counted"))
    };
    let mut all = BTreeMap::new();
    for row in &counters.counters {
        let family = known(&["ipv4", "ipv6"], &row.family)?;
        all.insert(Counter::Class(row.container.clone(), row.class, family), row.amounts);
    }
    for row in &counters.faults {
        let interface = known(&["veth101.0", "veth102.0", "shared0", "(other)"], &row.interface)?;
        all.insert(Counter::Fault(interface, known(&FAULTS, &row.fault)?), row.amounts);
    }
    Ok(all)
}

fn index_of(lab: &Lab, interface: &str) -> Result<u32> {
    let text = lab.host().ip(&format!("-o link show {interface}"))?;
    text.split(':').next().and_then(|index| index.trim().parse().ok()).context("no index")
}
