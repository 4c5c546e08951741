//! Which containers and classes have an `skb->mark` for a shaper.
//!
//! `skb->mark = id * 32 + class`, as Virtuozzo's accounting sets it. That has room for numeric ids and for
//! classes below
//! 32. Other packets keep their mark: a wrong one would put them into another container's queue. The kernel
//!     program
//! writes the mark (`traffic-ebpf/src/shaping.rs`).

use traffic_common::MARK_CLASSES;

/// The greatest id whose marks fit into 32 bits.
pub const MAX_ID: u32 = u32::MAX / MARK_CLASSES;

/// The mark of a container's class 0: its id times 32. `None` unless the id is a number from 1 to [`MAX_ID`]
/// without leading zeros. The node itself (id 0) has none, because 0 means unmarked.
pub fn base(id: &str) -> Option<u32> {
    let usual = id.bytes().all(|b| b.is_ascii_digit()) && !id.starts_with('0');
    let number: u32 = id.parse().ok().filter(|_| usual)?;
    number.checked_mul(MARK_CLASSES)
}

/// Why a container has no mark, as text for people.
pub fn why_unmarked(id: &str) -> String {
    if id.bytes().all(|b| b.is_ascii_digit()) && !id.starts_with('0') {
        format!("{id} is above {MAX_ID}, the greatest id that fits into a mark")
    } else {
        format!("{id} is not a number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_up_to_the_greatest_have_a_mark() {
        assert_eq!(base("1"), Some(32));
        assert_eq!(base("101"), Some(3232));
        // The greatest mark is the greatest 32-bit number.
        assert_eq!(base("134217727").map(|base| base + 31), Some(u32::MAX));
        for id in [
            "134217728",
            "4294967297",
            "99999999999999999999",
            "0",
            "007",
            "+7",
            "",
            "web",
            "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f",
        ] {
            assert_eq!(base(id), None, "{id}");
        }
        assert!(why_unmarked("134217728").contains("above 134217727"));
        assert!(why_unmarked("web").contains("not a number"));
    }
}
