//! The list of addresses: damage, owners, and what commands keep.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::files::tests::{at_once, odd_files};

fn id(text: &str) -> ContainerId {
    ContainerId::new(text).unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn parse(bytes: &[u8]) -> ListedAddresses {
    AddressFile::new(Path::new("/state")).parse(bytes)
}

#[test]
fn the_list_is_kept_and_refuses_a_second_owner() {
    let directory = tempfile::tempdir().unwrap();
    let file = AddressFile::new(&directory.path().join("state"));
    assert_eq!(file.read(None), ListedAddresses::default());
    file.add(net("10.0.0.1/32"), &[id("101")]).unwrap();
    file.add(net("2001:db8::/64"), &[id("102")]).unwrap();
    file.add(net("10.0.0.1/32"), &[id("101")]).unwrap();
    let refused = file.add(net("10.0.0.1/32"), &[id("103")]).unwrap_err().to_string();
    assert!(refused.contains("belongs to container 101"), "{refused}");
    let entries = [(net("10.0.0.1/32"), id("101")), (net("2001:db8::/64"), id("102"))];
    assert_eq!(file.read(None).entries, entries);
    file.remove(net("10.0.0.1/32")).unwrap();
    assert!(file.remove(net("10.0.0.1/32")).is_err());
    assert_eq!(file.read(None).entries, entries[1..]);
}

#[test]
fn a_list_without_one_usable_line_costs_no_address() {
    let directory = tempfile::tempdir().unwrap();
    let file = AddressFile::new(directory.path());
    let path = directory.path().join(FILE_NAME);
    for garbage in [&b"\xf3\x91\x02\n\xff\xfe\n\0\0"[..], b"\0\0\0\0", b"no list\n"] {
        fs::write(&path, garbage).unwrap();
        let alone = AddressFile::new(&directory.path().join("other"));
        assert_eq!(alone.read(None), ListedAddresses::default());
        fs::remove_file(&path).unwrap();
        file.add(net("10.0.0.1/32"), &[id("101")]).unwrap();
        let good = file.read(None);
        fs::write(&path, garbage).unwrap();
        file.keep().unwrap();
        for earlier in [None, Some(&good)] {
            let read = file.read(earlier);
            assert_eq!(read.entries, [(net("10.0.0.1/32"), id("101"))], "{garbage:?}");
            assert!(read.problems[0].contains("the list has no usable line; the addresses"), "{read:?}");
        }
        // A change begins with what is known.
        file.add(net("10.0.0.7/32"), &[id("107")]).unwrap();
        let known = [(net("10.0.0.1/32"), id("101")), (net("10.0.0.7/32"), id("107"))];
        assert_eq!(file.read(None).entries, known);
        file.remove(net("10.0.0.7/32")).unwrap();
    }
    // Without an earlier list, the garbage is no list without addresses.
    let fresh = tempfile::tempdir().unwrap();
    fs::write(fresh.path().join(FILE_NAME), "no list\n").unwrap();
    let read = AddressFile::new(fresh.path()).read(None);
    assert!(read.is_unknown && read.problems[0].contains("no usable line"), "{read:?}");
    // What a removal leaves is as it was asked for.
    fs::write(&path, "10.0.0.1 101\n10.0.0.2\n").unwrap();
    let before = file.read(None);
    file.remove(net("10.0.0.1/32")).unwrap();
    assert_eq!(file.read(Some(&before)).entries, []);
}

#[test]
fn a_bad_line_costs_only_that_line() {
    let bad: [(&[u8], &str); 9] = [
        (b"10.0.0.1", "no container follows the address"),
        (b"10.0.0.300 7", "is neither an address nor a prefix"),
        (b"10.0.0.1/24 7", "has host bits set"),
        (b"0.0.0.0/0 7", "every address to one container"),
        (b"10.0.0.1 a b", "container id"),
        (b"10.0.0.1 0", "the node itself"),
        (b"10.0.0.1 caf\xe9", "is not UTF-8"),
        (b"10.0.0.1\0 7", "zero bytes"),
        (b"\0\0\0\0\0\0\0\0", "zero bytes"),
    ];
    let good = [(net("10.0.0.2/32"), id("102")), (net("2001:db8::/64"), id("103"))];
    for (line, why) in bad {
        let text = [b"# list\n10.0.0.2 102 # the first\n", line, b"\n\n 2001:db8::/64\t103"].concat();
        let listed = parse(&text);
        assert_eq!(listed.entries, good, "{why}");
        assert_eq!(listed.problems.len(), 1, "{:?}", listed.problems);
        let problem = &listed.problems[0];
        assert!(problem.starts_with("/state/addresses:3: the line is skipped: "), "{problem}");
        assert!(problem.contains(why), "{problem}");
    }
    let long = [b"10.0.0.2 102\n10.0.0.1 ", &[b'7'; 10 << 20][..], b"\n2001:db8::/64 103\n"].concat();
    let listed = parse(&long);
    assert_eq!(listed.entries, good);
    assert!(listed.problems[0].contains("longer than 1024 bytes") && listed.problems[0].len() < 200);
}

#[test]
fn line_ends_and_marks_of_other_systems_are_accepted() {
    let listed = parse(b"\xef\xbb\xbf10.0.0.2 102\r\n# comment\r\n\r\n2001:db8::/64 103\r\n");
    assert_eq!(listed.entries, [(net("10.0.0.2/32"), id("102")), (net("2001:db8::/64"), id("103"))]);
    assert_eq!(listed.problems, [""; 0]);
}

#[test]
fn changes_keep_bad_lines_and_comments() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let file = AddressFile::new(directory.path());
    fs::write(&path, b"\xef\xbb\xbf10.0.0.9 109\r\n10.0.0.1 # whose?\n\xff\n10.0.0.2 102").unwrap();
    file.add(net("10.0.0.3/32"), &[id("103")]).unwrap();
    file.remove(net("10.0.0.2/32")).unwrap();
    let kept = fs::read(&path).unwrap();
    assert_eq!(kept, b"\xef\xbb\xbf10.0.0.9 109\r\n10.0.0.1 # whose?\n\xff\n10.0.0.3/32 103\n");
    file.remove(net("10.0.0.9/32")).unwrap();
    assert_eq!(file.read(None).entries, [(net("10.0.0.3/32"), id("103"))]);
}

#[test]
fn of_two_lines_for_one_address_the_later_counts_and_both_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let file = AddressFile::new(directory.path());
    fs::write(directory.path().join(FILE_NAME), "10.0.0.1 101\n10.0.0.1/32 102\n").unwrap();
    file.add(net("10.0.0.1/32"), &[id("102")]).unwrap();
    let refused = file.add(net("10.0.0.1/32"), &[id("101")]).unwrap_err().to_string();
    assert!(refused.contains("belongs to container 102"), "{refused}");
    file.remove(net("10.0.0.1/32")).unwrap();
    assert_eq!(file.read(None).entries, []);
}

#[test]
fn a_list_that_is_gone_empty_or_unreadable_costs_no_address() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let file = AddressFile::new(directory.path());
    // Without a list there is nothing to miss.
    assert_eq!(file.read(None), ListedAddresses::default());
    file.keep().unwrap();
    fs::write(at(FILE_NAME), "").unwrap();
    assert_eq!(file.read(None), ListedAddresses::default());
    // Written by hand, and seen by the daemon.
    fs::write(at(FILE_NAME), "10.0.0.1 101\n10.0.0.2 102\n").unwrap();
    file.keep().unwrap();
    let both = [(net("10.0.0.1/32"), id("101")), (net("10.0.0.2/32"), id("102"))];
    let lost = |what: &str, reason: &str| {
        let listed = file.read(None);
        assert_eq!((&listed.entries[..], listed.is_unknown), (&both[..], false), "{what}");
        assert_eq!(listed.problems.len(), 1, "{what}");
        assert!(listed.problems[0].contains(reason), "{what}: {:?}", listed.problems);
        // What is lost does not become the good copy.
        file.keep().unwrap();
        assert_eq!(file.read(Some(&listed)).entries, both, "{what}");
    };
    fs::write(at(FILE_NAME), "").unwrap();
    lost("emptied", "the list is empty");
    fs::remove_file(at(FILE_NAME)).unwrap();
    lost("removed", "the list is gone");
    std::os::unix::fs::symlink(at(FILE_NAME), at(FILE_NAME)).unwrap();
    lost("a loop", "oo many levels of symbolic links");
    fs::remove_file(at(FILE_NAME)).unwrap();
    fs::create_dir(at(FILE_NAME)).unwrap();
    lost("a directory", "it is a directory");
    fs::remove_dir(at(FILE_NAME)).unwrap();
    // The next change restores it.
    file.remove(net("10.0.0.1/32")).unwrap();
    assert_eq!(file.read(None).entries, both[1..]);
    file.remove(net("10.0.0.2/32")).unwrap();
    assert_eq!(file.read(None), ListedAddresses::default(), "a heading alone is meant to list nothing");
}

#[test]
fn what_is_not_a_file_of_sane_size_is_refused_at_once_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    for (at, reason) in odd_files(directory.path()) {
        let what = at.display().to_string();
        let state = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&at, state.path().join(FILE_NAME)).unwrap();
        let file = AddressFile::new(state.path());
        let results = at_once(&what, move || {
            let read = file.read(None).problems.pop().context("no problem");
            [
                read.and_then(|problem| Err(anyhow::anyhow!(problem))),
                file.add(net("10.0.0.1/32"), &[id("1")]),
                file.remove(net("10.0.0.1/32")),
            ]
        });
        for result in results {
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.contains(reason), "{what}: {error}");
        }
        assert!(state.path().join(FILE_NAME).is_symlink(), "{what}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic_or_lose_a_good_line(bytes: Vec<u8>) {
        let mut text = bytes;
        text.extend_from_slice(b"\n10.0.0.1 101\n");
        let listed = parse(&text);
        prop_assert_eq!(listed.entries.last(), Some(&(net("10.0.0.1/32"), id("101"))));
    }
}
