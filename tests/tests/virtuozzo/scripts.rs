//! Scripts as they are used in the field, which read `vznetstat` by column and by regular expression.

use std::fs;
use std::process::Command;

use anyhow::Result;
use traffic_tests::Counters;
use traffic_tests::process::run_ok;

use crate::node::World;

/// Runs a script as on a node, with the names on the path.
fn script(world: &World, interpreter: &[&str], name: &str, arguments: &[&str]) -> Result<Command> {
    Counters::at_rest(&world.lab)?;
    let text = match name {
        "differences.sh" => include_str!("scripts/differences.sh"),
        "strict.sh" => include_str!("scripts/strict.sh"),
        "totals.awk" => include_str!("scripts/totals.awk"),
        _ => include_str!("scripts/regex.pl"),
    };
    let path = world.lab.path(name);
    fs::write(&path, text)?;
    let directory = world.lab.path("");
    let mut command = world.lab.host().command(interpreter[0]);
    command.args(&interpreter[1..]).arg(path).args(arguments);
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", directory.display()));
    world.set_paths(&mut command);
    Ok(command)
}

#[test]
fn a_shell_script_takes_fields_3_and_5_of_the_last_line() -> Result<()> {
    let world = World::new("vzscript-sh")?;
    let kept = world.lab.path("last").display().to_string();
    let run = || run_ok(&mut script(&world, &["sh"], "differences.sh", &["101", &kept])?);
    world.send("8.8.8.8", 3, 50)?;
    world.receive("10.1.0.1", 2, 60)?;
    assert_eq!(run()?, "");
    let out = world.send("8.8.8.8", 29, 1000)?;
    let back = world.receive("10.1.0.1", 31, 700)?;
    // Another class.
    world.send("10.2.0.9", 5, 100)?;
    assert_eq!(run()?, format!("101 {} {}\n", back.1, out.1));
    assert_eq!(run()?, "101 0 0\n");
    Ok(())
}

#[test]
fn a_strict_shell_loop_reads_every_row() -> Result<()> {
    let world = World::new("vzscript-strict")?;
    let one = world.send("8.8.8.8", 7, 123)?;
    let two = world.send("10.2.0.9", 9, 321)?;
    let lines = run_ok(&mut script(&world, &["sh"], "strict.sh", &[])?)?;
    let expected = [
        "0/0 0 0",
        "0/1 0 0",
        "0/2 0 0",
        "0/3 0 0",
        "101/0 0 0",
        &format!("101/1 {} {}", one.1, one.0),
        &format!("101/2 {} {}", two.1, two.0),
        "101/3 0 0",
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    Ok(())
}

#[test]
fn awk_sums_by_class_and_perl_by_regular_expression() -> Result<()> {
    let world = World::new("vzscript-awk")?;
    let one = world.send("8.8.8.8", 7, 123)?;
    let six = world.send("fd00:99::1", 3, 99)?;
    let two = world.send("10.2.0.9", 9, 321)?;
    world.send("192.0.2.9", 5, 77)?;
    let back = world.receive("fd00:1::1", 4, 88)?;

    let pipe = "vznetstat | awk -f \"$0\"";
    let totals = run_ok(&mut script(&world, &["sh", "-c", pipe], "totals.awk", &[])?)?;
    let out = one.1 + six.1;
    assert_eq!(totals, format!("1 {} {out}\n2 0 {}\n3 0 0\n", back.1, two.1));
    let perl = run_ok(&mut script(&world, &["perl"], "regex.pl", &[])?)?;
    assert_eq!(perl, format!("0/1 0 0\n0/2 0 0\n101/1 {} {out}\n101/2 0 {}\n", back.1, two.1));
    Ok(())
}
