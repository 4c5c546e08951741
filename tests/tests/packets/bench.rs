//! Runs single packets through the program of one node, and compares the counters before and after each.

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use traffic_tests::{Amounts, Counters, Lab};

use crate::frames::{CLASSES, CONTAINER, CONTAINER_V6};

/// `TC_ACT_UNSPEC`: the next program on the hook decides.
pub const UNSPEC: u32 = u32::MAX;

/// A mark that another program has set.
pub const MARK: u32 = 0xbeef;
/// Offset of the mark in `struct __sk_buff`.
pub const CONTEXT_MARK: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    In,
    Out,
}
pub use Way::{In, Out};

/// The counter of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Class(u8, &'static str),
    Fault(&'static str),
}
pub use Place::{Class, Fault};

/// A packet and its expected counter.
pub struct Case {
    pub what: &'static str,
    pub way: Way,
    pub frame: Vec<u8>,
    pub gso: Option<Gso>,
    pub place: Place,
    pub packets: u64,
    pub bytes: u64,
}

/// The context's description of a super-packet.
#[derive(Clone, Copy)]
pub struct Gso {
    pub size: u32,
    pub segments: u32,
}

/// Runs packets through the program of one node, and compares the counters before and after each.
pub struct Bench {
    pub lab: Lab,
    pub ifindex: u32,
    pub before: Counters,
}

impl Bench {
    pub fn new(name: &str) -> Result<Self> {
        Self::configured(name, "")
    }

    /// Creates the node with these tables in the configuration.
    pub fn configured(name: &str, tables: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let classes = lab.write("classes", CLASSES)?;
        lab.configure(&format!("class_file = {classes:?}\n{tables}"))?;
        // The container exists only for the name of its interface. It sends nothing.
        let container = lab.bridged(101, 0, CONTAINER, CONTAINER_V6)?;
        let ifindex = index_of(&lab, container.interface())?;
        lab.run_ok(&["attach"])?;
        // The interface may be deleted: the program finds its entry by the index in the context.
        std::mem::forget(container);
        let before = Counters::read(&lab)?;
        Ok(Self { lab, ifindex, before })
    }

    pub fn run(
        &mut self,
        way: Way,
        frame: &[u8],
        gso: Option<Gso>,
        ifindex: u32,
    ) -> Result<(Counters, Counters)> {
        let mark = run(&self.lab, way, frame, gso, ifindex)?;
        ensure!(mark == MARK, "the program changed the mark to {mark}");
        let after = Counters::read(&self.lab)?;
        let before = std::mem::replace(&mut self.before, after.clone());
        Ok((before, after))
    }

    pub fn check(&mut self, case: &Case) -> Result<()> {
        let (before, after) = self.run(case.way, &case.frame, case.gso, self.ifindex)?;
        let expected = match case.way {
            In => Amounts::incoming(case.packets, case.bytes),
            Out => Amounts::outgoing(case.packets, case.bytes),
        };
        // Before the first packet of its kind there is no counter.
        let counted = match case.place {
            Class(class, family) => {
                after.class("101", class, family).since(before.class_or_zero("101", class, family))
            }
            Fault(fault) => after.fault("veth101.0", fault).since(before.fault_or_zero("veth101.0", fault)),
        };
        ensure!(counted == expected, "counted {counted:?} instead of {expected:?}: {after:#?}");
        let (was, is) = (before.interface("veth101.0"), after.interface("veth101.0"));
        let passed = is.amounts.since(was.amounts);
        ensure!(passed == expected, "passed {passed:?} instead of {expected:?}");
        // No other counter may change.
        let all = |counters: &Counters| {
            let classes = counters.counters.iter().map(|row| row.amounts);
            classes
                .chain(counters.faults.iter().map(|row| row.amounts))
                .fold(Amounts::default(), Amounts::plus)
        };
        ensure!(all(&after).since(all(&before)) == expected, "something else was counted too: {after:#?}");
        let skbs = Amounts::both(
            (is.in_skbs - was.in_skbs, is.in_skb_bytes - was.in_skb_bytes),
            (is.out_skbs - was.out_skbs, is.out_skb_bytes - was.out_skb_bytes),
        );
        let len = case.frame.len() as u64;
        let buffer = match case.way {
            In => Amounts::incoming(1, len),
            Out => Amounts::outgoing(1, len),
        };
        ensure!(skbs == buffer, "the buffer was counted as {skbs:?}");
        let estimated = is.in_estimated_packets + is.out_estimated_packets
            - was.in_estimated_packets
            - was.out_estimated_packets;
        // The test run sets no segmentation type, so the program must report that it estimated.
        let expected = if case.gso.is_some() { case.packets } else { 0 };
        ensure!(estimated == expected, "{estimated} packets count as estimated instead of {expected}");
        Ok(())
    }
}

/// Runs a packet with a mark through the pinned program. Returns its mark afterwards.
pub fn run(lab: &Lab, way: Way, frame: &[u8], gso: Option<Gso>, ifindex: u32) -> Result<u32> {
    let name = match way {
        In => "trafctl_egress",
        Out => "trafctl_ingress",
    };
    let program = SchedClassifier::from_pin(lab.bpffs().join("programs").join(name))?;
    let mut context = [0_u8; 192];
    let mut put = |at: usize, value: u32| context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    put(CONTEXT_MARK, MARK);
    // `struct __sk_buff`: ifindex, gso_segs, gso_size.
    put(40, ifindex);
    if let Some(gso) = gso {
        put(164, gso.segments);
        put(176, gso.size);
    }
    let mut left = [0_u8; 192];
    let verdict = lab.host().enter(|| {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&context);
        options.ctx_out = Some(&mut left);
        Ok(program.test_run(options)?.return_value)
    })?;
    ensure!(verdict == UNSPEC, "the verdict was {verdict}");
    Ok(u32::from_ne_bytes(left[CONTEXT_MARK..CONTEXT_MARK + 4].try_into()?))
}

pub fn index_of(lab: &Lab, interface: &str) -> Result<u32> {
    let text = lab.host().ip(&format!("-o link show {interface}"))?;
    text.split(':').next().and_then(|index| index.trim().parse().ok()).context("no index")
}
