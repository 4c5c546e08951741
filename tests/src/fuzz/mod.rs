//! Generated frames, compared with a parser that shares nothing with the program.
//!
//! `frames` generates them, `reference` decides where each belongs, and `kernel` runs them through the pinned
//! program with `BPF_PROG_TEST_RUN`. Over a batch, exactly the counters that the reference names must have
//! grown, by the same amounts. A batch that differs is halved until the frame is found. [`over_wire`] sends
//! frames as real traffic.

mod frames;
mod kernel;
mod reference;
mod wire;

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

use crate::{Amounts, Lab};

use frames::{Frame, Generator};
use kernel::Node;
use reference::judge;

pub use wire::over_wire;

/// Frames between two readings of the counters.
const BATCH: usize = 5000;

/// The direction, as seen by the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the container.
    In,
    /// From the container.
    Out,
}

/// The interface of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The own interface of container 101.
    Own,
    /// Shared by containers, which are identified by address.
    Shared,
    /// Not registered.
    Unknown,
}

/// A counter, under the names of `trafctl dump`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Container, class, family.
    Class(String, u8, &'static str),
    /// Interface, fault.
    Fault(&'static str, &'static str),
}

/// The growth of each counter.
pub(crate) type Growth = BTreeMap<Counter, Amounts>;

/// The result of a run.
#[derive(Debug)]
pub struct Summary {
    /// Frames sent.
    pub frames: u64,
    /// The sum that the reference expects.
    pub expected: Amounts,
    /// The amounts that the kernel counted, by counter.
    pub counted: BTreeMap<Counter, Amounts>,
}

/// Generates this many frames from the seed and runs them.
///
/// # Errors
///
/// When a frame is not counted as the reference expects; the error contains the frame and both results.
pub fn run(seed: u64, frames: u64, mut progress: impl FnMut(u64)) -> Result<Summary> {
    let lab = Lab::new("fuzz")?;
    let node = Node::new(&lab)?;
    let mut generator = Generator::new(seed);
    let mut summary = Summary { frames: 0, expected: Amounts::default(), counted: BTreeMap::new() };
    while summary.frames < frames {
        let batch: Vec<Frame> = (0..BATCH).map(|_| generator.frame()).collect();
        let expected = expected(&batch);
        let counted = node.send(&batch)?;
        if counted != expected {
            return Err(blame(&node, &batch)
                .err()
                .unwrap_or_else(|| {
                    anyhow::anyhow!("a batch differed once: counted {counted:?}, expected {expected:?}")
                })
                .context(format!("seed {seed}, after {} frames", summary.frames)));
        }
        summary.expected = expected.into_values().fold(summary.expected, Amounts::plus);
        for (counter, amounts) in counted {
            let sum = summary.counted.entry(counter).or_default();
            *sum = sum.plus(amounts);
        }
        summary.frames += batch.len() as u64;
        progress(summary.frames);
    }
    Ok(summary)
}

fn expected(frames: &[Frame]) -> Growth {
    let mut growth = Growth::new();
    for frame in frames {
        let (counter, packets, bytes) = judge(frame);
        let amounts = match frame.way {
            Way::In => Amounts::incoming(packets, bytes),
            Way::Out => Amounts::outgoing(packets, bytes),
        };
        let sum = growth.entry(counter).or_default();
        *sum = sum.plus(amounts);
    }
    growth
}

/// Finds a frame on which program and reference differ, among frames that contain one. Fails when it is
/// found.
fn blame(node: &Node<'_>, frames: &[Frame]) -> Result<()> {
    let expected = expected(frames);
    let counted = node.send(frames)?;
    if counted == expected {
        return Ok(());
    }
    if let [frame] = frames {
        bail!("{frame}\nis counted as {counted:?}\nbut the reference expects {expected:?}");
    }
    let (left, right) = frames.split_at(frames.len() / 2);
    blame(node, left)?;
    blame(node, right)
}

impl Summary {
    /// Checks that every fault that a container can cause occurred, and several classes of both families. A
    /// generator of only correct frames would prove nothing.
    ///
    /// # Errors
    ///
    /// When one did not occur; the error names it.
    pub fn check_coverage(&self) -> Result<()> {
        for fault in ["not_ip", "truncated", "malformed", "vlan_depth", "no_container"] {
            let there =
                self.counted.keys().any(|key| matches!(key, Counter::Fault(_, name) if *name == fault));
            ensure!(there, "no frame was {fault}");
        }
        for (container, family) in [("101", "ipv4"), ("101", "ipv6"), ("301", "ipv4"), ("302", "ipv6")] {
            let classes = self
                .counted
                .keys()
                .filter(|key| matches!(key, Counter::Class(id, _, of) if id == container && *of == family));
            let classes = classes.count();
            ensure!(classes > 2, "only {classes} classes of {container} {family}");
        }
        Ok(())
    }
}
