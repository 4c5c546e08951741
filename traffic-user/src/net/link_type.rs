//! Which types of link can be counted: where the IP header of a packet begins on both hooks.
//!
//! Behind Ethernet it is byte 14. Layer-3 devices have no header. On other types there is something else in
//! front, or no IP at all; counted by the same program, their packets would all be malformed.

/// A reason why the packets of an interface cannot be counted, if there is one.
///
/// `link_type` is the kernel's `ARPHRD_*`, `broadcast` the device's broadcast address, on a tunnel its other
/// end. `kernel` is the running version.
pub(super) fn obstacle(link_type: u16, broadcast: &[u8], kernel: (u32, u32)) -> Option<&'static str> {
    const LOOPBACK: u16 = 772;
    const INFINIBAND: u16 = 32;
    const CAN: u16 = 280;
    const MONITORS: [u16; 5] = [801, 802, 803, 824, 826];
    const GRE: u16 = 778;
    // ipip, ip6tnl, sit, gre, ip6gre.
    const TUNNELS: [u16; 5] = [768, 769, 776, GRE, 823];
    match link_type {
        LOOPBACK => Some(
            "it is the loopback, whose packets never leave the node; name the interface that leads to the network",
        ),
        INFINIBAND => Some(
            "InfiniBand has another header than Ethernet, which trafctl cannot count; name the interface of a \
             bridge or tunnel above it",
        ),
        CAN => Some("it is a CAN bus, which carries no IP packets; name another interface"),
        _ if MONITORS.contains(&link_type) => {
            Some("it only monitors packets of others, which carry other headers; name the interface itself")
        }
        // Received packets begin with the outer header on these, because somebody may want to see the sender.
        GRE if broadcast.first().is_none_or(|&first| first == 0 || first >= 224) => Some(
            "a GRE tunnel without a fixed other end shows received packets with their outer header, which \
             trafctl cannot count; give the tunnel a `remote`, or name the interface below it",
        ),
        // By the commits "allow redirecting ... packets to eth devices".
        _ if TUNNELS.contains(&link_type) && kernel < (5, 14) => Some(
            "before Linux 5.14 a tunnel shows received packets with their outer header, which trafctl cannot count; \
             name the interface below it",
        ),
        _ => None,
    }
}

/// Major and minor version of the running kernel; the oldest one if it has an odd name.
pub(super) fn running_kernel() -> (u32, u32) {
    version(&rustix::system::uname().release().to_string_lossy())
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_counted_has_no_obstacle() {
        let at = |link_type, broadcast: &[u8], kernel| obstacle(link_type, broadcast, kernel);
        // Ethernet, tun, venet0, ppp.
        for link_type in [1, 65_534, 65_535, 512] {
            assert_eq!(at(link_type, &[0xff; 6], (5, 10)), None, "{link_type}");
        }
        for (link_type, why) in [(772, "loopback"), (32, "InfiniBand"), (280, "CAN"), (824, "monitors")] {
            assert!(at(link_type, &[], (6, 18)).is_some_and(|text| text.contains(why)), "{link_type}");
        }
        for tunnel in [768, 769, 776, 778, 823] {
            assert!(
                at(tunnel, &[10, 0, 0, 7], (5, 13)).is_some_and(|text| text.contains("5.14")),
                "{tunnel}"
            );
            assert_eq!(at(tunnel, &[10, 0, 0, 7], (5, 14)), None, "{tunnel}");
        }
        for multipoint in [&[0, 0, 0, 0][..], &[239, 1, 1, 1], &[]] {
            assert!(at(778, multipoint, (6, 18)).is_some_and(|text| text.contains("`remote`")));
        }
    }

    #[test]
    fn a_kernel_is_known_by_its_first_two_numbers() {
        assert_eq!(version("6.18.44-fc-v669"), (6, 18));
        assert_eq!(version("5.10.0-28-cloud-amd64"), (5, 10));
        assert_eq!(version("odd"), (0, 0));
        assert!(running_kernel() >= (5, 10));
    }
}
