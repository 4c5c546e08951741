//! What a container may try against its own bill, against a neighbour's, and against the node.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use etherparse::PacketBuilder;
use traffic_tests::process::run_with_input;
use traffic_tests::traffic::send_raw;
use traffic_tests::{Amounts, Counters, Lab, RoutedContainer, fuzz};

#[test]
fn generated_frames_count_only_for_their_sender() -> Result<()> {
    fuzz::run(0x7261_6663_746c, 150_000, |_| {})?.check_coverage()
}

#[test]
fn generated_frames_count_only_for_their_sender_as_real_traffic() -> Result<()> {
    let (expected, counted) = fuzz::over_wire(0x6c6f_6f6b, 20_000)?;
    assert_eq!(counted, expected);
    Ok(())
}

/// Containers that share `venet0`, where only the address identifies the container.
const OURS: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 3, 0, 1), Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 1));
const THEIRS: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 3, 0, 2), Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 2));
/// An address of no container.
const STRANGERS: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 99);

/// The rule of docs/hostile-traffic.md: packets leave the container only with its own addresses.
const RULE: &str = "table netdev own {
    chain out {
        type filter hook egress device venet0 priority 0; policy accept;
        meta protocol ip ip saddr != 10.3.0.1 drop
        meta protocol ip6 ip6 saddr != { fd00:3::1, fe80::/10 } drop
        meta protocol != { ip, ip6 } drop
    }
}
";

/// Container 301 sends one packet of each kind, with different lengths: as itself, as 302 over both families,
/// and as no container. Returns which packets the device accepted.
fn send_as_others(from: &RoutedContainer<'_>) -> Result<[bool; 4]> {
    let send = |packet: &[u8]| send_raw(from.namespace(), from.interface(), packet).is_ok();
    let v4 = |source: Ipv4Addr, payload: usize| -> Result<bool> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(source.octets(), [198, 51, 100, 7], 64)
            .udp(7, 9)
            .write(&mut packet, &vec![0; payload])?;
        Ok(send(&packet))
    };
    let mut v6 = Vec::new();
    let peer = Ipv6Addr::new(0x2001, 0xdb8, 0, 9, 0, 0, 0, 7);
    PacketBuilder::ipv6(THEIRS.1.octets(), peer.octets(), 64).udp(7, 9).write(&mut v6, &[0; 403])?;
    Ok([v4(OURS.0, 100)?, v4(THEIRS.0, 201)?, v4(STRANGERS, 302)?, send(&v6)])
}

/// What was then counted for 301, for 302 and for no container, in the direction out.
fn after_sending_as_others(rule: bool) -> Result<[Amounts; 3]> {
    let lab = Lab::new("spoof")?;
    lab.configure("")?;
    let venet = lab.venet()?;
    let ours = venet.container("301", OURS.0, OURS.1)?;
    let _theirs = venet.container("302", THEIRS.0, THEIRS.1)?;
    for (id, v4, v6) in [("301", OURS.0, OURS.1), ("302", THEIRS.0, THEIRS.1)] {
        lab.run_ok(&["address", "add", id, &v4.to_string()])?;
        lab.run_ok(&["address", "add", id, &v6.to_string()])?;
    }
    lab.run_ok(&["attach"])?;
    if rule {
        run_with_input(ours.namespace().command("nft").args(["-f", "-"]), RULE)?;
    }
    let taken = send_as_others(&ours)?;
    ensure!(taken == [true, !rule, !rule, !rule], "the container's device accepted {taken:?}");
    // Once the last accepted packet is counted, all are.
    let last = if rule { "301" } else { "302" };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while Counters::read(&lab)?.container_or_zero(last) == Amounts::default() {
        ensure!(std::time::Instant::now() < deadline, "no packet of {last} was counted");
    }
    let counters = Counters::at_rest(&lab)?;
    // The rule leaves two of these without a packet.
    let all = [
        counters.container("301"),
        counters.container_or_zero("302"),
        counters.fault_or_zero("venet0", "no_container"),
    ];
    // The host may answer that the peer is unreachable.
    Ok(all.map(|amounts| Amounts::outgoing(amounts.out_packets, amounts.out_bytes)))
}

#[test]
fn on_a_shared_interface_the_source_address_decides() -> Result<()> {
    let counted = after_sending_as_others(false)?;
    let theirs = Amounts::outgoing(2, (28 + 201) + (48 + 403));
    assert_eq!(counted, [Amounts::outgoing(1, 128), theirs, Amounts::outgoing(1, 28 + 302)]);
    Ok(())
}

#[test]
fn a_rule_inside_a_container_restricts_it_to_its_addresses() -> Result<()> {
    let counted = after_sending_as_others(true)?;
    assert_eq!(counted, [Amounts::outgoing(1, 128), Amounts::default(), Amounts::default()]);
    Ok(())
}
