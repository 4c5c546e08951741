//! Ranges of addresses, and the smallest list of networks that covers them exactly.

use std::net::IpAddr;

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};

/// The addresses of one family from `first` to `last`. Families never mix: IPv4 sorts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
}

impl Range {
    /// From the first address to the last; `None` if they are of two families or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// As many addresses as the count says; `None` if it is 0 or leads beyond the last address.
    pub fn of_count(first: IpAddr, count: u128) -> Option<Self> {
        let more = count.checked_sub(1)?;
        let last = match first {
            IpAddr::V4(addr) => IpAddr::V4(addr.to_bits().checked_add(u32::try_from(more).ok()?)?.into()),
            IpAddr::V6(addr) => IpAddr::V6(addr.to_bits().checked_add(more)?.into()),
        };
        Some(Self { first, last })
    }

    /// The addresses of a network.
    pub fn of_network(network: IpNet) -> Self {
        Self { first: network.network(), last: network.broadcast() }
    }

    /// The network that has exactly these addresses, if there is one.
    pub fn network(self) -> Option<IpNet> {
        let mut networks = self.networks();
        networks.next().filter(|_| networks.next().is_none())
    }

    /// The smallest list of networks with exactly these addresses, in their order.
    pub fn networks(self) -> IpSubnets {
        match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => IpSubnets::V4(Ipv4Subnets::new(first, last, 0)),
            (IpAddr::V6(first), IpAddr::V6(last)) => IpSubnets::V6(Ipv6Subnets::new(first, last, 0)),
            // `new` lets no such range exist; an empty list comes from a range in the wrong order.
            _ => IpSubnets::V4(Ipv4Subnets::new([0, 0, 0, 1].into(), [0, 0, 0, 0].into(), 0)),
        }
    }

    /// A range of IPv4 addresses in IPv6 notation as IPv4, any other as it is; `None` if it is partly one.
    pub fn unmapped(self) -> Option<Self> {
        let (IpAddr::V6(first), IpAddr::V6(last)) = (self.first, self.last) else { return Some(self) };
        match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
            (Some(first), Some(last)) => Some(Self { first: first.into(), last: last.into() }),
            // A range around all of them is a prefix such as ::/0.
            (None, None) => Some(self),
            _ => None,
        }
    }

    /// Whether the other range, which sorts behind this one, overlaps it or begins directly behind it.
    fn reaches(self, next: Self) -> bool {
        let behind = match self.last {
            IpAddr::V4(addr) => addr.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
            IpAddr::V6(addr) => addr.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
        };
        self.last.is_ipv4() == next.first.is_ipv4() && behind.is_none_or(|behind| next.first <= behind)
    }
}

/// The smallest list of networks that covers exactly the addresses of all ranges, IPv4 first, sorted.
pub fn aggregate(mut ranges: Vec<Range>) -> Vec<IpNet> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(before) if before.reaches(range) => before.last = before.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged.into_iter().flat_map(Range::networks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str) -> Range {
        Range::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
    }

    fn texts(networks: impl IntoIterator<Item = IpNet>) -> Vec<String> {
        networks.into_iter().map(|network| network.to_string()).collect()
    }

    #[test]
    fn a_range_becomes_the_fewest_networks() {
        assert_eq!(texts(range("203.0.113.0", "203.0.113.255").networks()), ["203.0.113.0/24"]);
        assert_eq!(
            texts(range("192.0.2.1", "192.0.2.6").networks()),
            ["192.0.2.1/32", "192.0.2.2/31", "192.0.2.4/31", "192.0.2.6/32"]
        );
        assert_eq!(texts(range("0.0.0.0", "255.255.255.255").networks()), ["0.0.0.0/0"]);
        assert_eq!(texts(range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").networks()), ["::/0"]);
        assert_eq!(range("192.0.2.0", "192.0.2.3").network(), Some("192.0.2.0/30".parse().unwrap()));
        assert_eq!(range("192.0.2.0", "192.0.2.2").network(), None);
    }

    #[test]
    fn a_count_ends_at_the_last_address() {
        let of = |first: &str, count| Range::of_count(first.parse().unwrap(), count);
        assert_eq!(of("203.0.113.0", 256), Some(range("203.0.113.0", "203.0.113.255")));
        assert_eq!(of("0.0.0.0", 1 << 32), Some(range("0.0.0.0", "255.255.255.255")));
        assert_eq!(of("255.255.255.255", 1), Some(range("255.255.255.255", "255.255.255.255")));
        for (first, count) in
            [("203.0.113.0", 0), ("255.255.255.255", 2), ("1.0.0.0", 1 << 32), ("ffff::", u128::MAX)]
        {
            assert_eq!(of(first, count), None, "{first} {count}");
        }
        assert_eq!(Range::new("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap()), None);
        assert_eq!(Range::new("10.0.0.2".parse().unwrap(), "::1".parse().unwrap()), None);
    }

    #[test]
    fn adjacent_and_overlapping_ranges_are_merged() {
        let ranges = vec![
            range("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            range("10.0.1.0", "10.0.1.255"),
            range("10.0.0.0", "10.0.0.255"),
            range("10.0.0.128", "10.0.0.200"),
            range("255.255.255.255", "255.255.255.255"),
            range("::", "::1"),
            range("10.0.3.0", "10.0.3.255"),
        ];
        assert_eq!(
            texts(aggregate(ranges)),
            [
                "10.0.0.0/23",
                "10.0.3.0/24",
                "255.255.255.255/32",
                "::/127",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127",
            ]
        );
    }
}
