//! Tests on real files.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::files::tests::{at_once, make_fifo};

const MOST: u64 = 1 << 20;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_and_no_other_file_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/marks.json");
    assert_eq!(read(&path, MOST).unwrap(), None);
    replace(&path, b"a longer first content", MOST).unwrap();
    replace(&path, b"second", MOST).unwrap();
    assert_eq!(read(&path, MOST).unwrap().as_deref(), Some(&b"second"[..]));
    assert_eq!(names(path.parent().unwrap()), ["marks.json"]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    // The message names the path.
    let error = replace(&path, &[0; 9], 8).unwrap_err().to_string();
    assert!(error.ends_with("larger than 8, the most that is read"), "{error}");
    let error = format!("{:#}", replace(&path.join("below/a/file"), b"", MOST).unwrap_err());
    assert!(error.starts_with("cannot write ") && error.contains("below/a/file"), "{error}");
}

#[test]
fn a_planted_link_is_replaced_and_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("precious"), "kept").unwrap();
    symlink(at("precious"), at("addresses")).unwrap();
    // The name that earlier versions wrote to.
    symlink(at("precious"), at("addresses.new")).unwrap();
    StateLock::take(directory.path()).unwrap().replace("addresses", b"ours", MOST).unwrap();
    assert_eq!(fs::read_to_string(at("precious")).unwrap(), "kept");
    assert_eq!(read(&at("addresses"), MOST).unwrap().as_deref(), Some(&b"ours"[..]));
    assert!(!at("addresses").is_symlink());
    assert_eq!(names(directory.path()), ["addresses", LOCK_FILE, "precious"]);
}

#[test]
fn what_a_killed_process_left_is_removed_and_similar_names_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["addresses", "addresses.0123456789abcdef.new", "addresses.new", "addresses.mine.new"] {
        fs::write(at(name), name).unwrap();
    }
    StateLock::take(directory.path()).unwrap().replace("addresses", b"ours", MOST).unwrap();
    assert_eq!(names(directory.path()), ["addresses", "addresses.mine.new", LOCK_FILE]);
}

#[test]
fn what_is_not_a_file_is_neither_replaced_nor_locked() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("marks.json")).unwrap();
    let error = format!("{:#}", replace(&at("marks.json"), b"", MOST).unwrap_err());
    assert!(error.contains("it is a directory"), "{error}");
    make_fifo(&at("addresses"));
    let error = format!("{:#}", replace(&at("addresses"), b"", MOST).unwrap_err());
    assert!(error.contains("it is a FIFO"), "{error}");

    make_fifo(&at(LOCK_FILE));
    let state_dir = directory.path().to_owned();
    let error = at_once("the lock", move || StateLock::take(&state_dir)).unwrap_err();
    assert!(format!("{error:#}").contains("it is a FIFO"), "{error:#}");
    fs::remove_file(at(LOCK_FILE)).unwrap();
    fs::write(at("elsewhere"), "").unwrap();
    symlink(at("elsewhere"), at(LOCK_FILE)).unwrap();
    StateLock::take(directory.path()).unwrap_err();
}

#[test]
fn a_dangling_link_is_not_an_absent_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("addresses");
    symlink(directory.path().join("unmounted/addresses"), &path).unwrap();
    let error = format!("{:#}", read(&path, MOST).unwrap_err());
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn one_holder_at_a_time_and_a_reader_cannot_take_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LOCK_FILE);
    let held = StateLock::take(directory.path()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!try_lock(&open_lock(&path).unwrap()).unwrap());
    drop(held);
    // Whoever can only read the file: neither kind of lock that such a descriptor can take is in the way.
    let reader = File::open(&path).unwrap();
    reader.try_lock().unwrap();
    assert!(try_lock(&reader).is_err());
    assert!(try_lock(&open_lock(&path).unwrap()).unwrap());
}

#[test]
fn changes_of_several_threads_are_serialised() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("count");
    let add = || {
        for _ in 0..50 {
            let lock = StateLock::take(directory.path()).unwrap();
            let before = read(&path, MOST).unwrap().unwrap_or_default();
            lock.replace("count", &[&before[..], b"x"].concat(), MOST).unwrap();
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(add);
        }
    });
    assert_eq!(read(&path, MOST).unwrap().unwrap().len(), 200);
}
