//! Sorts the entries of a file by their networks. A file of a million lines is sorted for each question about it,
//! so one that is sorted already is not copied, and IPv4 networks are sorted as numbers.

use std::{borrow::Cow, cmp::Reverse};

use ipnet::IpNet;

use crate::parse::Entry;

/// Bits of the place of an entry in a number: more entries than a file has room for.
const PLACE_BITS: u32 = 26;

/// The entries sorted by network, IPv4 first. Of identical networks the last line is the first. All networks have
/// host bits of zero.
pub(crate) fn by_network(entries: &[Entry]) -> Cow<'_, [Entry]> {
    if entries.is_sorted_by(|one, next| one.prefix < next.prefix) {
        return Cow::Borrowed(entries);
    }
    let is_in_order = entries.is_sorted_by_key(|entry| entry.line) && entries.len() < 1 << PLACE_BITS;
    let v4_numbers: Option<Vec<u64>> = is_in_order.then(|| {
        let places = (0..1_u64 << PLACE_BITS).rev();
        let number = |(entry, place): (&Entry, u64)| match entry.prefix {
            IpNet::V4(net) => {
                let length = u64::from(net.prefix_len());
                Some((u64::from(net.network().to_bits()) << 6 | length) << PLACE_BITS | place)
            }
            IpNet::V6(_) => None,
        };
        entries.iter().zip(places).filter_map(number).collect()
    });
    let Some(mut numbers) = v4_numbers else {
        let mut sorted = entries.to_vec();
        sorted.sort_unstable_by_key(|entry| (entry.prefix, Reverse(entry.line)));
        return Cow::Owned(sorted);
    };
    numbers.sort_unstable();
    let mut sorted: Vec<Entry> = Vec::with_capacity(entries.len());
    let last = (1_u64 << PLACE_BITS) - 1;
    let entry =
        |number: u64| usize::try_from(last - (number & last)).ok().and_then(|place| entries.get(place));
    sorted.extend(numbers.into_iter().filter_map(entry));
    let v4 = sorted.len();
    sorted.extend(entries.iter().filter(|entry| entry.prefix.addr().is_ipv6()));
    sorted[v4..].sort_unstable_by_key(|entry| (entry.prefix, Reverse(entry.line)));
    Cow::Owned(sorted)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn entries_are_sorted_by_network_and_the_last_line_first(
            rows in vec((any::<u8>(), 0..=32_u8, any::<bool>(), 1..40_u32), 0..40),
            are_in_order in any::<bool>(),
        ) {
            let entries: Vec<Entry> = (1..).zip(rows).map(|(number, (byte, length, is_v4, line))| {
                let text = match is_v4 {
                    true => format!("{byte}.255.{byte}.128/{length}"),
                    false => format!("20{byte:02x}:ffff::{byte:x}/{length}"),
                };
                let prefix: IpNet = text.parse().unwrap();
                let line = if are_in_order { number } else { line };
                Entry { line, class: byte, prefix: prefix.trunc() }
            }).collect();
            let mut expected = entries.clone();
            expected.sort_by_key(|entry| (entry.prefix, Reverse(entry.line)));
            let sorted = by_network(&entries);
            // Of lines with the same number, either may be the first.
            let keys = |entries: &[Entry]| entries.iter().map(|one| (one.prefix, one.line)).collect::<Vec<_>>();
            prop_assert_eq!(keys(&sorted), keys(&expected));
            if are_in_order {
                prop_assert_eq!(&sorted[..], &expected[..]);
            }
        }
    }
}
