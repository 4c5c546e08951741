//! `trafctl statement` and `trafctl verify` as commands: from a ledger to a file, and its check by others.
#![expect(clippy::unwrap_used, reason = "a test; clippy does not count helpers as such")]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

use jiff::Timestamp;
use traffic_common::Family;
use traffic_ledger::{
    AdjustmentRequest,
    testing::{File, NOON, Node, ledger},
};

/// A state directory with a ledger in which November 2026 is closed, and corrected once.
fn state_dir() -> File {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..25 {
        node.traffic("101", 1, [1, 1_000_000, 2, 2_000_000]).traffic("102", 2, [7, 7000, 3, 300]);
        node.pass(86_400).drain(&mut file.ledger);
    }
    let later = Timestamp::from_second(NOON + 26 * 86_400).unwrap();
    file.ledger.close_anyway("2026-11", later).unwrap();
    let request = AdjustmentRequest {
        period: "2026-11".to_owned(),
        container: "101".to_owned(),
        class: 1,
        family: Some(Family::Ipv4),
        packets: [-3, 0],
        bytes: [-1500, 0],
        reason: "flood".to_owned(),
        made: later,
    };
    file.ledger.adjust(&request).unwrap();
    fs::write(file.dir.path().join("trafctl.toml"), "").unwrap();
    file
}

fn run(directory: &Path, program: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("TRAFCTL_CONFIG", directory.join("trafctl.toml"))
        .env("TRAFCTL_STATE_DIR", directory)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn trafctl(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    run(directory, env!("CARGO_BIN_EXE_trafctl"), arguments)
}

/// The same, with a warning.
fn text_of_warned(directory: &Path, arguments: &[&str]) -> String {
    let (status, stdout, stderr) = trafctl(directory, arguments);
    assert_eq!((status, stderr.is_empty()), (Some(0), false), "{arguments:?}");
    stdout
}

/// What a command prints that must succeed.
fn text(directory: &Path, arguments: &[&str]) -> String {
    let (status, stdout, stderr) = trafctl(directory, arguments);
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{arguments:?}");
    stdout
}

#[test]
fn a_statement_is_checked_by_us_and_by_a_program_that_knows_only_the_page() {
    let file = state_dir();
    let directory = file.dir.path();
    let key = text(directory, &["statement", "key", "--new", "billing.example.com/a"]);
    assert_eq!(text(directory, &["statement", "key"]), key);
    let statement = text(directory, &["statement", "2026-11", "--container", "101"]);
    assert_eq!(text(directory, &["statement", "2026-11", "--container", "101", "--out", "a"]), "");
    assert_eq!(statement.lines().count(), 3);
    // What was frozen, less the correction.
    let report = text(
        directory,
        &["report", "--by", "month", "--from", "2026-11-01", "--to", "2026-12-01", "--format", "json"],
    );
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let row = report["rows"].as_array().unwrap().iter().find(|row| row["container"] == "101").unwrap();
    let to_bill = row["billing"]["to_bill"]["in"]["bytes"].as_i64().unwrap().to_string();
    let json: serde_json::Value =
        serde_json::from_str(&text(directory, &["verify", "a", "--key", key.trim(), "--format", "json"]))
            .unwrap();
    assert_eq!(json["statement"]["sums"][0]["in_bytes"], to_bill.as_str());
    assert_eq!(
        (&json["valid"], &json["key_compared"], &json["log_size"]),
        (&true.into(), &true.into(), &2.into())
    );
    let table = text(directory, &["verify", "a"]);
    assert!(table.starts_with("container 101, 2026-11: from ") && table.contains(&to_bill), "{table}");
    assert!(table.contains(": flood\n") && table.contains("compare this key"), "{table}");
    assert!(text(directory, &["verify", "a", "--proof"]).starts_with("c2sp.org/tlog-proof@v1\nindex 0\n"));

    let (passes, stdout) = check_independently(directory, &["a", key.trim()]);
    assert!(passes && stdout.contains(&format!("in_bytes {to_bill}")), "{stdout}");
    // It finds what is not so, as well.
    let whole = fs::read_to_string(directory.join("a")).unwrap();
    for (at, (from, to)) in
        [("\"in_bytes\":\"", "\"in_bytes\":\"1"), ("flood", "flooD"), ("\u{2014} ", "\u{2014} x")]
            .into_iter()
            .enumerate()
    {
        let name = format!("changed-{at}");
        fs::write(directory.join(&name), whole.replacen(from, to, 1)).unwrap();
        assert!(!check_independently(directory, &[&name, key.trim()]).0, "{from}");
        let (status, stdout, stderr) = trafctl(directory, &["verify", &name]);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{from}");
        assert!(stderr.starts_with(&format!("trafctl: {name}: ")), "{stderr}");
    }
}

#[test]
fn a_page_has_the_statement_and_one_that_is_not_ours_is_told() {
    let file = state_dir();
    let directory = file.dir.path();
    let key = text(directory, &["statement", "key", "--new", "billing.example.com/a"]);
    text(directory, &["statement", "2026-11", "--container", "101", "--html", "--out", "a.html"]);
    let page = fs::read_to_string(directory.join("a.html")).unwrap();
    assert!(page.starts_with("<!doctype html>"), "{page}");
    let checked = text(directory, &["verify", "a.html", "--key", key.trim()]);
    assert!(checked.starts_with("container 101, 2026-11: from "), "{checked}");
    // What it shows is another matter.
    fs::write(directory.join("b.html"), page.replace("Sums", "To pay twice")).unwrap();
    let (status, stdout, stderr) = trafctl(directory, &["verify", "b.html", "--key", key.trim()]);
    assert_eq!((status, stdout), (Some(0), checked));
    assert!(stderr.contains("b.html is not the page that this version of trafctl makes"), "{stderr}");
    fs::write(directory.join("b.html"), page.replace("flood", "flooD")).unwrap();
    assert_eq!(trafctl(directory, &["verify", "b.html"]).0, Some(1));
    // Mail programs and browsers write the same page otherwise.
    for (as_saved, what) in [
        (page.replace('\n', "\r\n"), "other ends of lines"),
        (format!("\u{feff}\n{}", page.replace(" hidden>", " hidden=\"\">")), "saved by a browser"),
    ] {
        fs::write(directory.join("b.html"), as_saved).unwrap();
        let json = text_of_warned(directory, &["verify", "b.html", "--format", "json"]);
        assert!(
            json.contains("\"own_page\":false") || json.contains("\"own_page\": false"),
            "{what}: {json}"
        );
    }
    // Which of two would a reader see?
    fs::write(directory.join("b.html"), page.clone() + &page).unwrap();
    assert_eq!(trafctl(directory, &["verify", "b.html"]).0, Some(1));
    // What others add to a statement is no part of it, whatever it is named.
    let note = text(directory, &["statement", "2026-11", "--container", "101"]);
    for added in ["\u{2014} <script>1</script> AAAAAAAA\n", "\u{2014} other.example AAAAAAAA\n"] {
        fs::write(directory.join("b.html"), note.clone() + added).unwrap();
        assert_eq!(trafctl(directory, &["verify", "b.html"]).0, Some(1), "{added}");
    }
    // The page that checks has none.
    fs::write(directory.join("c.html"), text(directory, &["verify", "--html"])).unwrap();
    assert_eq!(trafctl(directory, &["verify", "c.html"]).0, Some(1));
    assert_eq!(trafctl(directory, &["verify"]).0, Some(2));
}

#[test]
fn what_cannot_be_stated_is_refused_with_what_to_do() {
    let file = state_dir();
    let directory = file.dir.path();
    let refused = |arguments: &[&str], expected: &str| {
        let (status, stdout, stderr) = trafctl(directory, arguments);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    };
    refused(&["statement", "2026-11", "--container", "101"], "`trafctl statement key --new NAME` makes one");
    refused(&["statement", "key", "--new", "a b"], "cannot be the name of a key");
    let key = text(directory, &["statement", "key", "--new", "a"]);
    refused(&["statement", "key", "--new", "b"], "move it away");
    refused(&["statement", "2026-12", "--container", "101"], "2026-12");
    refused(&["statement", "2026-11", "--container", "103"], "103");
    refused(&["statement", "November", "--container", "101"], "write it like 2026-10");
    refused(&["verify", "none"], "cannot read none");
    fs::write(directory.join("empty"), "").unwrap();
    refused(&["verify", "empty"], "no statement of trafctl");
    fs::write(directory.join("latin"), [0xe9, 0xff]).unwrap();
    refused(&["verify", "latin"], "is no statement");
    text(directory, &["statement", "2026-11", "--container", "102", "--out", "b"]);
    let other = text(directory, &["statement", "key", "--new", "a", "--key", "other.key"]);
    refused(&["verify", "b", "--key", other.trim()], &format!("signed by {}", key.trim()));
    refused(&["verify", "b", "--key", "a+b+c"], "is no public key");
    // Somebody changed a closed month by hand: nothing is signed.
    let ledger = directory.join("ledger.sqlite");
    let change = "update closed_row set in_bytes = in_bytes + 1 where container = '102'";
    let done = Command::new("sqlite3").arg(&ledger).arg(change).status().unwrap();
    assert!(done.success());
    refused(&["statement", "2026-11", "--container", "101"], "does not match its rows");
}

/// The verifier that is part of the documentation, in Debian's Python, which has its package for cryptography.
fn check_independently(directory: &Path, arguments: &[&str]) -> (bool, String) {
    let verifier = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verify_statement.py");
    let arguments = [&[verifier.to_str().unwrap()], arguments].concat();
    let (status, stdout, stderr) = run(directory, "/usr/bin/python3", &arguments);
    assert!(!stderr.contains("Traceback"), "{stderr}");
    (status == Some(0), stdout + &stderr)
}

fn modes_of_keys(directory: &Path) -> Vec<(String, u32)> {
    let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let named =
        files.map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap().mode() & 0o777));
    let mut keys: Vec<_> = named.filter(|(name, _)| name.contains("statement.key")).collect();
    keys.sort();
    keys
}

#[test]
fn a_key_is_replaced_and_revoked_in_the_log() {
    let file = state_dir();
    let directory = file.dir.path();
    let state = |path: &str| directory.join(path);
    let of_101 = |out: &str| text(directory, &["statement", "2026-11", "--container", "101", "--out", out]);
    let first = text(directory, &["statement", "key", "--new", "billing.example.com/a"]);
    of_101("first");
    // Without --yes, nothing happens.
    let (status, stdout, _) = trafctl(directory, &["statement", "key", "--rotate"]);
    assert!(
        status == Some(1) && stdout.contains("as entry 3 of the log") && stdout.contains("--yes"),
        "{stdout}"
    );
    assert_eq!(text(directory, &["statement", "key"]), first);
    let audited = || text(directory, &["audit"]);
    assert!(audited().contains("2 entries of the chain"), "{}", audited());

    let (status, second, stderr) = trafctl(directory, &["statement", "key", "--rotate", "--yes"]);
    assert!(status == Some(0) && stderr.contains("publish the new key"), "{stderr}");
    assert!(second != first && second.starts_with("billing.example.com/a+"), "{second}");
    assert_eq!(text(directory, &["statement", "key"]), second);
    assert_eq!(modes_of_keys(directory), [("statement.key".to_owned(), 0o600)]);
    assert!(audited().contains("3 entries of the chain"), "{}", audited());
    of_101("second");
    let (first, second) = (first.trim(), second.trim());
    // Who has the first key accepts both, as does who has the second one and a later statement.
    for key in [first, second] {
        let shown = text(directory, &["verify", "second", "--key", key]);
        assert_eq!(shown.contains("it followed the key that was given"), key == first, "{shown}");
        assert!(check_independently(directory, &["second", key]).0);
        text(directory, &["verify", "first", "--key", key, "--with", "second"]);
        assert!(check_independently(directory, &["first", key, "second"]).0);
    }
    assert_eq!(trafctl(directory, &["verify", "first", "--key", second]).0, Some(1));
    assert!(!check_independently(directory, &["first", second]).0);

    // The first key leaked: what says that it was made since is refused.
    let revoke = ["statement", "key", "--revoke", first, "--reason", "laptop stolen", "--from"];
    let of = |from: &'static str, yes: &[&'static str]| [&revoke[..], &[from], yes].concat();
    let (status, stdout, _) = trafctl(directory, &of("2026-11-20", &[]));
    assert!(status == Some(1) && stdout.contains("nothing was written"), "{stdout}");
    let done = text(directory, &of("2026-11-20", &["--yes"]));
    assert!(done.contains("from 2026-11-20T00:00:00Z on") && done.contains("written as entry 4"), "{done}");
    of_101("third");
    for (arguments, key) in [
        (&["verify", "first", "--with", "third"][..], second),
        (&["verify", "third", "--key", first], first),
        (&["verify", "first", "--key", first, "--with", "third"], first),
    ] {
        let (status, stdout, stderr) = trafctl(directory, arguments);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(stderr.contains("was revoked from 2026-11-20T00:00:00Z on: laptop stolen"), "{stderr}");
        let later: &[&str] = if arguments.contains(&"--with") { &["third"] } else { &[] };
        let (passes, printed) = check_independently(directory, &[&[arguments[1], key], later].concat());
        assert!(!passes && printed.contains("laptop stolen"), "{printed}");
    }
    let json = text(directory, &["verify", "third", "--key", second, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["revoked"][0]["key"], &json["log_size"]), (&first.into(), &4.into()));
    // Alone, the first statement is as good as ever: nobody can know.
    text(directory, &["verify", "first", "--key", first]);

    let refused = |arguments: &[&str], expected: &str| {
        let (status, _, stderr) = trafctl(directory, arguments);
        assert_eq!(status, Some(1), "{arguments:?}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    };
    refused(&of("2026-11-20", &["--yes"]), "was revoked already");
    let other = text(directory, &["statement", "key", "--new", "a", "--key", "other.key"]);
    for (key, why) in [(second, "is the key that signs"), (other.trim(), "no earlier key of this log")] {
        refused(&["statement", "key", "--revoke", key, "--reason", "x", "--yes"], why);
    }
    refused(&["statement", "key", "--rotate", "--key", "other.key"], "another key signs by now");
    refused(
        &["statement", "2026-11", "--container", "101", "--key", "other.key"],
        "another key signs by now",
    );
    refused(&["statement", "key", "--yes"], "--yes confirms");
    refused(&["verify", "third", "--with", "first"], "give the later one");
    fs::write(state("key"), second).unwrap();
    assert!(
        text(directory, &["verify", "third", "--key", "key"]).contains("revoked: billing.example.com/a+")
    );
}

/// At each moment at which a rotation may be interrupted, the same command completes it.
#[test]
fn an_interrupted_rotation_is_completed() {
    let file = state_dir();
    let directory = file.dir.path();
    let [present, next, kept] =
        ["statement.key", "statement.key.next", "kept"].map(|name| directory.join(name));
    let first = text(directory, &["statement", "key", "--new", "billing.example.com/a"]);
    fs::copy(&present, &kept).unwrap();
    let rotate = || trafctl(directory, &["statement", "key", "--rotate", "--yes"]).1;
    let second = rotate();
    // The entry was appended, and the new file did not take its place.
    fs::rename(&present, &next).unwrap();
    fs::copy(&kept, &present).unwrap();
    let (status, _, stderr) = trafctl(directory, &["statement", "2026-11", "--container", "101"]);
    assert!(status == Some(1) && stderr.contains("was interrupted, run it again"), "{stderr}");
    let preview = trafctl(directory, &["statement", "key", "--rotate"]).1;
    assert!(preview.contains("would be completed"), "{preview}");
    assert_eq!(rotate(), second);
    assert_eq!(modes_of_keys(directory), [("statement.key".to_owned(), 0o600)]);
    assert!(text(directory, &["audit"]).contains("3 entries of the chain"));
    // The new key was written, and no entry: it is the one that comes next.
    let third = text(directory, &["statement", "key", "--new", "billing.example.com/a", "--key", "third"]);
    let salts = |path: &Path| fs::read_to_string(path).unwrap().lines().last().unwrap().to_owned();
    let own = fs::read_to_string(directory.join("third")).unwrap();
    fs::write(&next, own.replace(&salts(&directory.join("third")), &salts(&present))).unwrap();
    let (status, _, stderr) = trafctl(directory, &["statement", "key", "--rotate", "--yes"]);
    assert!(status == Some(1) && stderr.contains("others than its owner"), "{stderr}");
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(rotate(), third);
    text(directory, &["statement", "2026-11", "--container", "101", "--out", "a"]);
    for key in [first, second, third] {
        text(directory, &["verify", "a", "--key", key.trim()]);
        assert!(check_independently(directory, &["a", key.trim()]).0);
    }
}

/// A witness that knows only the format: prints its key, or its answer to a checkpoint.
const WITNESS: &str = "
import base64, hashlib, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey as Key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
name, seed, file, time = sys.argv[1], bytes([int(sys.argv[2])] * 32), sys.argv[3], int(sys.argv[4])
key = Key.from_private_bytes(seed)
raw = b'\\x04' + key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
id = hashlib.sha256(name.encode() + b'\\n' + raw).digest()[:4]
if file == '-':
    print(f'{name}+{id.hex()}+{base64.b64encode(raw).decode()}')
else:
    text = open(file).read().split('\\n\\n')[0] + '\\n'
    signed = key.sign(f'cosignature/v1\\ntime {time}\\n{text}'.encode())
    line = base64.b64encode(id + time.to_bytes(8, 'big') + signed).decode()
    print(f'\\u2014 {name} {line}')
";

#[test]
fn witnesses_see_the_log_and_statements_show_it() {
    let file = state_dir();
    let directory = file.dir.path();
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    let witness = |seed: &str, file: &str| {
        let arguments = ["-c", WITNESS, "witness.example.org", seed, file, "1795000000"];
        let (status, stdout, stderr) = run(directory, "/usr/bin/python3", &arguments);
        assert_eq!((status, stderr.as_str()), (Some(0), ""));
        stdout
    };
    let key = text(directory, &["statement", "key", "--new", "billing.example.com/a"]);
    let key = key.trim();
    text(directory, &["statement", "2026-11", "--container", "101", "--out", "first"]);
    let checkpoint = text(directory, &["statement", "checkpoint"]);
    assert!(checkpoint.starts_with("billing.example.com/a\n2\n"), "{checkpoint}");
    write("checkpoint", &checkpoint);
    write("answer", &witness("1", "checkpoint"));
    let (good, other) = (witness("1", "-"), witness("2", "-"));
    let (good, other) = (good.trim(), other.trim());
    let refused = |arguments: &[&str], expected: &str| {
        let (status, stdout, stderr) = trafctl(directory, arguments);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    };
    refused(&["statement", "cosign", "answer", "--witness", other], "by a key that was given");
    refused(&["statement", "cosign", "checkpoint", "--witness", good], "no cosignatures");
    let cosigned = text(directory, &["statement", "cosign", "answer", "--witness", good]);
    assert_eq!(cosigned, checkpoint.clone() + &witness("1", "checkpoint"));
    assert_eq!(text(directory, &["statement", "checkpoint"]), cosigned);
    // The whole checkpoint will do as well.
    write("answer", &cosigned);
    assert_eq!(text(directory, &["statement", "cosign", "answer", "--witness", good]), cosigned);

    text(directory, &["statement", "2026-11", "--container", "101", "--out", "seen"]);
    let shown = text(directory, &["verify", "seen", "--key", key, "--witness", good]);
    assert!(shown.contains("cosigned by witness.example.org at 2026-11-18T11:06:40Z\n"), "{shown}");
    assert!(text(directory, &["verify", "seen"]).contains("Z, not checked"));
    refused(&["verify", "seen", "--witness", other], "is not that of the key");
    refused(&["verify", "first", "--witness", good], "has not cosigned it");
    let (passes, printed) = check_independently(directory, &["seen", key, "--witness", good]);
    assert!(passes && printed.contains("cosigned 1795000000"), "{printed}");
    assert!(check_independently(directory, &["seen", key]).0);
    for (file, witness) in [("seen", other), ("first", good)] {
        assert!(!check_independently(directory, &[file, key, "--witness", witness]).0);
    }

    // The log goes on, by another key.
    let later = trafctl(directory, &["statement", "key", "--rotate", "--yes"]).1;
    assert!(text(directory, &["statement", "checkpoint"]).starts_with("billing.example.com/a\n3\n"));
    write("update", &text(directory, &["statement", "checkpoint", "--since", "seen"]));
    let both = ["--key", key, "--key", later.trim()];
    let of = |old, new| text(directory, &[&["verify", "--consistent", old, new][..], &both[..]].concat());
    assert!(
        of("seen", "update").starts_with("consistent: the log of 2 entries is the beginning of that of 3\n")
    );
    let json = [&["verify", "--consistent", "first", "update", "--format", "json"][..], &both[..]].concat();
    assert!(text(directory, &json).contains("\"new_size\""));
    // Nothing says which key signed a checkpoint alone, and a statement names its own.
    refused(&["verify", "--consistent", "seen", "update", "--key", key], "update");
    refused(&["verify", "--consistent", "seen", "update", "--key", later.trim()], "seen");
    let not = |old, new, expected| {
        refused(&[&["verify", "--consistent", old, new][..], &both[..]].concat(), expected);
    };
    not("seen", "seen", "has no proof of consistency");
    write("wrong", &text(directory, &["statement", "checkpoint", "--since", "1"]));
    not("seen", "wrong", "--since 2");
    let update = fs::read_to_string(directory.join("update")).unwrap();
    let other =
        text(directory, &["statement", "checkpoint", "--since", "1"]).lines().nth(1).unwrap().to_owned();
    write("wrong", &update.replace(update.lines().nth(1).unwrap(), &other));
    not("seen", "wrong", "two histories were shown");
    refused(&["statement", "checkpoint", "--since", "4"], "the log has 3 entries");
    // What was seen by the earlier key is of no use to the new one.
    text(directory, &["statement", "2026-11", "--container", "101", "--out", "third"]);
    refused(&["verify", "third", "--witness", good], "has not cosigned it");
}
