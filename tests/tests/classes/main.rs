//! `trafctl classes`: the table in force, the table of a file, and the problems of a file.
//!
//! - `names`: the names of classes in every output; `warnings`: what the loaders log of a file.
//! - `refresh`: the script and the units of docs/classes.md under a real systemd.

mod names;
mod refresh;
mod shadow;
mod warnings;

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use traffic_tests::{Daemon, Lab, Resync, check::eventually};

const CLASSES: &str = "0 192.168.0.0/16\n2 192.168.1.0/24 # dropped: class 0 covers it\n1 0.0.0.0/0\n3 10.1.2.3/32\n\
    1 ::/0\n4 2001:db8::/33\n";

/// The table in force: sorted, and without the networks that the order of classes drops.
fn expected() -> Value {
    json!({"version": 1, "prefixes": [
        {"class": 1, "prefix": "0.0.0.0/0"},
        {"class": 3, "prefix": "10.1.2.3/32"},
        {"class": 0, "prefix": "192.168.0.0/16"},
        {"class": 1, "prefix": "::/0"},
        {"class": 4, "prefix": "2001:db8::/33"},
    ]})
}

#[test]
fn the_list_shows_the_table_in_the_kernel() -> Result<()> {
    let lab = Lab::new("classes-list")?;
    let file = lab.write("networks_classes", CLASSES)?;
    lab.configure(&format!("class_file = {file:?}\n"))?;
    lab.run_ok(&["attach"])?;
    let list = || lab.run_json(&["classes", "list", "--format", "json"]);
    assert_eq!(list()?, expected());

    // A file changes nothing until it is loaded.
    let other = lab.write("networks_classes", "7 0.0.0.0/0\n")?;
    assert_eq!(list()?, expected());
    let output = lab.trafctl(&["classes", "explain", "10.1.2.3"])?.output()?;
    // What counts is explained, and that the file differs is said.
    assert!(String::from_utf8(output.stdout)?.starts_with("10.1.2.3 is class 3"));
    assert!(
        String::from_utf8(output.stderr)?.contains("the class table in force differs from the class file")
    );
    let would_be = json!({"version": 1, "prefixes": [{"class": 7, "prefix": "0.0.0.0/0"}]});
    let of_file =
        ["classes", "list", "--file", other.to_str().context("the path is not UTF-8")?, "--format", "json"];
    assert_eq!(lab.run_json(&of_file)?, would_be);

    lab.run_ok(&["classes", "load", "--yes"])?;
    assert_eq!(list()?, would_be);
    let output = lab.trafctl(&["classes", "explain", "10.1.2.3"])?.output()?;
    assert!(output.stderr.is_empty());

    // A table that was loaded from another file is named with that file.
    let third = lab.write("third", "8 0.0.0.0/0\n9 10.0.0.0/8\n")?;
    lab.run_ok(&["classes", "load", third.to_str().context("the path is not UTF-8")?])?;
    let output = lab.trafctl(&["classes", "explain", "10.1.2.3"])?.output()?;
    let warning =
        format!("the class table in force was loaded from {}, not from the class file ", third.display());
    assert!(String::from_utf8(output.stderr)?.contains(&warning));
    Ok(())
}

#[test]
fn a_file_by_which_nothing_would_be_billed_is_loaded_by_force_only() -> Result<()> {
    let lab = Lab::new("classes-unbilled")?;
    let file = lab.write("networks_classes", CLASSES)?;
    lab.configure(&format!("class_file = {file:?}\n"))?;
    lab.run_ok(&["attach"])?;
    let list = || lab.run_json(&["classes", "list", "--format", "json"]);
    // Empty, of comments only, of class 0 only, and with a class that class 0 covers.
    for text in ["", "# none\n", "0 0.0.0.0/0\n0 ::/0\n", "0 0.0.0.0/0\n1 10.0.0.0/8\n"] {
        let unbilled = lab.write("unbilled", text)?;
        let unbilled = unbilled.to_str().context("the path is not UTF-8")?;
        let output = lab.trafctl(&["classes", "load", unbilled])?.output()?;
        assert!(!output.status.success(), "{text:?}");
        let error = String::from_utf8(output.stderr)?;
        assert!(error.contains("nothing was loaded, and the table in force stays in force"), "{error}");
        let reason =
            "puts every address into class 0, which is not billed; give the right file, or load it with";
        assert!(error.contains(reason) && error.contains("load --yes"), "{text:?}: {error}");
        assert_eq!(list()?, expected());
    }
    lab.write("networks_classes", "")?;
    assert!(!lab.trafctl(&["classes", "load"])?.output()?.status.success(), "the configured file");
    assert_eq!(list()?, expected());
    lab.run_ok(&["classes", "load", "--force"])?;
    assert_eq!(list()?, json!({"version": 1, "prefixes": []}));
    Ok(())
}

#[test]
fn a_prefix_is_explained_by_its_parts() -> Result<()> {
    let lab = Lab::new("classes-prefix")?;
    let file = lab.write("networks_classes", CLASSES)?;
    lab.configure(&format!("class_file = {file:?}\n"))?;
    let text = lab.run_ok(&["classes", "explain", "192.0.0.0/8"])?;
    assert!(text.starts_with("192.0.0.0/8 has 2 parts in 2 classes (class order virtuozzo)\n"), "{text}");
    assert!(text.contains("0.39 % class 0 by line 1: 0 192.168.0.0/16\n"), "{text}");
    let json = lab.run_json(&["classes", "explain", "2001:db8::/32", "--format", "json"])?;
    assert_eq!((&json["version"], &json["parts_total"]), (&json!(1), &json!(2)));
    assert_eq!(json["classes"], json!([{"class": 1, "share": 0.5}, {"class": 4, "share": 0.5}]));
    let output = lab.trafctl(&["classes", "explain", "10.0.0.1/8"])?.output()?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr)?.contains("write 10.0.0.1 for the address, or 10.0.0.0/8"));
    Ok(())
}

#[test]
fn a_check_reports_every_line_and_a_load_refuses_the_whole_file() -> Result<()> {
    let lab = Lab::new("classes-check")?;
    lab.run_ok(&["attach"])?;
    let before = lab.run_json(&["classes", "list", "--format", "json"])?;
    let bad = lab.write("bad", "1 0.0.0.0/0\n2 10.0.0.0/255.0.0.0\n300 10.0.0.0/8\nnonsense\n")?;
    let path = bad.to_str().context("the path is not UTF-8")?;
    let output = lab.trafctl(&["classes", "check", path])?.output()?;
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stdout)?;
    for line in ["line 2: refused", "line 3: refused", "line 4: refused", "3 refused"] {
        assert!(stderr.contains(line), "{stderr}");
    }
    let output = lab.trafctl(&["classes", "load", path])?.output()?;
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr)?;
    assert!(
        stderr.contains("bad:2: ") && stderr.contains("bad:3: ") && stderr.contains("stays in force"),
        "{stderr}"
    );
    assert_eq!(lab.run_json(&["classes", "list", "--format", "json"])?, before);
    Ok(())
}

/// Ten networks of class 2 and the defaults of class 1.
fn ten() -> String {
    let list: String = (1..=10).map(|n| format!("2 10.{n}.0.0/16\n")).collect();
    format!("1 0.0.0.0/0\n1 ::/0\n{list}")
}

fn problems(lab: &Lab) -> Result<Vec<String>> {
    // Problems are status 1.
    let output = lab.trafctl(&["status", "--format", "json"])?.output()?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    let problems = status["problems"].as_array().context("problems")?;
    Ok(problems.iter().map(|problem| problem.as_str().unwrap_or_default().to_owned()).collect())
}

/// The command fails with this status and message.
fn refused(lab: &Lab, arguments: &[&str], status: i32, message: &str) -> Result<()> {
    let output = lab.trafctl(arguments)?.output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(status), "{arguments:?}: {} {said}", output.status);
    ensure!(said.contains(message), "{arguments:?}: {said}");
    Ok(())
}

#[test]
fn a_file_that_looks_cut_short_is_held_by_every_loader() -> Result<()> {
    let lab = Lab::new("classes-held")?;
    let file = lab.write("networks_classes", &ten())?;
    lab.configure(&format!("class_file = {file:?}\n"))?;
    let daemon = Daemon::start_with(&lab, Resync::AsShipped)?;
    let list = || lab.run_json(&["classes", "list", "--format", "json"]);
    let whole = list()?;
    let path = file.to_str().context("the path is not UTF-8")?;
    // Cut inside a line, between two lines, and by half.
    let text = ten();
    for (cut, reason) in [
        (&text[..text.len() - 2], "has no line feed and reads 10.10.0.0/1, which has host bits set"),
        (&text[..text.rfind("2 10.").context("a line")?], "it is the first "),
        (&text[..text.find("2 10.5").context("a line")?], "it is the first "),
        ("1 0.0.0.0/0\n1 ::/0\n# 10.0.0.0/8\n3 10.1.0.0/16\n", "9 of the 12 prefixes in force are missing"),
    ] {
        let fresh = lab.write("networks_classes.new", cut)?;
        fs::rename(fresh, &file)?;
        eventually("the daemon reports the file", || {
            Ok(problems(&lab)?
                .iter()
                .any(|problem| problem.starts_with("class_file: ") && problem.contains(reason)))
        })?;
        refused(&lab, &["classes", "load"], 1, reason)?;
        refused(&lab, &["classes", "load", path], 1, reason)?;
        refused(&lab, &["vztactl", "class_load", "-s", path], 2, reason)?;
        let checked = lab.trafctl(&["classes", "check", "--strict", path])?.output()?;
        assert_eq!(checked.status.code(), Some(1), "{reason}");
        ensure!(String::from_utf8(checked.stdout)?.contains("warning: the file would be held: "), "{reason}");
        assert_eq!(list()?, whole, "{reason}");
    }
    // A person's word, after which nothing is wrong any more.
    lab.run_ok(&["classes", "load", "--yes"])?;
    assert_eq!(list()?["prefixes"].as_array().context("prefixes")?.len(), 3);
    eventually("the daemon finds the file in force", || Ok(problems(&lab)?.is_empty()))?;
    // A file that only grows is loaded at once.
    let fresh = lab.write("networks_classes.new", &(ten() + "2 10.11.0.0/16\n"))?;
    fs::rename(fresh, &file)?;
    eventually("the whole file is loaded", || {
        Ok(list()?["prefixes"].as_array().context("prefixes")?.len() == 13)
    })?;
    daemon.stop_after_errors()
}

#[test]
fn a_held_file_does_not_replace_the_last_table_after_a_reboot() -> Result<()> {
    let lab = Lab::new("classes-reboot")?;
    let file = lab.write("networks_classes", &ten())?;
    lab.configure(&format!("class_file = {file:?}\n"))?;
    let daemon = Daemon::start(&lab)?;
    eventually("the ledger keeps the table", || {
        let ledger = lab.state_dir().join("ledger.sqlite");
        let query = "select count(*) from class_table where content is not null";
        let output = Command::new("sqlite3").arg(ledger).arg(query).output()?;
        Ok(output.stdout == b"1\n")
    })?;
    daemon.stop()?;
    let whole = lab.run_json(&["classes", "list", "--format", "json"])?;
    // New counters, as after a reboot, and a file that lost its end meanwhile.
    lab.run_ok(&["detach", "--purge", "--yes"])?;
    let text = ten();
    fs::write(&file, &text[..text.len() - 2])?;
    let output = lab.trafctl(&["attach"])?.output()?;
    ensure!(output.status.success());
    ensure!(String::from_utf8(output.stderr)?.contains("is held"));
    assert_eq!(lab.run_json(&["classes", "list", "--format", "json"])?, whole);
    ensure!(problems(&lab)?.iter().any(|problem| problem.contains("is held")), "{:#?}", problems(&lab)?);
    Ok(())
}

#[test]
fn an_empty_file_is_refused_by_every_loader() -> Result<()> {
    let lab = Lab::new("classes-empty")?;
    let file = lab.write("networks_classes", &ten())?;
    lab.configure(&format!("class_file = {file:?}\n"))?;
    lab.run_ok(&["attach"])?;
    let list = || lab.run_json(&["classes", "list", "--format", "json"]);
    let whole = list()?;
    for text in ["", "# only a comment\n", "\u{feff}\n\n", "0 0.0.0.0/0\n0 ::/0\n"] {
        let empty = lab.write("empty", text)?;
        let empty = empty.to_str().context("the path is not UTF-8")?;
        let message = "puts every address into class 0, which is not billed";
        refused(&lab, &["classes", "load", empty], 1, message)?;
        refused(&lab, &["vztactl", "class_load", "-s", empty], 2, message)?;
        refused(&lab, &["vztactl", "class_load", empty], 2, message)?;
        assert_eq!(list()?, whole);
    }
    lab.run_ok(&["vztactl", "class_unload"])?;
    assert_eq!(list()?["prefixes"], json!([]));
    let text = lab.run_ok(&["classes", "explain", "10.1.2.3"])?;
    ensure!(text.starts_with("10.1.2.3 is class 0 (class order virtuozzo): counted, not billed\n"), "{text}");
    Ok(())
}

#[test]
fn the_order_belongs_to_the_table_in_force() -> Result<()> {
    let lab = Lab::new("classes-order")?;
    let file = lab.write("networks_classes", "2 10.0.0.0/8 # exchange\n1 0.0.0.0/0\n1 ::/0\n")?;
    lab.configure(&format!("class_file = {file:?}\n"))?;
    lab.run_ok(&["attach"])?;
    let explain = || {
        let output = lab.trafctl(&["classes", "explain", "10.1.2.3", "8.8.8.8"])?.output()?;
        anyhow::Ok((String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
    };
    let path = file.display();
    let (text, said) = explain()?;
    ensure!(said.is_empty(), "{said}");
    assert_eq!(
        text,
        format!(
            "10.1.2.3 is class 2 (class order virtuozzo)\n\
             decided by line 1 of {path}: 2 10.0.0.0/8  # exchange\n\
             rule: the longest matching prefix\n\
             not by line 2: 1 0.0.0.0/0 (shorter prefix than line 1)\n\n\
             8.8.8.8 is class 1 (class order virtuozzo)\n\
             decided by line 2 of {path}: 1 0.0.0.0/0\n\
             rule: the longest matching prefix\n"
        )
    );
    // Without -s the last matching line decides, and that is what counts.
    let name = file.to_str().context("the path is not UTF-8")?;
    lab.run_ok(&["vztactl", "class_load", name])?;
    let (text, said) = explain()?;
    ensure!(text.starts_with("10.1.2.3 is class 1 (class order last-line)\n"), "{text}");
    ensure!(said.contains(", and under the order last-line; `trafctl classes load` loads that"), "{said}");
    let order = || {
        let output = lab.trafctl(&["status", "--format", "json"])?.output()?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        anyhow::Ok(status["class_table"]["order"].clone())
    };
    assert_eq!(order()?, "last-line");
    // The file in force is explained after it has changed.
    fs::write(&file, "3 10.0.0.0/8 # other\n1 0.0.0.0/0\n1 ::/0\n2 11.0.0.0/8\n")?;
    let (text, said) = explain()?;
    ensure!(text.contains("not by line 1: 2 10.0.0.0/8 (earlier than line 2)\n"), "{text}");
    ensure!(said.contains("was loaded from"), "{said}");
    lab.run_ok(&["classes", "load"])?;
    assert_eq!(order()?, "virtuozzo");
    ensure!(explain()?.0.contains(&format!("decided by line 1 of {path}: 3 10.0.0.0/8  # other\n")));
    Ok(())
}

#[test]
fn what_is_listed_can_be_loaded_again() -> Result<()> {
    let lab = Lab::new("classes-round")?;
    let file = lab.write("networks_classes", CLASSES)?;
    lab.configure(&format!("class_file = {file:?}\n"))?;
    lab.run_ok(&["attach"])?;
    let list = || lab.run_json(&["classes", "list", "--format", "json"]);
    assert_eq!(list()?, expected());
    for (listing, load) in [
        (&["classes", "list"][..], &["classes", "load"][..]),
        (&["vztactl", "class_list"], &["vztactl", "class_load", "-s"]),
        (&["vztactl", "class_list"], &["vztactl", "class_load"]),
        (&["vztactl", "class_list"], &["classes", "load"]),
    ] {
        let text = lab.run_ok(listing)?;
        let kept = lab.write("kept", &text)?;
        lab.run_ok(&["vztactl", "class_unload"])?;
        lab.run_ok(&[load, &[kept.to_str().context("the path is not UTF-8")?]].concat())?;
        assert_eq!(list()?, expected(), "{listing:?} {load:?}");
    }
    // From standard input.
    let mut child =
        lab.trafctl(&["classes", "load", "-"])?.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    child.stdin.take().context("stdin")?.write_all(format!("{CLASSES}5 10.9.0.0/16\n").as_bytes())?;
    ensure!(child.wait()?.success());
    assert_eq!(list()?["prefixes"].as_array().context("prefixes")?.len(), 6);
    Ok(())
}
