//! The class table of the proof: as a file for trafctl, and written once more as code for the witness.

use std::net::IpAddr;

use traffic_tests::witness::WireCount;
use traffic_tests::{Amounts, Counters};

use crate::evidence::Row;

/// The class file.
pub const FILE: &str = "\
0 10.0.0.0/8
0 fd00::/16
1 0.0.0.0/0
1 ::/0
2 203.0.113.0/24
2 2001:db8::/32
3 203.0.113.128/25
3 2001:db8:3::/48
";

/// The same with other classes for addresses outside our networks, to see a change take effect.
pub const FILE_CHANGED: &str = "\
0 10.0.0.0/8
0 fd00::/16
4 0.0.0.0/0
4 ::/0
5 203.0.113.0/24
5 2001:db8::/32
";

/// All classes that occur, and one that does not.
const CLASSES: std::ops::RangeInclusive<u8> = 0..=7;

/// The class of a peer under [`FILE`], written by hand.
pub fn class_of(peer: IpAddr) -> u8 {
    match peer {
        IpAddr::V4(v4) => match v4.octets() {
            [10, ..] => 0,
            [203, 0, 113, last] => 2 + u8::from(last >= 128),
            _ => 1,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0xfd00, ..] => 0,
            [0x2001, 0x0db8, 3, ..] => 3,
            [0x2001, 0x0db8, ..] => 2,
            _ => 1,
        },
    }
}

/// Adds the figures of the witness and of trafctl to a row, for each class and family in which one of them is
/// not zero.
#[must_use]
pub fn compare(row: Row, container: &str, wire: &WireCount, readings: [&Counters; 2]) -> Row {
    compare_by(row, container, wire, readings, class_of)
}

/// As [`compare`], under another table.
#[must_use]
pub fn compare_by(
    mut row: Row,
    container: &str,
    wire: &WireCount,
    [before, after]: [&Counters; 2],
    class_of: impl Fn(IpAddr) -> u8,
) -> Row {
    for class in CLASSES {
        for family in ["ipv4", "ipv6"] {
            // Not every case has traffic in every class: the witness decides which counters must exist.
            let read = |counters: &Counters| counters.class_or_zero(container, class, family);
            let ours = read(after).since(read(before));
            let witness = wire.of(|peer| class_of(peer) == class && peer.is_ipv4() == (family == "ipv4"));
            if ours != Amounts::default() || witness != Amounts::default() {
                row = add(row, &format!("class {class} {family}"), witness, ours);
            }
        }
    }
    row
}

/// Adds the directions that are not zero.
fn add(mut row: Row, what: &str, witness: Amounts, ours: Amounts) -> Row {
    let figures = [
        ("in packets", witness.in_packets, ours.in_packets),
        ("in bytes", witness.in_bytes, ours.in_bytes),
        ("out packets", witness.out_packets, ours.out_packets),
        ("out bytes", witness.out_bytes, ours.out_bytes),
    ];
    for (name, by_witness, by_us) in figures {
        if by_witness != 0 || by_us != 0 {
            row = row.count(&format!("{what} {name}"), by_witness, by_us);
        }
    }
    row
}
