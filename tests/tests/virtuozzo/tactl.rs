//! `vztactl`: class tables in both orders, and resets.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use traffic_tests::{Amounts, Counters};

use crate::node::{World, output, stderr};

#[test]
fn without_s_the_last_line_decides_and_with_it_the_longest_prefix() -> Result<()> {
    let world = World::new("vzload")?;
    // 10.2.0.9 is in all three; 8.8.8.8 in the first and the last.
    let text = "2 0.0.0.0/0\n3 10.2.0.0/24\n1 0.0.0.0/1\n0 192.0.2.0/24\n";
    let file = world.lab.write("other", text)?.display().to_string();
    let mut expected = [Amounts::default(); 4];
    let mut check = |peer: &str, class: usize, packets: u64| -> Result<()> {
        let sent = world.send(peer, packets, 10 * usize::try_from(packets)?)?;
        expected[class] = expected[class].plus(Amounts::outgoing(sent.0, sent.1));
        let rows = world.rows(&["-av", "101"])?;
        let counted: Vec<Amounts> = rows[..4].iter().map(|row| row.amounts).collect();
        ensure!(counted == expected, "{peer} in class {class}: {counted:?}, expected {expected:?}");
        Ok(())
    };
    check("10.2.0.9", 2, 3)?;
    assert_eq!(world.printed("vztactl", &["class_load", &file])?, "Classes loaded successfully.\n");
    check("10.2.0.9", 1, 5)?;
    check("8.8.8.8", 1, 7)?;
    check("192.0.2.9", 0, 9)?;
    assert_eq!(world.printed("vztactl", &["class_load", "-s", &file])?, "Classes loaded successfully.\n");
    check("10.2.0.9", 3, 11)?;
    check("8.8.8.8", 1, 13)?;
    let list = world.printed("vztactl", &["class_list"])?;
    assert_eq!(
        list,
        "class addr             mask\n\
         2     0.0.0.0                                  0.0.0.0\n\
         1     0.0.0.0                                  128.0.0.0\n\
         3     10.2.0.0                                 255.255.255.0\n\
         0     192.0.2.0                                255.255.255.0\n"
    );
    assert_eq!(world.printed("vztactl", &["class_unload"])?, "Classes unloaded successfully.\n");
    check("8.8.8.8", 0, 15)?;
    check("10.2.0.9", 0, 17)?;
    assert_eq!(world.printed("vztactl", &["class_list"])?, "class addr             mask\n");
    // Only class 0 is configured now; -a still shows the other classes.
    assert_eq!(world.rows(&["-v101"])?.len(), 1);
    Ok(())
}

#[test]
fn wrong_input_has_the_status_of_virtuozzo_and_changes_nothing() -> Result<()> {
    let world = World::new("vzbad")?;
    let before = world.printed("vztactl", &["class_list"])?;
    let bad = world.lab.write("bad", "1 0.0.0.0/0\n16\n2 10.0.0.0/255.0.0.0\n")?.display().to_string();
    let cases: [(&[&str], i32, &str); 12] = [
        (&[], 10, "Usage: vztactl <command>"),
        (&["explode"], 10, "Usage: vztactl <command>"),
        (&["class_load"], 6, "Usage: vztactl <command>"),
        (&["class_load", "-x", &bad], 6, "Unknown option -x"),
        (&["class_load", "/nonexistent"], 2, "/nonexistent"),
        (&["class_load", "-s", &bad], 2, "bad:2: "),
        (&["class_load", &bad], 2, "bad:3: "),
        (&["reset_ve_stat"], 6, "Usage: vztactl <command>"),
        (&["reset_ve_stat", "a b"], 6, "Invalid veid: a b"),
        (
            &["reset_ve_stat", "777"],
            4,
            "Reset failed: no container 777 is known: nothing has been counted for it; ",
        ),
        (&["get_ve_stat", "101"], 6, "vznetstat utility should be used"),
        (&["event"], 6, "Usage: vztactl <command>"),
    ];
    for (arguments, status, message) in cases {
        let output = output(&mut world.called("vztactl", arguments))?;
        let said = stderr(&output);
        ensure!(output.status.code() == Some(status), "{arguments:?}: {} {said}", output.status);
        ensure!(output.stdout.is_empty() && said.contains(message), "{arguments:?}: {said}");
        assert_eq!(world.printed("vztactl", &["class_list"])?, before, "{arguments:?}");
    }
    ensure!(!world.lab.state_dir().join("marks.json").exists());
    for event in ["accrestart", "shaperrestart"] {
        assert_eq!(world.printed("vztactl", &["event", event])?, "");
    }
    let output = output(&mut world.called("vztactl", &["event", "other"]))?;
    ensure!(output.status.success() && stderr(&output).contains("Unknown event: other"));
    Ok(())
}

#[test]
fn a_reset_shows_the_difference_and_leaves_the_counters() -> Result<()> {
    let world = World::new("vzreset")?;
    let first = world.send("8.8.8.8", 11, 100)?;
    let two = world.send("10.2.0.9", 5, 70)?;
    let before = Counters::at_rest(&world.lab)?;
    assert_eq!(world.printed("vztactl", &["reset_ve_stat", "101"])?, "Counters for Container 101 reseted.\n");
    assert_eq!(Counters::at_rest(&world.lab)?, before, "the counters have not changed");
    ensure!(world.rows(&[])?.iter().all(|row| row.amounts == Amounts::default()));

    let second = world.send("8.8.8.8", 13, 200)?;
    assert_eq!(world.row("101", 1)?, Amounts::outgoing(second.0, second.1));
    assert_eq!(world.row("101", 2)?, Amounts::default());
    let counters = Counters::at_rest(&world.lab)?;
    let whole = Amounts::outgoing(first.0 + second.0, first.1 + second.1);
    assert_eq!(counters.class("101", 1, "ipv4"), whole);
    let since = world.lab.run_json(&["dump", "--since-mark", "--format", "json"])?;
    let rows = since["counters"].as_array().context("counters")?;
    assert_eq!(rows.len(), 1, "class 2 has nothing since: {since:#}");
    assert_eq!(rows[0]["out_bytes"], Value::from(second.1));
    // Interface totals and faults have no baselines.
    let passed = world.lab.run_json(&["dump", "--format", "json"])?["interfaces"].clone();
    assert_eq!(since["interfaces"], passed);
    ensure!(world.lab.run_ok(&["dump", "--since-mark"])?.contains("since their last `vztactl` reset"));

    // All containers at once, and a second time.
    assert_eq!(world.printed("vztactl", &["reset_all_stat"])?, "Counters reseted.\n");
    assert_eq!(world.row("101", 1)?, Amounts::default());
    let third = world.send("10.2.0.9", 3, 300)?;
    assert_eq!(world.row("101", 2)?, Amounts::outgoing(third.0, third.1));
    assert_eq!(
        Counters::at_rest(&world.lab)?.class("101", 2, "ipv4"),
        Amounts::outgoing(two.0 + third.0, two.1 + third.1)
    );

    // An unusable file is an error, and not the same as no file.
    let marks = world.lab.state_dir().join("marks.json");
    let kept = fs::read(&marks)?;
    fs::write(&marks, "{\"version\": 9}")?;
    let output = output(&mut world.called("vznetstat", &[]))?;
    ensure!(!output.status.success() && output.stdout.is_empty(), "{}", stderr(&output));
    ensure!(
        stderr(&output).contains("marks.json") && stderr(&output).contains("version 9"),
        "{}",
        stderr(&output)
    );
    fs::write(&marks, kept)?;

    // Baselines of these counters do not apply to other counters.
    world.lab.run_ok(&["detach", "--purge", "--yes"])?;
    world.lab.run_ok(&["attach"])?;
    let fresh = world.send("10.2.0.9", 1, 40)?;
    assert_eq!(world.row("101", 2)?, Amounts::outgoing(fresh.0, fresh.1));
    Ok(())
}
