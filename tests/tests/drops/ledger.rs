//! What was dropped is in the ledger, and stays there when the counters are gone.

use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Daemon, Lab};

use crate::node::{Amount, PAYLOAD, at, bridged, host, load_program, nft, node, received, sent, settles};

/// What the report has of a container's class in a direction: counted, dropped, delivered.
fn reported(lab: &Lab, (container, class, direction): (&str, u8, &str)) -> Result<[Amount; 3]> {
    let report =
        lab.run_json(&["report", "--show", "drops", "--split", "class,direction", "--format", "json"])?;
    let rows = report["rows"].as_array().context("no rows")?;
    let is_it = |row: &&Value| {
        (&row["container"], &row["class"], &row["direction"])
            == (&container.into(), &class.into(), &direction.into())
    };
    let row = rows.iter().find(is_it).with_context(|| format!("no such row: {report:#}"))?;
    let amount = |what: &str| -> Result<Amount> {
        let number = |field: &str| row[what]["total"][field].as_u64().context("no number");
        Ok(Amount { packets: number("packets")?, bytes: number("bytes")? })
    };
    Ok([amount("counted")?, amount("dropped")?, amount("delivered")?])
}

/// A drain at the start of the daemon, and one at its end.
fn drain(lab: &Lab) -> Result<()> {
    Daemon::start(lab)?.stop()
}

#[test]
fn the_ledger_has_what_was_delivered_also_after_a_purge() -> Result<()> {
    let lab = node("drops-ledger", "")?;
    let [a, b] = bridged(&lab)?;
    let to = b.v4();
    host(&lab, "tc qdisc add dev veth102.0 root tbf rate 10mbit burst 5000 limit 12000")?;
    let count = udp_send(a.namespace(), b.namespace(), at(to), 900, PAYLOAD)?;
    settles(&lab, ("101", 2, to, "out"), sent(&count), received(&count, to))?;
    drain(&lab)?;
    let first = (sent(&count), received(&count, to));
    let expected = [first.0, first.0.less(first.1), first.1];
    ensure!(expected[1].packets > 0, "the shaper dropped nothing");
    for of in [("101", 2, "out"), ("102", 1, "in")] {
        ensure!(reported(&lab, of)? == expected, "{of:?}: {:?} {expected:?}", reported(&lab, of)?);
    }
    let text = lab.run_ok(&["report", "--show", "drops"])?;
    ensure!(text.contains(&format!("shaper {}", expected[1].packets)), "{text}");

    // Counters and drop counters begin anew. Nothing of the first ones is lost or counted again.
    lab.run_ok(&["detach", "--purge", "--yes"])?;
    ensure!(reported(&lab, ("101", 2, "out"))? == expected);
    lab.run_ok(&["attach"])?;
    load_program(&lab)?;
    let count = udp_send(a.namespace(), b.namespace(), at(to), 900, PAYLOAD)?;
    settles(&lab, ("101", 2, to, "out"), sent(&count), received(&count, to))?;
    drain(&lab)?;
    let second = (sent(&count), received(&count, to));
    let sum = |a: Amount, b: Amount| Amount { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
    let all = (sum(first.0, second.0), sum(first.1, second.1));
    let found = reported(&lab, ("101", 2, "out"))?;
    ensure!(found == [all.0, all.0.less(all.1), all.1], "{found:?} {all:?}");
    // Between the attach and the load of the program, nobody counted drops.
    let gaps = lab.run_json(&["gaps", "--format", "json"])?;
    let reasons: Vec<_> = gaps["gaps"].as_array().into_iter().flatten().map(|gap| &gap["reason"]).collect();
    ensure!(reasons.iter().all(|reason| *reason != "counter_lost"), "{gaps:#}");
    let audit = lab.run_ok(&["audit"])?;
    ensure!(!audit.contains("problem:"), "{audit}");
    Ok(())
}

/// A packet is counted before it is dropped. Readings that are taken in the other order would, here, have more drops
/// than packets most of the time.
#[test]
fn no_drain_has_more_drops_than_packets() -> Result<()> {
    let lab = node("drops-order", "[drain]\ninterval = \"100ms\"\n")?;
    let [a, b] = bridged(&lab)?;
    nft(&lab, "table bridge t { chain c { type filter hook forward priority 0; ip protocol udp drop; }; }")?;
    let daemon = Daemon::start(&lab)?;
    let (from, to) = (a.namespace(), b.namespace());
    thread::scope(|scope| -> Result<()> {
        let sender = scope
            .spawn(|| (0..4).try_for_each(|_| udp_send(from, to, at(b.v4()), 30_000, PAYLOAD).map(drop)));
        let mut seen = 0;
        while !sender.is_finished() {
            let Ok([counted, dropped, delivered]) = reported(&lab, ("101", 2, "out")) else { continue };
            ensure!(
                counted.packets >= dropped.packets && counted.bytes >= dropped.bytes,
                "{counted:?} {dropped:?}"
            );
            ensure!(counted.less(dropped) == delivered, "{counted:?} {dropped:?} {delivered:?}");
            seen = dropped.packets;
        }
        ensure!(seen > 0, "no drain while packets were dropped");
        sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?
    })?;
    daemon.stop()?;
    let all = reported(&lab, ("101", 2, "out"))?;
    // Not all that was sent: a busy machine drops some before the hook, in the queue of a CPU.
    ensure!(all[0].packets > 0 && all[0] == all[1], "{all:?}");
    Ok(())
}
