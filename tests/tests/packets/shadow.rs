//! The shadow class table sees the packets that are counted in a class, with the same amounts, and no others.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_tests::Amounts;

use crate::bench::{Bench, Case, Class, Fault, In, Out};
use crate::cases::{accepted, refused, segmented};

/// The networks of `CLASSES`, each in a class of its own. Class 0 is in the shadow too.
const SHADOW: &str = "40 172.16.0.0/12\n41 0.0.0.0/0\n42 192.0.2.0/24\n43 192.0.2.77/32\n\
    52 2001:db8:0:2::/64\n54 2001:db8:0:2::77/128\n51 2001:db8::/32\n";

/// The class that a packet of this class and family has in the shadow.
fn in_shadow(class: u8, family: &str) -> u8 {
    match (family, class) {
        ("ipv4", class) => 40 + class,
        // What no prefix names is class 0 in both.
        (_, 0) => 0,
        (_, class) => 50 + class,
    }
}

fn begin(bench: &Bench) -> Result<()> {
    let file = bench.lab.write("shadow", SHADOW)?;
    let path = file.to_str().context("the path is not UTF-8")?;
    bench.lab.run_ok(&["classes", "shadow", path]).map(drop)
}

/// Family, classes in force and in the shadow, and amounts of each counter.
fn pairs(bench: &Bench) -> Result<Vec<(String, u8, u8, Amounts)>> {
    let report = bench.lab.run_json(&["classes", "shadow", "--report", "--format", "json"])?;
    let rows = report["pairs"].as_array().context("pairs")?;
    let row = |row: &Value| {
        let class = |name: &str| anyhow::Ok(u8::try_from(row[name].as_u64().context("a class")?)?);
        let family = row["family"].as_str().context("family")?.to_owned();
        ensure!(row["container"] == "101");
        Ok((family, class("from")?, class("to")?, serde_json::from_value(row.clone())?))
    };
    rows.iter().map(row).collect()
}

fn all_cases() -> Result<Vec<Case>> {
    Ok(accepted()?.into_iter().chain(refused()?).chain(segmented()?).collect())
}

#[test]
fn each_packet_in_a_class_is_in_its_pair_and_no_other_packet_is() -> Result<()> {
    let mut bench = Bench::new("shadow")?;
    begin(&bench)?;
    let mut before = pairs(&bench)?;
    assert_eq!(before, [], "a shadow begins at 0");
    for case in all_cases()? {
        // The counters that are billed are what they are without a shadow.
        bench.check(&case).with_context(|| case.what)?;
        let after = pairs(&bench)?;
        let amounts = match case.way {
            In => Amounts::incoming(case.packets, case.bytes),
            Out => Amounts::outgoing(case.packets, case.bytes),
        };
        let mut expected = before.clone();
        if let Class(class, family) = case.place {
            let to = in_shadow(class, family);
            let is_it = |row: &(String, u8, u8, Amounts)| (&*row.0, row.1, row.2) == (family, class, to);
            match expected.iter_mut().find(|row| is_it(row)) {
                Some(row) => row.3 = row.3.plus(amounts),
                None => expected.push((family.to_owned(), class, to, amounts)),
            }
        }
        expected.sort_by_key(|(family, from, to, _)| (*from, *to, family.clone()));
        ensure!(after == expected, "{}: {after:#?} instead of {expected:#?}", case.what);
        before = after;
    }
    let families: Vec<_> = before.iter().map(|row| row.0.as_str()).collect();
    assert!(families.contains(&"ipv4") && families.contains(&"ipv6"));
    let both = before.iter().fold(Amounts::default(), |sum, row| sum.plus(row.3));
    assert!(both.in_bytes > 0 && both.out_bytes > 0);
    Ok(())
}

#[test]
fn an_ended_shadow_counts_nothing_and_the_next_one_begins_at_0() -> Result<()> {
    let mut bench = Bench::new("shadow-off")?;
    let cases = all_cases()?;
    let (first, faulty) = (
        cases.iter().find(|case| matches!(case.place, Class(..))).context("a class")?,
        cases.iter().find(|case| matches!(case.place, Fault(_))).context("a fault")?,
    );
    begin(&bench)?;
    bench.check(first)?;
    assert_eq!(pairs(&bench)?.len(), 1);
    bench.lab.run_ok(&["classes", "shadow", "--drop", "--yes"])?;
    let left: Vec<_> = std::fs::read_dir(bench.lab.bpffs().join("shadow"))?.collect();
    assert!(left.is_empty(), "{left:?}");
    bench.check(first)?;
    bench.check(faulty)?;
    begin(&bench)?;
    assert_eq!(pairs(&bench)?, []);
    bench.check(first)?;
    let Class(class, family) = first.place else { return Ok(()) };
    let amounts = Amounts::outgoing(first.packets, first.bytes);
    assert_eq!(pairs(&bench)?, [(family.to_owned(), class, in_shadow(class, family), amounts)]);
    Ok(())
}
