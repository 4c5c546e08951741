//! `trafctl classes`: the table in force, the table of a file, and the problems of a file.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use traffic_tests::Lab;

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
    assert!(String::from_utf8(output.stdout)?.starts_with("10.1.2.3 is class 7"));
    assert!(
        String::from_utf8(output.stderr)?.contains("the class table in force differs from the class file")
    );
    let would_be = json!({"version": 1, "prefixes": [{"class": 7, "prefix": "0.0.0.0/0"}]});
    let of_file =
        ["classes", "list", "--file", other.to_str().context("the path is not UTF-8")?, "--format", "json"];
    assert_eq!(lab.run_json(&of_file)?, would_be);

    lab.run_ok(&["classes", "load"])?;
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
        let reason =
            "the class file puts every address into class 0, which is not billed: nothing was loaded";
        assert!(error.contains(reason) && error.contains("or --force"), "{text:?}: {error}");
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
