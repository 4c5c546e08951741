//! Compares trafctl's totals of an interface with the kernel's statistics of it. Pure.

use traffic_common::{Direction, InterfaceCounters, InterfaceRecord, InterfaceStatistics, Passed, Tally};
use traffic_model::ByDirection;

/// Socket buffers, as the kernel's interface statistics count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Buffers {
    /// Number of socket buffers.
    pub skbs: u64,
    /// Their bytes, link-layer headers included.
    pub bytes: u64,
}

/// What was counted in one direction of an interface since the program was attached. Both sides are equal
/// unless traffic was missed, or the device cuts buffers after the hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinceAttach {
    /// By the kernel's statistics.
    pub kernel: Buffers,
    /// By the program.
    pub counted: Buffers,
}

/// Returns what the kernel and the program counted on an interface since the program was attached.
pub fn since_attach(
    record: &InterfaceRecord,
    kernel: &InterfaceStatistics,
    ours: &InterfaceCounters,
) -> ByDirection<SinceAttach> {
    let of = |direction: Direction| {
        let at = direction as usize;
        SinceAttach {
            kernel: Buffers {
                skbs: kernel.packets[at].saturating_sub(record.kernel_before.packets[at]),
                bytes: kernel.bytes[at].saturating_sub(record.kernel_before.bytes[at]),
            },
            counted: counted_since_attach(record, ours, direction),
        }
    };
    ByDirection { incoming: of(Direction::In), outgoing: of(Direction::Out) }
}

fn counted_since_attach(record: &InterfaceRecord, ours: &InterfaceCounters, direction: Direction) -> Buffers {
    let at = direction as usize;
    Buffers {
        skbs: ours.passed[at].skbs.saturating_sub(record.counted_before.packets[at]),
        bytes: ours.passed[at].skb_bytes.saturating_sub(record.counted_before.bytes[at]),
    }
}

/// Whether the kernel passed more than reached the program.
///
/// The program sees a buffer whole. A device that cannot segment (a veth or a tap with its offloads off) has
/// it cut after the hook, and counts the pieces. These are at most as many packets and bytes as the program
/// has counted on the wire, and none of them was missed.
pub fn is_missed(since: SinceAttach, passed: &Passed) -> bool {
    let SinceAttach { kernel, counted } = since;
    let (pieces, headers) = pieces_and_headers(passed);
    kernel.skbs > counted.skbs.saturating_add(pieces)
        || kernel.skbs > counted.skbs && kernel.bytes > counted.bytes.saturating_add(headers)
}

/// By how much the kernel's statistics may exceed ours because a device cut buffers: in number, and in bytes.
fn pieces_and_headers(passed: &Passed) -> (u64, u64) {
    // Ethernet with two VLAN tags. Bytes on the wire are layer 3; bytes of buffers include the link-layer
    // header.
    const LINK_HEADER: u64 = 22;
    let on_wire = passed.wire.bytes.wrapping_add(passed.wire.packets.wrapping_mul(LINK_HEADER));
    let pieces = passed.wire.packets.saturating_sub(passed.skbs);
    (pieces, if pieces == 0 { 0 } else { on_wire.saturating_sub(passed.skb_bytes) })
}

/// What the kernel counted beyond ours and beyond the pieces of buffers: what was missed at the least.
pub fn beyond_pieces(since: SinceAttach, passed: &Passed) -> Buffers {
    let SinceAttach { kernel, counted } = since;
    let (pieces, headers) = pieces_and_headers(passed);
    Buffers {
        skbs: kernel.skbs.saturating_sub(counted.skbs).saturating_sub(pieces),
        bytes: kernel.bytes.saturating_sub(counted.bytes).saturating_sub(headers),
    }
}

/// How much of the kernel's statistics of an interface these totals account for, in buffers and their bytes.
/// What is recorded as missed comes on top.
pub(super) fn accounted(record: &InterfaceRecord, totals: &InterfaceCounters) -> ByDirection<Tally> {
    let of = |direction: Direction| {
        let at = direction as usize;
        let counted = counted_since_attach(record, totals, direction);
        Tally {
            packets: record.kernel_before.packets[at] + counted.skbs,
            bytes: record.kernel_before.bytes[at] + counted.bytes,
        }
    };
    ByDirection { incoming: of(Direction::In), outgoing: of(Direction::Out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(
        (kernel_skbs, counted_skbs): (u64, u64),
        (kernel_bytes, counted_bytes): (u64, u64),
    ) -> SinceAttach {
        SinceAttach {
            kernel: Buffers { skbs: kernel_skbs, bytes: kernel_bytes },
            counted: Buffers { skbs: counted_skbs, bytes: counted_bytes },
        }
    }

    #[test]
    fn pieces_that_a_device_cuts_are_not_missed() {
        // Two buffers of fifteen segments each, 52 bytes of headers and 1448 of payload.
        let passed = Passed { wire: Tally { packets: 30, bytes: 45_000 }, skbs: 2, skb_bytes: 43_572 };
        let whole = since((2, 2), (43_572, 43_572));
        let cut = since((30, 2), (30 * 1514, 43_572));
        assert!(!is_missed(whole, &passed));
        assert!(!is_missed(cut, &passed));
        let one_more_packet = since((31, 2), (30 * 1514 + 60, 43_572));
        let one_more_buffer = since((3, 2), (43_572 + 21_786, 43_572));
        assert!(is_missed(one_more_packet, &passed));
        assert!(is_missed(one_more_buffer, &passed));
    }

    #[test]
    fn a_buffer_of_one_packet_is_missed_unless_it_was_counted() {
        let passed = Passed { wire: Tally { packets: 7, bytes: 700 }, skbs: 7, skb_bytes: 798 };
        assert!(!is_missed(since((7, 7), (798, 798)), &passed));
        assert!(is_missed(since((8, 7), (858, 798)), &passed));
    }
}
