//! `trafctl top`: the traffic between two readings, against the senders' counts.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use traffic_tests::container::introduce;
use traffic_tests::process::Process;
use traffic_tests::traffic::udp_send;

use crate::node::{PATIENCE, at, is_well, node, pair};

/// Class, container, then bytes and packets in, bytes and packets out.
type Row = (u64, String, [u64; 4]);

fn row(value: &Value) -> Result<Row> {
    let number = |name: &str| value[name].as_u64().with_context(|| format!("{name} in {value}"));
    let container = value["container"].as_str().context("a container")?.to_owned();
    let passed = [number("in_bytes")?, number("in_packets")?, number("out_bytes")?, number("out_packets")?];
    Ok((number("class")?, container, passed))
}

#[test]
fn top_shows_the_traffic_since_the_last_reading() -> Result<()> {
    let lab = node("top")?;
    let (a, mut b) = pair(&lab)?;
    // An address in class 1, besides the containers' own in class 2.
    b.add_address([192, 0, 2, 2].into())?;
    introduce(&[&a, &b])?;
    lab.run_ok(&["attach"])?;
    // Before the first reading.
    udp_send(a.namespace(), b.namespace(), at(b.v4()), 1000, 100)?;

    let mut command =
        lab.trafctl(&["top", "--by-class", "--sort", "out", "--times", "3", "--format", "json"])?;
    let mut top = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut lines = BufReader::new(top.child().stdout.take().context("its standard output")?).lines();
    let mut next = || -> Result<Option<Value>> {
        lines.next().map(|line| Ok(serde_json::from_str(&line?)?)).transpose()
    };
    let still = next()?.context("a first document")?;
    assert_eq!(still["rows"], json!([]), "earlier traffic is not shown");

    let near = udp_send(a.namespace(), b.namespace(), at(b.v4()), 50, 400)?;
    let far = udp_send(a.namespace(), b.namespace(), at([192, 0, 2, 2].into()), 30, 1300)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut all = 0;
    while let Some(document) = next()? {
        let seconds = document["seconds"].as_f64().context("seconds")?;
        ensure!(seconds >= 1.0, "the readings were {seconds} s apart");
        // A reading may fall between the packets.
        for row in document["rows"].as_array().context("rows")?.iter().map(row) {
            let (class, container, passed) = row?;
            match rows.iter_mut().find(|known| (known.0, &known.1) == (class, &container)) {
                Some(known) => known.2.iter_mut().zip(passed).for_each(|(sum, more)| *sum += more),
                None => rows.push((class, container, passed)),
            }
        }
        all += document["all"]["out_bytes"].as_u64().context("bytes of all")?;
    }
    let status = top.wait(PATIENCE)?;
    ensure!(status.success(), "{status}");
    rows.sort();
    let both = near.l3_bytes + far.l3_bytes;
    assert_eq!(
        rows,
        [
            (1, "101".to_owned(), [0, 0, far.l3_bytes, 30]),
            // The receiver sees all packets from an address in class 2.
            (2, "101".to_owned(), [0, 0, near.l3_bytes, 50]),
            (2, "102".to_owned(), [both, 80, 0, 0]),
        ]
    );
    assert_eq!(all, both);

    let table = lab.run_ok(&["top", "--times", "1"])?;
    let header: Vec<&str> = table.lines().nth(2).context("a header")?.split_whitespace().collect();
    assert_eq!(header, ["CONTAINER", "IN", "IN", "PACKETS/S", "OUT", "OUT", "PACKETS/S"]);
    ensure!(table.contains("(all)") && !table.contains('\u{1b}'), "{table}");
    is_well(&lab)
}
