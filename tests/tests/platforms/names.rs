//! Names of containers: accepted wherever an id is, shown beside it, and kept in the ledger.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use traffic_tests::Lab;
use traffic_tests::check::{eventually, stderr, trafctl};
use traffic_tests::container::introduce;
use traffic_tests::daemon::Daemon;
use traffic_tests::traffic::udp_send;

use crate::{host, is_attached, node, owner};

/// Names by the configuration, which overrides those of platforms.
fn configure(lab: &Lab, name_of_101: &str) -> Result<()> {
    let classes = lab.path("classes");
    lab.configure(&format!(
        "class_file = {classes:?}\n[drain]\ninterval = '250ms'\n\
         [[container]]\nid = '101'\nname = '{name_of_101}'\n\
         [[container]]\nid = '102'\nname = 'mail'\n[[container]]\nid = '103'\nname = 'mail'\n"
    ))
}

/// The packets that each container of a document sent.
fn sent(document: &Value) -> Result<Vec<(String, u64)>> {
    let rows = document["counters"].as_array().or_else(|| document["rows"].as_array()).context("rows")?;
    let sum = |row: &Value| row["out_packets"].as_u64().or_else(|| row["out"]["packets"].as_u64());
    let all = rows.iter().filter_map(|row| Some((row["container"].as_str()?.to_owned(), sum(row)?)));
    Ok(all.filter(|(_, packets)| *packets > 0).collect())
}

/// The message of a command that must fail.
fn refusal(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let output = trafctl(lab, arguments)?;
    ensure!(!output.status.success() && output.stdout.is_empty(), "{arguments:?} succeeded");
    Ok(stderr(&output))
}

#[test]
fn a_name_is_accepted_wherever_an_id_is() -> Result<()> {
    let lab = node("names")?;
    configure(&lab, "shop")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let container =
        |id, number: u8| lab.bridged(id, 0, [10, 1, 0, number].into(), format!("fd00:1::{number}").parse()?);
    let (one, two) = (container(101, 1)?, container(102, 2)?);
    introduce(&[&one, &two])?;
    eventually("both are attached", || {
        Ok(is_attached(&lab, "veth101.0")? && is_attached(&lab, "veth102.0")?)
    })?;
    udp_send(one.namespace(), two.namespace(), (two.v4(), 0).into(), 17, 300)?;

    let json = |arguments: &[&str]| lab.run_json(&[arguments, &["--format", "json"]].concat());
    let of_id = json(&["dump", "--container", "101"])?;
    let of_name = json(&["dump", "--container", "shop"])?;
    assert_eq!(sent(&of_name)?, sent(&of_id)?);
    ensure!(sent(&of_name)?.iter().all(|(id, packets)| id == "101" && *packets >= 17), "{of_name}");
    lab.run_ok(&["top", "--container", "shop", "--times", "1", "--interval", "100ms"])?;
    eventually("the ledger has it", || {
        let report = json(&["report", "--container", "shop"])?;
        Ok(sent(&report)? == sent(&json(&["report", "--container", "101"])?)?
            && report["rows"][0]["name"] == "shop"
            && sent(&report)?.iter().any(|(id, packets)| id == "101" && *packets >= 17))
    })?;
    let csv = lab.run_ok(&["report", "--format", "csv"])?;
    ensure!(csv.lines().any(|line| line.contains(",101,") && line.ends_with(",shop,")), "{csv}");
    json(&["gaps", "--container", "shop"])?;
    for arguments in [&["dump", "--container", "mail"][..], &["report", "--container", "mail"]] {
        let message = refusal(&lab, arguments)?;
        ensure!(message.contains("mail is the name of 2 containers: 102, 103"), "{message}");
    }
    let message = refusal(&lab, &["dump", "--container", "nobody"])?;
    ensure!(message.contains("no container nobody is known"), "{message}");

    // What cannot be undone needs the id.
    let preview = trafctl(&lab, &["container", "retire", "shop"])?;
    let shown = String::from_utf8_lossy(&preview.stdout).into_owned();
    ensure!(shown.contains("would retire 101"), "{shown}{}", stderr(&preview));
    let message = refusal(&lab, &["container", "retire", "shop", "--yes"])?;
    ensure!(message.contains("shop is the name of container 101"), "{message}");

    let status = lab.run_json(&["status", "--format", "json"])?;
    let attachments = status["attachments"].as_array().context("attachments")?;
    let of_101 = attachments.iter().find(|one| one["container"] == "101").context("101")?;
    assert_eq!(of_101["name"], "shop");

    // Its name changes. The ledger keeps both, because they are not of one second.
    let second = || Ok::<_, anyhow::Error>(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    let seen = second()?;
    eventually("that second has passed", || Ok(second()? > seen))?;
    configure(&lab, "shop-2")?;
    daemon.signal(Signal::HUP)?;
    eventually("the ledger has the new name", || {
        let history = json(&["container", "history", "101"])?;
        let names = history["containers"][0]["names"].as_array().context("names")?.clone();
        Ok(names.len() == 2 && names[0]["name"] == "shop" && names[0]["until"] == names[1]["since"])
    })?;
    let history = json(&["container", "history", "shop-2"])?;
    assert_eq!(history["containers"][0]["container"], "101");
    assert_eq!(json(&["report", "--container", "shop"])?["rows"][0]["name"], "shop-2", "nobody else has it");
    lab.run_ok(&["audit"])?;
    daemon.stop()
}

#[test]
fn what_is_counted_for_a_pending_owner_is_not_called_uncounted() -> Result<()> {
    let lab = node("host-pending")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let _unknown = lab.bridged_as("vethQ7x2Ab", [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    eventually("it is attached", || is_attached(&lab, "vethQ7x2Ab"))?;
    let report = host(&lab)?;
    let pending = report["pending"][0]["pending"].as_str().context("a pending owner")?;
    ensure!(pending.starts_with("pending:vethQ7x2Ab:"), "{report}");
    assert_eq!(report["not_counted"], serde_json::json!([]));
    let text = lab.run_ok(&["host"])?;
    ensure!(text.contains("COUNTED PENDING vethQ7x2Ab as pending:vethQ7x2Ab:"), "{text}");
    daemon.stop()
}

#[test]
fn an_address_that_a_platform_names_is_that_of_the_end_in_the_container() -> Result<()> {
    let lab = node("inner-address")?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let container = lab.bridged_as("vethQ7x2Ab", [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let text = container.namespace().ip("-j link show dev eth0")?;
    let link: Value = serde_json::from_str(&text)?;
    let address = link[0]["address"].as_str().context("an address")?;
    let classes = lab.path("classes");
    lab.configure(&format!("class_file = {classes:?}\n[[container]]\nid = 'web'\nmacs = ['{address}']\n"))?;
    daemon.signal(Signal::HUP)?;
    eventually("its container is known", || Ok(owner(&lab, "vethQ7x2Ab")?.as_deref() == Some("web")))?;
    eventually("and counted", || {
        let dump = lab.run_json(&["dump", "--format", "json"])?;
        Ok(dump["interfaces"].as_array().is_some_and(|all| all.iter().any(|one| one["container"] == "web")))
    })?;
    daemon.stop()
}
