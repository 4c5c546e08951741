//! Runs the fuzzers' checks on their corpus, so that earlier findings stay fixed.

use std::{fs, path::Path};

#[path = "../fuzz/checks/mod.rs"]
mod checks;

/// Runs a check on every file of its corpus.
fn run(name: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut inputs = 0;
    for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(error) => panic!("{}: {error}", directory.display()),
        };
        let data = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Printed only if the test fails.
        eprintln!("{}", path.display());
        check(&data);
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", directory.display());
}

#[test]
fn class_files() {
    run("classes", checks::classes::check);
}

#[test]
fn compiled_class_files() {
    run("classes", checks::classes::check_compiled);
}

#[test]
fn files_of_containers() {
    run("vz_conf", checks::vz_conf::check);
}

#[test]
fn outputs_of_vznetstat() {
    run("vznetstat", checks::vznetstat::check);
}
