//! `trafctl compare`: another accounting of the same interface, played by counters of nftables.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use traffic_tests::Counters;
use traffic_tests::process::run_with_input;
use traffic_tests::traffic::tcp_exchange;
use traffic_tests::witness::NftWitness;

use crate::node::{World, at, output, stderr};

/// What an accounting with nftables shows: buffers, all in class 1.
fn theirs(witness: &NftWitness<'_>) -> Result<String> {
    let count = witness.read()?;
    let (incoming, outgoing) = (count.egress, count.ingress);
    let figures = [
        incoming.v4.bytes + incoming.v6.bytes,
        incoming.v4.packets + incoming.v6.packets,
        outgoing.v4.bytes + outgoing.v6.bytes,
        outgoing.v4.packets + outgoing.v6.packets,
    ];
    let [in_bytes, in_packets, out_bytes, out_packets] = figures;
    Ok(format!("UUID Net.Class\n101 1 {in_bytes:>20} {in_packets:>10} {out_bytes:>20} {out_packets:>10}\n"))
}

fn compare(world: &World, input: &str, arguments: &[&str]) -> Result<String> {
    Counters::at_rest(&world.lab)?;
    let arguments = [&["compare", "--with", "-"], arguments].concat();
    run_with_input(world.lab.trafctl(&arguments)?.stdout(std::process::Stdio::piped()), input)
}

#[test]
fn super_packets_are_recognised_by_their_missing_headers() -> Result<()> {
    let world = World::new("compare")?;
    let witness = NftWitness::attach(world.lab.host(), world.container.interface())?;
    let exchange = || {
        let (from, to) = (world.container.namespace(), world.beyond.namespace());
        tcp_exchange(from, to, at("8.8.8.8")?, 5_000_000, 1000)
    };
    exchange()?;
    let stored = compare(&world, &theirs(&witness)?, &[])?;
    ensure!(stored.starts_with("first readings stored in "), "{stored}");
    ensure!(world.lab.state_dir().join("compare.json").is_file());

    let count = exchange()?;
    let text = compare(&world, &theirs(&witness)?, &["--format", "json"])?;
    let json: Value = serde_json::from_str(&text)?;
    let row = &json["rows"][0];
    assert_eq!((&row["container"], &row["class"]), (&"101".into(), &1.into()));
    assert_eq!(row["out_bytes"], count.client.l3_bytes, "since the first readings, not in total");
    assert_eq!(row["out_packets"], count.client.segments);
    assert_eq!(row["out_reason"], "gso_headers", "{row:#}");
    let ours = row["out_bytes"].as_u64().context("ours")?;
    let other = row["out_bytes_theirs"].as_u64().context("theirs")?;
    ensure!(other < ours && ours - other > ours / 50, "they should miss some per cent: {row:#}");
    ensure!(
        row["out_packets_theirs"].as_u64() < row["out_packets"].as_u64().map(|packets| packets / 2),
        "{row:#}"
    );
    // Acknowledgements are not super-packets.
    assert_eq!((&row["in_bytes"], &row["in_reason"]), (&row["in_bytes_theirs"], &Value::Null), "{row:#}");

    let table = compare(&world, &theirs(&witness)?, &[])?;
    ensure!(table.contains("out: GSO headers") && table.contains("THEIRS"), "{table}");
    let csv = compare(&world, &theirs(&witness)?, &["--format", "csv"])?;
    assert_eq!(csv.lines().count(), 2, "{csv}");
    ensure!(csv.ends_with(",gso_headers\n"), "{csv}");
    Ok(())
}

#[test]
fn unusable_input_is_refused_and_changes_nothing() -> Result<()> {
    let world = World::new("compare-bad")?;
    let first = world.lab.path("first.json").display().to_string();
    let good = world.lab.write("good", "101 1 0 0 0 0\n")?.display().to_string();
    let bad = world.lab.write("bad", "UUID\n101 1 7K 0 0 0\n")?.display().to_string();
    let run = |arguments: &[&str]| {
        let arguments = [&["compare", "--baseline", &first], arguments].concat();
        output(&mut world.lab.trafctl(&arguments)?)
    };
    let fails = |arguments: &[&str], message: &str| -> Result<()> {
        let output = run(arguments)?;
        ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{arguments:?}: {output:?}");
        ensure!(stderr(&output).contains(message), "{arguments:?}: {}", stderr(&output));
        Ok(())
    };
    fails(&["--with", &bad], "bad:2: 7K is rounded")?;
    fails(&["--with", "/nonexistent"], "/nonexistent")?;
    ensure!(!world.lab.path("first.json").exists());
    ensure!(run(&["--with", &good])?.status.success());
    let kept = std::fs::read(world.lab.path("first.json"))?;
    fails(&["--with", &bad], "bad:2: ")?;

    // They counted nothing, and no known reason explains it.
    world.send("8.8.8.8", 11, 100)?;
    let found = run(&["--with", &good])?;
    ensure!(found.status.code() == Some(1), "{found:?}");
    ensure!(String::from_utf8_lossy(&found.stdout).contains("out: unexplained"), "{found:?}");
    assert_eq!(std::fs::read(world.lab.path("first.json"))?, kept);

    world.lab.run_ok(&["detach", "--purge", "--yes"])?;
    world.lab.run_ok(&["attach"])?;
    fails(&["--with", &good], "start over with --restart")?;
    ensure!(run(&["--with", &good, "--restart"])?.status.success());
    let nothing = run(&["--with", &good])?;
    ensure!(
        String::from_utf8_lossy(&nothing.stdout).contains("neither side counted anything"),
        "{nothing:?}"
    );
    Ok(())
}
