//! Single packets through the pinned program with `BPF_PROG_TEST_RUN`: each form of header, each fault, and
//! super-packets as far as the context describes them. Expected lengths are computed here from the parts of
//! each packet.

mod bench;
mod cases;
mod frames;
mod shadow;

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{Amounts, Counters, Lab};

use bench::{Bench, Case, Class, MARK, Out, index_of, run};
use cases::{accepted, refused, segmented};
use frames::{CONTAINER, CONTAINER_V6, FOREIGN, FREE, SPECIAL, ethernet, ipv4, udp};

fn check_all(name: &str, cases: &[Case]) -> Result<()> {
    let mut bench = Bench::new(name)?;
    for case in cases {
        bench.check(case).with_context(|| case.what)?;
    }
    Ok(())
}

#[test]
fn every_form_of_header_is_counted_in_its_class() -> Result<()> {
    check_all("accepted", &accepted()?)
}

#[test]
fn every_fault_has_its_own_counter() -> Result<()> {
    check_all("refused", &refused()?)
}

#[test]
fn super_packets_count_as_their_segments() -> Result<()> {
    check_all("segmented", &segmented()?)
}

#[test]
fn an_interface_without_an_entry_is_counted_as_unknown() -> Result<()> {
    let mut bench = Bench::new("unknown")?;
    let packet = ethernet(0x0800, &ipv4(17, CONTAINER, FOREIGN, &udp(66)?)?);
    let loopback = 1;
    let (_, after) = bench.run(Out, &packet, None, loopback)?;
    assert_eq!(after.fault("(other)", "unknown_interface"), Amounts::outgoing(1, 94));
    assert_eq!(after.interface("(other)").amounts, Amounts::outgoing(1, 94));
    assert_eq!(after.counters, [], "no container counter exists");
    Ok(())
}

#[test]
fn a_container_without_a_slot_is_counted_as_a_fault() -> Result<()> {
    let lab = Lab::new("full")?;
    lab.configure("[limits]\ncontainers = 1\n")?;
    let first = lab.bridged(101, 0, CONTAINER, CONTAINER_V6)?;
    lab.run_ok(&["attach"])?;
    let second = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    lab.run_ok(&["attach"])?;
    let before = Counters::read(&lab)?;
    let mut bench = Bench { ifindex: index_of(&lab, second.interface())?, lab, before };
    let packet = ethernet(0x0800, &ipv4(17, [10, 1, 0, 2].into(), FOREIGN, &udp(67)?)?);
    let (_, after) = bench.run(Out, &packet, None, bench.ifindex)?;
    assert_eq!(after.fault("veth102.0", "container_table_full"), Amounts::outgoing(1, 95));
    assert_eq!(after.faults.len(), 1, "the other interface has no fault: {after:#?}");
    drop(first);
    Ok(())
}

#[test]
fn packets_from_a_container_get_the_configured_mark() -> Result<()> {
    let bench = Bench::configured("marked", "[shaping]\nenabled = true\n")?;
    for case in accepted()?.into_iter().chain(refused()?).chain(segmented()?) {
        let expected = match (case.way, case.place) {
            (Out, Class(class, _)) => 101 * 32 + u32::from(class),
            // To the container, or without a class: the mark stays.
            _ => MARK,
        };
        let mark = run(&bench.lab, case.way, &case.frame, case.gso, bench.ifindex)?;
        ensure!(mark == expected, "{}: {mark} instead of {expected}", case.what);
    }
    let packet = ethernet(0x0800, &ipv4(17, CONTAINER, FOREIGN, &udp(66)?)?);
    let loopback = 1;
    assert_eq!(run(&bench.lab, Out, &packet, None, loopback)?, MARK, "an interface without a container");
    Ok(())
}

#[test]
fn ids_and_classes_too_large_for_a_mark_leave_it_unchanged() -> Result<()> {
    let lab = Lab::new("no-room")?;
    let classes =
        lab.write("classes", "1 0.0.0.0/0\n31 192.0.2.9/32\n32 192.0.2.77/32\n254 172.16.0.0/12\n")?;
    let uuid = "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f";
    let ids = ["1", "134217727", "134217728", "4294967297", "web", uuid];
    let mut tables = "[shaping]\nenabled = true\n[host]\npreset = 'custom'\n".to_owned();
    let mut interfaces = Vec::new();
    for (number, id) in (0..).zip(ids) {
        tables += &format!("[[container]]\nid = '{id}'\ninterfaces = ['if{number}']\n");
        let v6 = format!("fd00:1::{number}").parse()?;
        interfaces.push(lab.bridged_as(&format!("if{number}"), [10, 1, 0, number].into(), v6)?);
    }
    lab.configure(&format!("class_file = {classes:?}\n{tables}"))?;
    let output = lab.trafctl(&["attach"])?.output()?;
    let stderr = String::from_utf8(output.stderr)?;
    for id in &ids[2..] {
        ensure!(
            stderr.contains(&format!("container {id}: what it sends gets no skb mark: {id} is ")),
            "{stderr}"
        );
    }
    assert_eq!(stderr.matches("no skb mark").count(), 4, "{stderr}");

    let to = |peer| anyhow::Ok(ethernet(0x0800, &ipv4(17, CONTAINER, peer, &udp(9)?)?));
    for (id, interface) in ids.iter().zip(&interfaces) {
        let ifindex = index_of(&lab, interface.interface())?;
        let base = match *id {
            "1" => Some(32),
            "134217727" => Some(u32::MAX - 31),
            _ => None,
        };
        for (peer, class) in
            [([8, 8, 8, 8].into(), Some(1)), (FOREIGN, Some(31)), (SPECIAL, None), (FREE, None)]
        {
            let expected = base.zip(class).map_or(MARK, |(base, class): (u32, u32)| base + class);
            assert_eq!(run(&lab, Out, &to(peer)?, None, ifindex)?, expected, "{id} to {peer}");
        }
    }
    let status = lab.run_json(&["status", "--format", "json"])?;
    let mark = &status["shaping_mark"];
    assert_eq!((&mark["configured"], &mark["in_force"]), (&true.into(), &true.into()));
    let unmarked = mark["unmarked_containers"].as_array().context("containers")?;
    let unmarked: Vec<_> = unmarked.iter().filter_map(|row| row["container"].as_str()).collect();
    assert_eq!(unmarked, ids[2..]);
    assert_eq!(mark["unmarked_classes"], serde_json::json!([32, 254]));
    let text = lab.run_ok(&["status"])?;
    let line = format!(
        "skb mark on: id * 32 + class; not on containers 134217728, 4294967297, web, {uuid}; not on classes 32, 254\n"
    );
    ensure!(text.contains(&line), "{text}");
    Ok(())
}
