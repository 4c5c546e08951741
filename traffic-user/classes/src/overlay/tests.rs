//! The pair of any address is what the two tables say by themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{ClassOrder, compile, parse};

fn table(text: &str) -> ClassTable {
    compile(&parse(text.as_bytes()).entries, ClassOrder::LongestPrefix)
}

fn in_force(table: &ClassTable) -> Vec<(IpNet, u8)> {
    table.entries().map(|entry| (entry.prefix, entry.class)).collect()
}

/// The pair of an address, found as the kernel program finds it.
fn pair_of(overlay: &Overlay, address: IpAddr) -> Pair {
    let compiled = overlay.compiled().unwrap();
    let number = match address {
        IpAddr::V4(address) => compiled.column_v4(address),
        IpAddr::V6(address) => compiled.column_v6(address),
    };
    overlay.pairs[number.unwrap() as usize]
}

/// Lines whose networks lie inside and beside each other, in few bits, so that they meet.
fn lines() -> impl Strategy<Value = String> {
    let v4 = (any::<u8>(), any::<u8>(), 0..=32_u8, 0..6_u8).prop_map(|(high, low, length, class)| {
        let bits = u32::from(high & 0x83) << 24 | u32::from(low & 0x03) << 8 | u32::from(low >> 5);
        format!("{class} {}\n", Ipv4Net::new(bits.into(), length).unwrap().trunc())
    });
    let v6 = (any::<u8>(), any::<u8>(), 0..=128_u8, 0..6_u8).prop_map(|(high, low, length, class)| {
        let bits = u128::from(high & 0x83) << 120 | u128::from(low & 0x07) << 62 | u128::from(low >> 6);
        format!("{class} {}\n", Ipv6Net::new(bits.into(), length).unwrap().trunc())
    });
    vec(prop_oneof![v4, v6], 0..14).prop_map(|lines| lines.concat())
}

/// The first and last address of each network, and those beside it.
fn addresses(rows: &[(IpNet, u8)]) -> Vec<IpAddr> {
    let mut all = vec![IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for (prefix, _) in rows {
        match prefix {
            IpNet::V4(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                let near = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                all.extend(near.map(|bits| IpAddr::V4(bits.into())));
            }
            IpNet::V6(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                let near = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                all.extend(near.map(|bits| IpAddr::V6(bits.into())));
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_pair_of_any_address_is_what_both_tables_say(before in lines(), after in lines()) {
        let (before, after) = (table(&before), table(&after));
        let rows = in_force(&before);
        let overlay = Overlay::new(&rows, &after).unwrap();
        let compiled = overlay.compiled().unwrap();
        for address in addresses(&[rows.clone(), in_force(&after)].concat()) {
            let number = match address {
                IpAddr::V4(address) => compiled.column_v4(address),
                IpAddr::V6(address) => compiled.column_v6(address),
            };
            let pair = overlay.pairs[number.unwrap() as usize];
            prop_assert_eq!(pair, (before.class_of(address), after.class_of(address)), "{}", address);
        }
        // Each change of a class is explained by lines, and nothing else is.
        let changed: Vec<Pair> = changed_lines(&rows, &after).into_keys().collect();
        let differing: Vec<Pair> = overlay.pairs.iter().copied().filter(|(from, to)| from != to).collect();
        prop_assert!(differing.iter().all(|pair| changed.contains(pair)), "{:?} {:?}", changed, differing);
        prop_assert!(changed_lines(&rows, &after).values().all(|lines| *lines != ChangedLines::default()));
    }
}

#[test]
fn a_prefix_of_one_table_splits_that_of_the_other() {
    let before = table("1 0.0.0.0/0\n2 10.0.0.0/8\n");
    let after = table("1 0.0.0.0/0\n3 10.1.0.0/16\n1 ::/0\n");
    let overlay = Overlay::new(&in_force(&before), &after).unwrap();
    assert_eq!(overlay.pairs, [(0, 0), (0, 1), (1, 1), (2, 1), (2, 3)]);
    for (address, pair) in
        [("9.0.0.1", (1, 1)), ("10.0.0.1", (2, 1)), ("10.1.0.1", (2, 3)), ("2001:db8::1", (0, 1))]
    {
        assert_eq!(pair_of(&overlay, address.parse().unwrap()), pair, "{address}");
    }
}

#[test]
fn lines_that_change_a_class_are_named_and_no_others() {
    let before = table("1 0.0.0.0/0\n2 10.0.0.0/8\n2 10.7.0.0/16\n4 192.0.2.0/24\n");
    let after = table("# new\n1 0.0.0.0/0\n2 10.0.0.0/8\n3 10.1.0.0/16\n1 172.16.0.0/12\n");
    let changed = changed_lines(&in_force(&before), &after);
    let pairs: Vec<Pair> = changed.keys().copied().collect();
    assert_eq!(pairs, [(2, 3), (4, 1)]);
    let lines: Vec<u32> = changed[&(2, 3)].added.iter().map(|entry| entry.line).collect();
    assert_eq!((lines, &changed[&(2, 3)].removed[..]), (vec![4], &[][..]));
    assert_eq!(changed[&(4, 1)].added, []);
    assert_eq!(changed[&(4, 1)].removed, [("192.0.2.0/24".parse().unwrap(), 4)]);
}

#[test]
fn more_pairs_than_columns_are_refused_with_the_numbers() {
    let lines = |shift: usize| -> String {
        (0..16_usize)
            .flat_map(|high| (0..16_usize).map(move |low| (high, low)))
            .map(|(high, low)| format!("{} 10.{high}.{low}.0/24\n", if shift == 0 { high } else { low } + 1))
            .collect()
    };
    let (before, after) = (table(&lines(0)), table(&lines(1)));
    let error = Overlay::new(&in_force(&before), &after).unwrap_err();
    assert_eq!(error, TooManyPairs { pairs: 257 });
    let text = error.to_string();
    assert!(text.contains("have 257 pairs of classes") && text.contains("room for 255"), "{text}");
    let fewer = before.v4.len() - 2;
    let rows = &in_force(&before)[..fewer];
    let after = ClassTable { v4: after.v4[..fewer].to_vec(), ..after };
    assert_eq!(Overlay::new(rows, &after).unwrap().pairs.len(), 255);
}
