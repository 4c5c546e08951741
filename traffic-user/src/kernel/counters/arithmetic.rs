//! Sums over CPUs, and differences, by the overflow rule of [`Tally`]. Pure.

use traffic_common::{ClassCounters, FaultCounters, InterfaceCounters, Passed, Tally};

/// A map value that consists of counters.
pub(in crate::kernel) trait Counters: Copy + Default {
    /// Applies `with` to each tally and the same tally of `other`.
    fn combine(&mut self, other: &Self, with: impl Fn(Tally, Tally) -> Tally + Copy);
}

impl Counters for ClassCounters {
    fn combine(&mut self, other: &Self, with: impl Fn(Tally, Tally) -> Tally + Copy) {
        combine_all(self.tallies.as_flattened_mut(), other.tallies.as_flattened(), with);
    }
}

impl Counters for InterfaceCounters {
    fn combine(&mut self, other: &Self, with: impl Fn(Tally, Tally) -> Tally + Copy) {
        let buffers = |passed: &Passed| Tally { packets: passed.skbs, bytes: passed.skb_bytes };
        for (to, from) in self.passed.iter_mut().zip(&other.passed) {
            to.wire = with(to.wire, from.wire);
            Tally { packets: to.skbs, bytes: to.skb_bytes } = with(buffers(to), buffers(from));
        }
    }
}

impl Counters for FaultCounters {
    fn combine(&mut self, other: &Self, with: impl Fn(Tally, Tally) -> Tally + Copy) {
        combine_all(self.faults.as_flattened_mut(), other.faults.as_flattened(), with);
        combine_all(&mut self.estimated, &other.estimated, with);
    }
}

fn combine_all(to: &mut [Tally], from: &[Tally], with: impl Fn(Tally, Tally) -> Tally) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = with(*to, *from);
    }
}

/// Sums the values of all CPUs.
pub(super) fn sum<C: Counters>(copies: &[C]) -> C {
    let mut sum = C::default();
    for copy in copies {
        sum.combine(copy, Tally::saturating_add);
    }
    sum
}

/// Sums the values of all CPUs, and what was carried over from an earlier set of maps.
pub(super) fn sum_with<C: Counters>(copies: &[C], carried: &C) -> C {
    let mut all = sum(copies);
    all.combine(carried, Tally::saturating_add);
    all
}

/// What was counted since an earlier reading.
pub(in crate::kernel) fn since<C: Counters>(now: &C, earlier: &C) -> C {
    let mut since = *now;
    since.combine(earlier, Tally::saturating_sub);
    since
}

/// Adds up each element of a counter map: all CPUs, and what was carried over.
pub(in crate::kernel) fn totals<C: Counters>(copies: &[C], carried: &[C]) -> Vec<C> {
    let each = copies.len().checked_div(carried.len()).unwrap_or(1).max(1);
    copies.chunks_exact(each).zip(carried).map(|(copies, carried)| sum_with(copies, carried)).collect()
}

#[cfg(test)]
mod tests {
    use traffic_common::Fault;

    use super::*;

    /// Each field has another value, so that a mix-up shows.
    fn tally(base: u64) -> Tally {
        Tally { packets: base, bytes: base + 1000 }
    }

    #[test]
    fn every_field_of_a_class_counter_is_summed_into_its_own_place() {
        let one = ClassCounters { tallies: [[tally(1), tally(2)], [tally(3), tally(4)]] };
        let other = ClassCounters { tallies: [[tally(10), tally(20)], [tally(30), tally(40)]] };
        let expected = [[(11, 2011), (22, 2022)], [(33, 2033), (44, 2044)]];
        assert_eq!(sum(&[one, other]).tallies.map(|row| row.map(|t| (t.packets, t.bytes))), expected);
        // What was carried over counts like another CPU.
        assert_eq!(sum_with(&[one], &other), sum(&[one, other]));
        assert_eq!(
            totals(&[one, one, other, other], &[other, one]),
            [sum(&[one, one, other]), sum(&[other, other, one])]
        );
    }

    #[test]
    fn interface_totals_and_faults_are_summed_field_by_field() {
        let mut interface = InterfaceCounters::default();
        interface.passed[0] = Passed { wire: tally(5), skbs: 6, skb_bytes: 7 };
        interface.passed[1] = Passed { wire: tally(8), skbs: 9, skb_bytes: 11 };
        let carried = InterfaceCounters::default();
        let total = sum_with(&[interface, interface], &carried);
        let [first, second] = total.passed;
        assert_eq!((first.wire.packets, first.skbs, first.skb_bytes), (10, 12, 14));
        assert_eq!((second.wire.bytes, second.skbs, second.skb_bytes), (2016, 18, 22));

        let mut faults = FaultCounters::default();
        faults.faults[1][Fault::Malformed as usize] = tally(3);
        faults.estimated[0] = tally(4);
        let total = sum(&[faults, faults, faults]);
        assert_eq!(total.faults[1][Fault::Malformed as usize].packets, 9);
        assert_eq!(total.faults[0][Fault::Malformed as usize].packets, 0);
        assert_eq!((total.estimated[0].packets, total.estimated[1].packets), (12, 0));
    }

    #[test]
    fn the_base_of_a_slot_is_subtracted_field_by_field() {
        let base = ClassCounters { tallies: [[tally(1), tally(2)], [tally(3), tally(4)]] };
        let now = ClassCounters { tallies: [[tally(11), tally(22)], [tally(33), tally(44)]] };
        let expected = [[(10, 10), (20, 20)], [(30, 30), (40, 40)]];
        assert_eq!(since(&now, &base).tallies.map(|row| row.map(|t| (t.packets, t.bytes))), expected);

        let mut base = InterfaceCounters::default();
        base.passed[1] = Passed { wire: tally(1), skbs: 2, skb_bytes: 3 };
        let mut now = InterfaceCounters::default();
        now.passed[1] = Passed { wire: tally(5), skbs: 12, skb_bytes: 103 };
        let own = since(&now, &base).passed[1];
        assert_eq!((own.wire.packets, own.skbs, own.skb_bytes), (4, 10, 100));

        let (mut base, mut now) = (FaultCounters::default(), FaultCounters::default());
        base.faults[1][Fault::Malformed as usize] = tally(3);
        now.faults[1][Fault::Malformed as usize] = tally(9);
        now.estimated[0] = tally(4);
        let own = since(&now, &base);
        assert_eq!(own.faults[1][Fault::Malformed as usize].packets, 6);
        assert_eq!(own.estimated[0].bytes, 1004);
    }
}
