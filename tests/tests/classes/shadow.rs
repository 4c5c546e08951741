//! `trafctl classes shadow` with real traffic: the preview is what is billed after the promotion.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use traffic_tests::{
    Amounts, Container, Counters, Daemon, Lab, Resync,
    check::eventually,
    container::introduce,
    traffic::{Superdatagrams, udp_send, udp_send_segmented},
};

use super::refused;

const IN_FORCE: &str = "1 0.0.0.0/0\n2 10.1.0.2/32\n1 ::/0\n";
/// The neighbour by IPv4 and by IPv6, and everything else, each in another class.
const SHADOW: &str = "# new contract\n1 0.0.0.0/0\n5 10.1.0.2/32\n6 fd00:1::2/128\n1 ::/0\n";
const REPORT: [&str; 5] = ["classes", "shadow", "--report", "--format", "json"];

fn node(name: &str) -> Result<(Lab, Container, Container)> {
    let (lab, a, b) = Lab::with_two(name, IN_FORCE, "")?;
    lab.run_ok(&["attach"])?;
    Ok((lab, a, b))
}

fn begin(lab: &Lab, text: &str) -> Result<String> {
    let file = lab.write("shadowed", text)?;
    lab.run_ok(&["classes", "shadow", utf8(&file)?])
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}

/// The same packets each time, of both families and directions, and super-packets.
fn send(a: &Container, b: &Container) -> Result<()> {
    for (number, to) in (1..).zip([b.v4(), b.v6()]) {
        udp_send(a.namespace(), b.namespace(), (to, 0).into(), 10 * number, 300)?;
        let buffers = Superdatagrams { sends: 3 * number, payload_bytes: 4000, segment_bytes: 1000 };
        udp_send_segmented(a.namespace(), b.namespace(), (to, 0).into(), buffers)?;
    }
    for (number, to) in (1..).zip([a.v4(), a.v6()]) {
        udp_send(b.namespace(), a.namespace(), (to, 0).into(), 7 * number, 200)?;
    }
    Ok(())
}

/// Container, class and family -> amounts, of what the shadow would bill.
fn preview(lab: &Lab) -> Result<Vec<(String, u8, String, Amounts)>> {
    let report = lab.run_json(&REPORT)?;
    let mut rows: Vec<(String, u8, String, Amounts)> = Vec::new();
    for row in report["pairs"].as_array().context("pairs")? {
        let text = |name: &str| anyhow::Ok(row[name].as_str().context("a text")?.to_owned());
        let to = u8::try_from(row["to"].as_u64().context("to")?)?;
        let (container, family) = (text("container")?, text("family")?);
        let amounts: Amounts = serde_json::from_value(row.clone())?;
        match rows.iter_mut().find(|row| (&row.0, row.1, &row.2) == (&container, to, &family)) {
            Some(row) => row.3 = row.3.plus(amounts),
            None => rows.push((container, to, family, amounts)),
        }
    }
    rows.sort_by_key(|(container, class, family, _)| (container.clone(), *class, family.clone()));
    Ok(rows)
}

fn grown(before: &Counters, after: &Counters) -> Vec<(String, u8, String, Amounts)> {
    let mut rows: Vec<_> = after
        .counters
        .iter()
        .map(|row| {
            let earlier = before.class_or_zero(&row.container, row.class, &row.family);
            (row.container.clone(), row.class, row.family.clone(), row.amounts.since(earlier))
        })
        .filter(|row| row.3 != Amounts::default())
        .collect();
    rows.sort_by_key(|(container, class, family, _)| (container.clone(), *class, family.clone()));
    rows
}

#[test]
fn the_preview_is_billed_to_the_byte_after_the_promotion() -> Result<()> {
    let (lab, a, b) = node("shadow-promote")?;
    // What was counted before is not in the shadow.
    send(&a, &b)?;
    let said = begin(&lab, SHADOW)?;
    ensure!(said.contains("counts beside the table in force from now on"), "{said}");
    let before = Counters::at_rest(&lab)?;
    send(&a, &b)?;
    let during = Counters::at_rest(&lab)?;
    let preview = preview(&lab)?;
    let classes: Vec<_> = preview.iter().map(|row| (row.0.as_str(), row.1, row.2.as_str())).collect();
    let expected = [("101", 5, "ipv4"), ("101", 6, "ipv6"), ("102", 1, "ipv4"), ("102", 1, "ipv6")];
    assert_eq!(classes, expected);
    // What is billed meanwhile is under the table in force, and the same packets.
    let sum = |rows: &[(String, u8, String, Amounts)]| {
        rows.iter().fold(Amounts::default(), |sum, row| sum.plus(row.3))
    };
    let billed = grown(&before, &during);
    assert!(billed.iter().all(|row| [1, 2].contains(&row.1)), "{billed:?}");
    assert_eq!(sum(&billed), sum(&preview));

    let report = lab.run_json(&REPORT)?;
    assert_eq!((&report["version"], &report["begun_anew"]), (&json!(1), &Value::Null));
    let lines = |at: usize| report["changes"][at].clone();
    assert_eq!(
        lines(1),
        json!({"from": 2, "to": 5, "lines": [{"line": 3, "class": 5, "prefix": "10.1.0.2/32"}],
            "lines_total": 1, "removed": [], "removed_total": 0})
    );
    let text = lab.run_ok(&["classes", "shadow", "--report"])?;
    ensure!(text.contains("from class 2 to 5:\n  line 3: 5 10.1.0.2/32\n"), "{text}");
    ensure!(lab.run_ok(&["status"])?.contains("shadowed counts since "));

    // The content that was shadowed is promoted, not what is in the file by now.
    lab.write("shadowed", "9 0.0.0.0/0\n9 ::/0\n")?;
    let output = lab.trafctl(&["classes", "shadow", "--promote"])?.output()?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(
        String::from_utf8(output.stderr)?.contains("has changed since; what was shadowed is put in force")
    );
    let before = Counters::at_rest(&lab)?;
    send(&a, &b)?;
    assert_eq!(grown(&before, &Counters::at_rest(&lab)?), preview);
    refused(&lab, &REPORT, 1, "there is no shadow class table")?;
    assert_eq!(lab.run_json(&["status", "--format", "json"])?["shadow"], Value::Null);
    Ok(())
}

#[test]
fn a_new_owner_of_a_slot_sees_nothing_of_the_former() -> Result<()> {
    let (lab, a, b) = Lab::with_two("shadow-owner", IN_FORCE, "[limits]\ncontainers = 2\n")?;
    // A slot is free again when the ledger has its figures.
    Daemon::start(&lab)?.stop()?;
    begin(&lab, SHADOW)?;
    send(&a, &b)?;
    assert!(preview(&lab)?.iter().any(|row| row.0 == "101"));
    drop(a);
    lab.run_ok(&["container", "retire", "101", "--yes"])?;
    let c = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    introduce(&[&c, &b])?;
    lab.run_ok(&["attach"])?;
    let before = Counters::at_rest(&lab)?;
    assert!(preview(&lab)?.iter().all(|row| row.0 == "102"), "{:?}", preview(&lab)?);
    send(&c, &b)?;
    let own: Amounts = grown(&before, &Counters::at_rest(&lab)?)
        .iter()
        .filter(|row| row.0 == "103")
        .fold(Amounts::default(), |sum, row| sum.plus(row.3));
    let seen = preview(&lab)?
        .iter()
        .filter(|row| row.0 == "103")
        .fold(Amounts::default(), |sum, row| sum.plus(row.3));
    assert!(own.out_bytes > 0 && own.in_bytes > 0, "the new container has the only slot: {own:?}");
    assert_eq!(seen, own);
    Ok(())
}

#[test]
fn a_shadow_that_cannot_follow_a_new_owner_ends_and_keeps_nobody_from_a_slot() -> Result<()> {
    let (lab, a, b) = Lab::with_two("shadow-rebase", IN_FORCE, "[limits]\ncontainers = 2\n")?;
    Daemon::start(&lab)?.stop()?;
    begin(&lab, SHADOW)?;
    // The slot cannot be made a new owner's, and what is left cannot be cleared away.
    std::fs::remove_file(lab.bpffs().join("shadow/BASES"))?;
    std::fs::create_dir(lab.bpffs().join("shadow/foreign"))?;
    drop(a);
    lab.run_ok(&["container", "retire", "101", "--yes"])?;
    let c = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    introduce(&[&c, &b])?;
    let output = lab.trafctl(&["attach"])?.output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.success() && said.contains("the shadow class table ends, because "), "{said}");
    send(&c, &b)?;
    assert!(Counters::at_rest(&lab)?.counters.iter().any(|row| row.container == "103"));
    refused(&lab, &REPORT, 1, "does not count now")?;
    Ok(())
}

#[test]
fn another_table_and_larger_limits_begin_the_shadow_anew() -> Result<()> {
    let (lab, a, b) = node("shadow-anew")?;
    let daemon = Daemon::start_with(&lab, Resync::AsShipped)?;
    begin(&lab, SHADOW)?;
    send(&a, &b)?;
    assert!(!preview(&lab)?.is_empty());
    let file = lab.write("networks_classes", "1 0.0.0.0/0\n2 10.1.0.2/32\n3 10.1.0.1/32\n1 ::/0\n")?;
    let renewed = |why: &str| {
        eventually("the shadow has begun anew", || {
            let output = lab.trafctl(&REPORT)?.output()?;
            let report = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
            Ok(report["begun_anew"] == why && report["pairs"] == json!([]))
        })
    };
    renewed("another class table was put in force")?;
    send(&a, &b)?;
    // The pairs are those of the new table.
    let pairs = lab.run_json(&REPORT)?["pairs"].clone();
    let of_new = |row: &Value| row["from"] == 3 && row["to"] == 1;
    ensure!(pairs.as_array().is_some_and(|rows| rows.iter().any(of_new)), "{pairs:#}");

    // The same table once more changes nothing.
    let before = preview(&lab)?;
    lab.run_ok(&["classes", "load"])?;
    assert_eq!(preview(&lab)?, before);
    lab.configure(&format!("class_file = {file:?}\n[limits]\ncontainers = 4096\n"))?;
    daemon.signal(rustix::process::Signal::HUP)?;
    renewed("[limits] was raised")?;
    send(&a, &b)?;
    assert_eq!(preview(&lab)?, before);
    daemon.stop()
}

#[test]
fn a_shadow_begins_anew_after_a_reboot() -> Result<()> {
    let (lab, mut a, mut b) = node("shadow-reboot")?;
    begin(&lab, SHADOW)?;
    send(&a, &b)?;
    lab.lose_power([&mut a, &mut b])?;
    let mut daemon = Daemon::spawn(&mut lab.in_another_boot(&["run"])?, Resync::AsShipped)?;
    daemon.ready()?;
    eventually("the shadow counts again", || Ok(lab.trafctl(&REPORT)?.output()?.status.success()))?;
    let report = lab.run_json(&REPORT)?;
    assert_eq!(report["begun_anew"], "the counters were created anew, as after a reboot");
    assert_eq!(report["pairs"], json!([]));
    send(&a, &b)?;
    assert!(preview(&lab)?.iter().any(|row| row.1 == 5));
    daemon.stop()
}

#[test]
fn what_would_lose_figures_asks_and_what_is_wrong_is_refused() -> Result<()> {
    let (lab, a, b) = node("shadow-refused")?;
    refused(&lab, &REPORT, 1, "there is no shadow class table; `trafctl classes shadow FILE` begins one")?;
    refused(&lab, &["classes", "shadow", "--drop", "--yes"], 1, "there is no shadow class table")?;
    refused(&lab, &["classes", "shadow", "--promote"], 1, "there is no shadow class table")?;
    refused(&lab, &["classes", "shadow"], 2, "required arguments")?;
    refused(
        &lab,
        &["classes", "shadow", "/nonexistent"],
        1,
        "no shadow was begun, and what counts stays as it is",
    )?;
    // As many classes as pairs need, and more.
    let text: String = (0..=255).map(|n| format!("{} 10.2.{n}.0/24\n", n.min(254))).collect();
    let many = lab.write("many", &format!("{text}1 10.3.0.0/24\n{IN_FORCE}"))?;
    let of_two =
        lab.write("two", &(0..=255).map(|n| format!("{} 10.2.{n}.0/24\n", 3 + n % 2)).collect::<String>())?;
    lab.run_ok(&["classes", "load", "--yes", utf8(&of_two)?])?;
    refused(
        &lab,
        &["classes", "shadow", utf8(&many)?],
        1,
        "pairs of classes (class in force, class in the file), and \
        there is room for 255; use fewer classes in the file",
    )?;

    begin(&lab, SHADOW)?;
    send(&a, &b)?;
    let before = preview(&lab)?;
    for arguments in [&["classes", "shadow", "--drop"][..], &["classes", "shadow", utf8(&of_two)?]] {
        let output = lab.trafctl(arguments)?.output()?;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stdout)?;
        let end = "nothing was changed; repeat the command with --yes to do it\n";
        ensure!(said.contains("shadowed, since ") && said.ends_with(end), "{said}");
        assert_eq!(preview(&lab)?, before);
    }
    lab.run_ok(&["classes", "shadow", utf8(&of_two)?, "--yes"])?;
    assert_eq!(preview(&lab)?, []);
    lab.run_ok(&["classes", "shadow", "--drop", "--yes"])?;
    refused(&lab, &REPORT, 1, "there is no shadow class table")?;
    lab.run_ok(&["detach", "--purge", "--yes"])?;
    ensure!(!lab.bpffs().join("shadow/RECORD").exists());
    Ok(())
}
