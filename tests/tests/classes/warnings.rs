//! What `classes check` warns of is also logged by whatever puts a file in force, in few lines.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Daemon, Lab,
    check::{stderr, trafctl},
    daemon::Resync,
};

/// IPv6 is not billed, and neither are the addresses that class 0 covers.
const CLASSES: &str = "1 0.0.0.0/0\n0 10.0.0.0/8\n2 10.1.0.0/16\n3 11.1.2.3/8\n";
const WARNINGS: [&str; 3] = [
    "IPv6 traffic is not billed: no line names an address of it; write `1 ::/0` to bill it as class 1",
    "line 2 is class 0 and goes before longer prefixes: 1 line is not billed as written",
    "4: 11.1.2.3/8 has host bits set; it is taken as 11.0.0.0/8",
];

fn warns(said: &str, path: &str) -> Result<()> {
    for warning in WARNINGS {
        let lines = said.lines().filter(|line| line.contains(path) && line.contains(warning)).count();
        ensure!(lines == 1, "{lines} times {warning:?} in {said}");
    }
    Ok(())
}

#[test]
fn every_loader_logs_what_would_not_be_billed() -> Result<()> {
    let lab = Lab::new("class-warnings")?;
    let file = lab.write("classes", CLASSES)?;
    let path = file.to_str().context("the path is not UTF-8")?;
    lab.configure(&format!("class_file = {file:?}\n"))?;
    for command in [&["attach"][..], &["classes", "load"], &["classes", "load", path]] {
        let output = trafctl(&lab, command)?;
        ensure!(output.status.success(), "{command:?}: {}", stderr(&output));
        warns(&stderr(&output), path).with_context(|| format!("{command:?}"))?;
    }
    // Scripts read what Virtuozzo's command prints.
    let output = trafctl(&lab, &["vztactl", "class_load", "-s", path])?;
    ensure!(output.status.success() && stderr(&output).contains(WARNINGS[2]), "{}", stderr(&output));
    ensure!(!stderr(&output).contains("not billed"), "{}", stderr(&output));
    // An attach that loads nothing has nothing to say.
    ensure!(stderr(&trafctl(&lab, &["attach"])?).is_empty());

    let mut daemon = Daemon::start_with(&lab, Resync::Off)?;
    daemon.settled()?;
    ensure!(!daemon.log().contains("not billed"), "the table is in force already: {}", daemon.log());
    fs::write(lab.path("new"), format!("{CLASSES}3 12.0.0.0/8\n"))?;
    fs::rename(lab.path("new"), &file)?;
    daemon.logs("are in force")?;
    warns(&daemon.log(), path)?;
    daemon.stop()
}

#[test]
fn a_file_full_of_warnings_is_summed_up() -> Result<()> {
    let lab = Lab::new("class-many")?;
    lab.run_ok(&["attach"])?;
    let many = lab.write("many", &format!("1 0.0.0.0/0\n{}", "2 10.1.2.3/24\n".repeat(300_000)))?;
    let path = many.to_str().context("the path is not UTF-8")?;
    // The default for IPv6 vanishes with it.
    let output = trafctl(&lab, &["classes", "load", "--yes", path])?;
    let said = stderr(&output);
    ensure!(
        output.status.success() && said.lines().count() <= 25,
        "{} lines: {said:.2000}",
        said.lines().count()
    );
    ensure!(said.contains("IPv6 traffic is not billed"), "{said}");
    ensure!(said.contains("more warnings; `trafctl classes check --format json "), "{said}");
    // The same for lines that are refused, however many.
    let add = lab.write("add", &"add ua 10.1.2.0/24\n".repeat(300_001))?;
    let path = add.to_str().context("the path is not UTF-8")?;
    for command in [&["classes", "load", path][..], &["classes", "check", path]] {
        let output = trafctl(&lab, command)?;
        let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        ensure!(!output.status.success() && said.lines().count() <= 10, "{command:?}: {said:.2000}");
        ensure!(said.contains("300,001 lines begin with `add`") && said.contains("`ipset save`"), "{said}");
    }
    Ok(())
}
