//! What passed uncounted on interfaces that came and went, as gaps of the ledger. Pure.

use jiff::Timestamp;
use traffic_common::{Direction, InterfaceStatistics};
use traffic_ledger::{Gap, GapReason, GapSize};
use traffic_model::ContainerId;

/// What passed uncounted on interfaces that came and went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unseen {
    /// On interfaces of a name.
    Interface {
        /// The name.
        name: String,
        /// For whom they would have been counted, if it is known.
        container: Option<ContainerId>,
        /// What passed; `None` if unknown.
        size: Option<InterfaceStatistics>,
        /// How many they were.
        times: u32,
    },
    /// The kernel dropped events.
    Overrun {
        /// Whether an index was used that nobody saw. Otherwise only the next index could tell.
        is_certain: bool,
    },
}

impl Unseen {
    /// The gap, of whole seconds.
    pub fn gap(self, start: Option<Timestamp>, end: Timestamp) -> Gap {
        // Whole seconds, as everywhere in the ledger.
        let whole = |time: Timestamp| Timestamp::from_second(time.as_second()).unwrap_or(time);
        let gap = Gap {
            node: None,
            start: start.map(|start| whole(start.min(end))),
            ..Gap::of_node(GapReason::BeforeAttach, end, whole(end))
        };
        match self {
            Self::Overrun { is_certain } => {
                let what = if is_certain {
                    "at least one interface came and went unseen"
                } else {
                    "an interface may have come and gone unseen"
                };
                gap.with_detail(format!("the kernel dropped events of interfaces, and {what}"))
            }
            Self::Interface { name, container, size, times } => {
                let count = if times == 1 { String::new() } else { format!(" {times} times") };
                let unknown = if size.is_none() { "; the kernel did not keep its statistics" } else { "" };
                let detail = format!("it came and went{count} before it could be attached{unknown}");
                let (incoming, outgoing) = (Direction::In as usize, Direction::Out as usize);
                Gap {
                    node: None,
                    interface: Some(name),
                    container: container.map(|id| id.to_string()),
                    size: size.map(|size| GapSize {
                        in_skbs: size.packets[incoming],
                        in_skb_bytes: size.bytes[incoming],
                        out_skbs: size.packets[outgoing],
                        out_skb_bytes: size.bytes[outgoing],
                    }),
                    ..gap.with_detail(detail)
                }
            }
        }
    }
}
