//! The lines of `/proc/vz/venetstat` and `/proc/vz/venetstat_v6`.

use std::fmt::Write as _;

use traffic_common::Family;
use traffic_model::{ByDirection, Snapshot};

use crate::vz::{CLASSES, sums::containers};

/// One line per id: the id, then bytes in and out of each of the 16 classes of the format.
pub fn render(snapshot: &Snapshot, family: Family) -> String {
    let mut text = String::new();
    for (container, sums) in containers(snapshot, Some(family)) {
        text += container.as_str();
        for class in 0..CLASSES {
            let ByDirection { incoming, outgoing } = sums.get(&class).copied().unwrap_or_default();
            // Writing to a String cannot fail.
            let _infallible = write!(text, " {:>20}/{:>20}", incoming.bytes, outgoing.bytes);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use traffic_model::sample;

    use super::*;

    #[test]
    fn golden_venetstat() {
        assert_snapshot!("venetstat", render(&sample::snapshot(), Family::Ipv4));
        assert_snapshot!("venetstat_v6", render(&sample::snapshot(), Family::Ipv6));
    }
}
