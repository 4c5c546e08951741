//! The mark for a shaper: which containers and classes have one.
//!
//! `skb->mark = id * 32 + class`, as Virtuozzo's accounting sets it, has room for numbers and for classes below 32. What has
//! no room is left unmarked: a wrong mark would put it into another container's queue.

use traffic_common::MARK_CLASSES;

/// The greatest id whose marks fit 32 bits.
pub const MAX_ID: u32 = u32::MAX / MARK_CLASSES;

/// What a container's mark begins with, its id times 32; none where the id is no number from 1 to [`MAX_ID`] in its usual
/// form. The node itself, id 0, has none: 0 is the mark of what is not marked.
pub fn base(id: &str) -> Option<u32> {
    let usual = id.bytes().all(|b| b.is_ascii_digit()) && !id.starts_with('0');
    let number: u32 = id.parse().ok().filter(|_| usual)?;
    number.checked_mul(MARK_CLASSES)
}

/// Why a container has no mark, for people.
pub fn why_unmarked(id: &str) -> String {
    if id.bytes().all(|b| b.is_ascii_digit()) && !id.starts_with('0') {
        format!("{id} is above {MAX_ID}, the greatest id that a mark has room for")
    } else {
        format!("{id} is no number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_mark_as_far_as_it_has_room() {
        assert_eq!(base("1"), Some(32));
        assert_eq!(base("101"), Some(3232));
        // The greatest mark of all is the greatest number of 32 bits.
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
        assert!(why_unmarked("web").contains("no number"));
    }
}
