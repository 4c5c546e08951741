//! Tells one attach of an interface from another, for what is remembered from a drain to the next.

use traffic_common::{DIRECTIONS, Direction, InterfaceRecord, InterfaceStatistics};
use traffic_model::{ContainerId, InterfaceCounter, PassedCounter};

use crate::kernel::{counters::Buffers, records::read_text};

/// An interface as it was attached at some moment. Several attaches can be in one second: each but the first finds
/// missed what had been bypassed until then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attached {
    ifindex: u32,
    generation: u32,
    container: Option<ContainerId>,
    at_unix_s: u64,
    /// What the attach and those before it found missed: buffers and bytes, incoming first.
    missed: [Buffers; DIRECTIONS],
}

impl Attached {
    pub fn of_record(record: &InterfaceRecord) -> Self {
        let InterfaceStatistics { packets, bytes } = record.missed;
        Self {
            ifindex: record.ifindex,
            generation: record.generation,
            container: ContainerId::new(read_text(&record.container)).ok(),
            at_unix_s: record.attached_unix_s,
            missed: Direction::BOTH.map(|direction| {
                let at = direction as usize;
                Buffers { skbs: packets[at], bytes: bytes[at] }
            }),
        }
    }

    /// `None` for an interface that is not attached. Nothing was added to the counter yet.
    pub fn of_counter(counter: &InterfaceCounter) -> Option<Self> {
        let missed = |of: &PassedCounter| Buffers { skbs: of.missed_skbs, bytes: of.missed_skb_bytes };
        Some(Self {
            ifindex: counter.ifindex?,
            generation: counter.generation,
            container: counter.container.clone(),
            at_unix_s: u64::try_from(counter.attached.as_second()).ok()?,
            missed: [missed(&counter.passed.incoming), missed(&counter.passed.outgoing)],
        })
    }
}
