//! Rules of nft and tc: what each of them refuses, and which hooks had counted it.

use anyhow::{Result, ensure};
use traffic_tests::foreign::{Foreign, Hook, Place, Verdict};
use traffic_tests::traffic::udp_send;

use crate::node::{
    Amount, PAYLOAD, all_attributed, at, bridged, by_reason, chain, dump, nft, node, received, sent, settles,
};

const NONE: Amount = Amount { packets: 0, bytes: 0 };

#[test]
fn nft_on_the_bridge_refuses_what_only_the_sender_counted() -> Result<()> {
    let lab = node("drops-nft-bridge", "")?;
    let [a, b] = bridged(&lab)?;
    nft(&lab, &chain("bridge", "forward", "meta l4proto udp drop"))?;
    for to in [b.v4(), b.v6()] {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 300, PAYLOAD)?;
        settles(&lab, ("101", 2, to, "out"), sent(&count), NONE)?;
        settles(&lab, ("102", 1, to, "in"), NONE, NONE)?;
    }
    let after = dump(&lab)?;
    let (out, into) = (by_reason(&after, "out", "firewall"), by_reason(&after, "in", "firewall"));
    ensure!(out.packets == 600 && into == NONE, "{after:#}");
    all_attributed(&after)
}

#[test]
fn an_nft_limit_refuses_a_part() -> Result<()> {
    let lab = node("drops-nft-limit", "")?;
    let [a, b] = bridged(&lab)?;
    nft(&lab, &chain("bridge", "forward", "meta l4proto udp limit rate over 1/hour burst 150 packets drop"))?;
    let to = b.v4();
    let count = udp_send(a.namespace(), b.namespace(), at(to), 400, PAYLOAD)?;
    let (sent, got) = (sent(&count), received(&count, to));
    ensure!(got.packets > 0 && got.packets < sent.packets, "{count:?}");
    settles(&lab, ("101", 2, to, "out"), sent, got)?;
    settles(&lab, ("102", 1, to, "in"), got, got)
}

/// The egress hook of netfilter comes before that of tc.
#[test]
fn nft_on_egress_refuses_what_only_the_sender_counted() -> Result<()> {
    let lab = node("drops-nft-egress", "")?;
    let [a, b] = bridged(&lab)?;
    nft(&lab, &chain("netdev", "egress device \"veth102.0\"", "meta l4proto udp drop"))?;
    for to in [b.v4(), b.v6()] {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 300, PAYLOAD)?;
        settles(&lab, ("101", 2, to, "out"), sent(&count), NONE)?;
        settles(&lab, ("102", 1, to, "in"), NONE, NONE)?;
    }
    Ok(())
}

/// The ingress hook of netfilter comes after that of tc.
#[test]
fn nft_on_ingress_refuses_what_the_sender_counted() -> Result<()> {
    let lab = node("drops-nft-ingress", "")?;
    let [a, b] = bridged(&lab)?;
    nft(&lab, &chain("netdev", "ingress device \"veth101.0\"", "meta l4proto udp drop"))?;
    for to in [b.v4(), b.v6()] {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 300, PAYLOAD)?;
        settles(&lab, ("101", 2, to, "out"), sent(&count), NONE)?;
        settles(&lab, ("102", 1, to, "in"), NONE, NONE)?;
    }
    Ok(())
}

#[test]
fn a_program_behind_the_ingress_hook_refuses_what_the_sender_counted() -> Result<()> {
    let lab = node("drops-tc-ingress", "")?;
    let [a, b] = bridged(&lab)?;
    let _filter = Foreign::attach(lab.host(), "veth101.0", Hook::Ingress, Place::Last, Verdict::Drop)?;
    for to in [b.v4(), b.v6()] {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 300, PAYLOAD)?;
        settles(&lab, ("101", 2, to, "out"), sent(&count), NONE)?;
        settles(&lab, ("102", 1, to, "in"), NONE, NONE)?;
    }
    all_attributed(&dump(&lab)?)
}

#[test]
fn a_program_behind_the_egress_hook_refuses_what_both_counted() -> Result<()> {
    let lab = node("drops-tc-egress", "")?;
    let [a, b] = bridged(&lab)?;
    let _filter = Foreign::attach(lab.host(), "veth102.0", Hook::Egress, Place::Last, Verdict::Drop)?;
    for to in [b.v4(), b.v6()] {
        let count = udp_send(a.namespace(), b.namespace(), at(to), 300, PAYLOAD)?;
        for line in [("101", 2, to, "out"), ("102", 1, to, "in")] {
            settles(&lab, line, sent(&count), NONE)?;
        }
    }
    all_attributed(&dump(&lab)?)
}
