//! Statements from beginning to end, and what must not pass as one.

mod checkpoints;
mod keys;

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
};

use crate::{
    Amounts, Calibration, ClassTable, ClosedRate, ClosedRow, Day, Dropped, DroppedRow, Facts, FaultRow,
    GapLine, InPage, Issuing, Kind, Log, PAGE, Period, PublicKey, Record, Salts, SecretKey, SignedCounts,
    StatementError, issue, page_of, statement_in, verify,
};

const CHAIN: [&str; 4] = ["aa11", "bb22", "cc33", "dd44"];

fn key() -> SecretKey {
    SecretKey::new("node1.example.com/statements", [7; 32]).unwrap()
}

fn figures(period: &str, number: i64, base: u64) -> Record {
    let row = |class, family: &str, counts: [u64; 4]| ClosedRow {
        node: "node1".to_owned(),
        class,
        family: family.to_owned(),
        class_table: "ab".repeat(32),
        counts: Amounts::new(counts),
    };
    let more = base + 10;
    Record::Figures {
        period: period.to_owned(),
        container: format!("{}", 100 + number),
        number,
        rows: vec![
            row(1, "ipv4", [base, base * 1000, base + 1, base * 700]),
            row(1, "ipv6", [more, more * 1000, more + 1, more * 700]),
            row(2, "ipv4", [u64::MAX, u64::MAX - 1, 0, 3]),
        ],
        rates: vec![ClosedRate::new(None, "l3".to_owned(), [base, base + 2, base + 3])],
    }
}

fn correction(period: &str, number: i64, class: u8, by: i128) -> Record {
    Record::Correction {
        period: period.to_owned(),
        container: format!("{}", 100 + number),
        number,
        made: "2026-11-12T10:00:00Z".to_owned(),
        class,
        family: "ipv4".to_owned(),
        counts: Amounts::new([by, by * 1000, 0, 0]),
        reason: "a \"test\"\nof \u{e9}".to_owned(),
    }
}

fn facts(number: i64) -> Facts {
    Facts {
        trafctl: "0.2.0".to_owned(),
        made: "2026-11-29T06:00:00Z".to_owned(),
        period: Period {
            name: "2026-10".to_owned(),
            start: "2026-09-30T22:00:00Z".to_owned(),
            end: "2026-10-31T23:00:00Z".to_owned(),
            closed: "2026-11-02T08:00:00Z".to_owned(),
            time_zone: "Europe/Berlin".to_owned(),
            billing_day: 1,
        },
        number,
        container_now: None,
        class_names: BTreeMap::from([(1, "World".to_owned())]),
        gaps: vec![GapLine {
            start: None,
            end: "2026-10-05T00:00:00Z".to_owned(),
            reason: "bypassed".to_owned(),
            interface: Some("veth101.0".to_owned()),
            missing: Some(Amounts::new([5, 570, 0, 0])),
        }],
        days: vec![Day { day: "2026-10-03".to_owned(), counts: Amounts::new([21, 2100, 34, 34_000]) }],
        dropped: Some(Dropped {
            recorded_from: "2026-10-02T00:00:00Z".to_owned(),
            rows: vec![DroppedRow {
                class: 1,
                reason: "shaper".to_owned(),
                counts: Amounts::new([6, 6600, 7, 7700]),
            }],
        }),
        faults: vec![FaultRow { reason: "not_ip".to_owned(), counts: Amounts::new([8, 880, 9, 990]) }],
        calibration: Some(Calibration {
            time: "2026-11-28T02:17:00Z".to_owned(),
            class_table: "cd".repeat(32),
            program: "ef".repeat(32),
            sent: Amounts::new([20, 13_305, 21, 14_229]),
            counted: Amounts::new([20, 13_305, 21, 14_230]),
            differing: 1,
        }),
        class_tables: vec![ClassTable {
            hash: "ab".repeat(32),
            loaded: "2026-09-01T00:00:00Z".to_owned(),
            prefixes: 4,
        }],
    }
}

/// The chain: September, October with containers 1 to 5, a correction of September, two of October.
fn chain(mut issuing: Issuing) -> Issuing {
    let month = |period: &str, base| (1..=5).map(|number| figures(period, number, base)).collect::<Vec<_>>();
    issuing.entry((Kind::Period, Some("2026-09"), CHAIN[0]), &month("2026-09", 7)).unwrap();
    issuing.entry((Kind::Period, Some("2026-10"), CHAIN[1]), &month("2026-10", 100)).unwrap();
    for (period, number, chain) in
        [("2026-09", 3, CHAIN[2]), ("2026-10", 3, CHAIN[3]), ("2026-10", 4, "ee55")]
    {
        issuing
            .entry((Kind::Correction, Some(period), chain), &[correction(period, number, 1, -20)])
            .unwrap();
    }
    issuing
}

fn statement(number: i64) -> String {
    chain(issue(Log::new(Salts::of([9; 32])), facts(number))).finish(&key(), None).unwrap()
}

#[test]
fn a_statement_has_what_was_frozen_and_corrected() {
    let verified = verify(&statement(3), Some(key().public())).unwrap();
    let document = &verified.document;
    assert_eq!(
        (document.container(), document.period.name.as_str(), verified.log_size),
        ("103", "2026-10", 5)
    );
    assert_eq!(document.corrections().count(), 1);
    let sums: Vec<_> = document.sums.iter().map(|sum| (sum.class, sum.name.as_deref(), sum.counts)).collect();
    let huge = i128::from(u64::MAX);
    assert_eq!(
        sums,
        [
            (1, Some("World"), SignedCounts::new([190, 190_000, 212, 147_000])),
            (2, None, SignedCounts::new([huge, huge - 1, 0, 3])),
        ]
    );
}

#[test]
fn every_changed_byte_is_found() {
    let note = statement(3);
    let public = key().public().clone();
    assert!(verify(&note, Some(&public)).is_ok());
    for at in 0..note.len() {
        for bit in [at % 8, (at + 5) % 8] {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(verify(&changed, Some(&public)).is_err(), "bit {bit} of byte {at}");
        }
        let shorter = note.char_indices().nth(at).map(|(at, _)| &note[..at]);
        assert!(shorter.is_none_or(|shorter| verify(shorter, Some(&public)).is_err()), "{at}");
    }
}

#[test]
fn every_changed_byte_of_a_page_is_found() {
    let (note, public) = (statement(3), key().public().clone());
    let page = page_of(&note);
    assert_eq!(statement_in(&page), Some(InPage { note: note.clone(), is_own_page: true }));
    assert_eq!((statement_in(&note), statement_in(PAGE).unwrap().note.as_str()), (None, ""));
    let begin = page.find("{\"calibration\"").unwrap();
    // All of the statement, and parts of what is around it.
    let places = (begin..page.len() - 100).filter(|at| *at < begin + note.len() || at % 97 == 0);
    for at in places.chain((0..begin).step_by(97)) {
        let mut bytes = page.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        let passes = statement_in(&changed)
            .is_some_and(|found| found.is_own_page && verify(&found.note, Some(&public)).is_ok());
        assert!(!passes, "byte {at}");
    }
}

/// Signs a document again after a change. This is what whoever has the key could do.
fn signed_again(note: &str, change: impl Fn(&mut serde_json::Value)) -> String {
    let mut document: serde_json::Value = serde_json::from_str(note.lines().next().unwrap()).unwrap();
    change(&mut document);
    key().sign(&(crate::canonical::text(&document).unwrap() + "\n"))
}

/// Why a statement is refused, which the verifier of the documentation does as well.
fn refusal(note: &str) -> String {
    assert!(!passes_independently(note, key().public()), "only the independent check accepts it: {note}");
    match verify(note, Some(key().public())) {
        Err(StatementError::Contradiction(what) | StatementError::Form(what)) => what,
        other => panic!("{other:?}"),
    }
}

/// Whether the verifier that is part of the documentation, which shares nothing with this program, accepts a statement. It
/// runs in Debian's Python, which has its package for cryptography.
fn passes_independently(note: &str, key: &PublicKey) -> bool {
    let verifier = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/verify_statement.py");
    let mut child = Command::new("/usr/bin/python3")
        .args([verifier, "/dev/stdin", &key.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may refuse a statement before it has read all of it.
    let _ended = child.stdin.take().unwrap().write_all(note.as_bytes());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || stderr.starts_with("not valid: "), "{stderr}");
    output.status.success()
}

#[test]
fn whoever_has_the_key_cannot_show_each_tenant_another_month() {
    let note = statement(3);
    assert!(passes_independently(&note, key().public()));
    let changes: [(&str, &str, serde_json::Value); 9] = [
        ("/figures/record/rows/0/in_bytes", "not in entry 2", "100001".into()),
        ("/figures/record/number", "not in entry 2", 4.into()),
        ("/figures/record/container", "not in entry 2", "104".into()),
        ("/figures/record/period", "another month or container", "2026-09".into()),
        ("/figures/entry/chain", "entry 2 is not in the log", "bb23".into()),
        ("/figures/entry/entry", "entry 1 is not in the log", 1.into()),
        ("/corrections", "sums are not those", serde_json::json!([])),
        ("/sums/0/in_bytes", "sums are not those", "190001".into()),
        ("/figures/proof/index", "not in entry 2", 9.into()),
    ];
    for (place, expected, value) in changes {
        let changed = signed_again(&note, |document| *document.pointer_mut(place).unwrap() = value.clone());
        let found = refusal(&changed);
        assert!(found.contains(expected), "{place}: {found}");
    }
    // A correction twice, and one of another container.
    let twice = signed_again(&note, |document| {
        let all = document["corrections"].as_array_mut().unwrap();
        all.push(all[0].clone());
    });
    assert!(refusal(&twice).contains("order of the log"));
    let other: serde_json::Value = serde_json::from_str(statement(4).lines().next().unwrap()).unwrap();
    let mixed = signed_again(&note, |document| document["corrections"] = other["corrections"].clone());
    assert!(refusal(&mixed).contains("another month or container"));
    // An amount with another text of the same number, and members in another order.
    let padded = signed_again(&note, |document| document["sums"][0]["in_bytes"] = "0190000".into());
    assert!(refusal(&padded).contains("no amount"));
    let line = note.lines().next().unwrap();
    let spaced = key().sign(&(line.replacen("{\"c", "{ \"c", 1) + "\n"));
    assert!(refusal(&spaced).contains("canonical"));
}

#[test]
fn a_statement_without_faults_or_calibration_is_one_of_before_they_were_stated() {
    let without = |facts| chain(issue(Log::new(Salts::of([9; 32])), facts)).finish(&key(), None).unwrap();
    let note = without(Facts { faults: Vec::new(), calibration: None, ..facts(3) });
    let older = signed_again(&statement(3), |document| {
        document.as_object_mut().unwrap().remove("faults").unwrap();
        document.as_object_mut().unwrap().remove("calibration").unwrap();
    });
    assert_eq!(note, older);
    assert_eq!(verify(&older, Some(key().public())).unwrap().document.calibration, None);
    assert_eq!(verify(&older, Some(key().public())).unwrap().document.faults, []);
    // What there is none of has one text.
    let empty = signed_again(&older, |document| document["faults"] = serde_json::json!([]));
    assert!(refusal(&empty).contains("canonical"));
    let null = signed_again(&older, |document| document["calibration"] = serde_json::Value::Null);
    assert!(refusal(&null).contains("canonical"));
}

#[test]
fn another_key_is_named() {
    let other = SecretKey::new("node1.example.com/statements", [8; 32]).unwrap();
    let error = verify(&statement(3), Some(other.public())).unwrap_err().to_string();
    assert!(
        error.contains(&key().public().to_string()) && error.contains(&other.public().to_string()),
        "{error}"
    );
    // Without a key from elsewhere, the text is compared with itself.
    assert_eq!(verify(&statement(3), None).unwrap().key, *key().public());
    // A checkpoint of another key.
    let foreign = Log::new(Salts::of([9; 32])).checkpoint(&other);
    let changed = signed_again(&statement(3), |document| document["checkpoint"] = foreign.clone().into());
    assert!(matches!(verify(&changed, None), Err(StatementError::Signature { .. })));
}

#[test]
fn nothing_of_neighbours_is_in_a_statement() {
    let note = statement(3);
    let hashes: Vec<String> = (1..=5)
        .map(|number| figures("2026-10", number, 100))
        .map(|record| {
            let text = crate::canonical::text(&record).unwrap();
            traffic_model::hex(&crate::merkle::leaf(&[text.as_bytes()]))
        })
        .collect();
    for (number, hash) in (1..).zip(hashes) {
        assert!(!note.contains(&hash), "the unsalted hash of {number} can be guessed");
        assert_eq!(note.contains(&format!("\"container\":\"10{number}\"")), number == 3);
    }
    let other = chain(issue(Log::new(Salts::of([10; 32])), facts(3))).finish(&key(), None).unwrap();
    assert_ne!(note, other, "the salts do nothing");
}

#[test]
fn the_same_figures_have_the_same_statement_and_later_logs_continue_earlier_ones() {
    assert_eq!(statement(3), statement(3));
    let later = |entries: usize| {
        let mut log = Log::new(Salts::of([9; 32]));
        for number in 0..entries {
            let period = format!("20{number:02}-01");
            log.append((Kind::Period, Some(&period), CHAIN[0]), &[figures(&period, 1, 5)], 1).unwrap();
        }
        log.checkpoint(&key())
    };
    assert_ne!(later(3), later(4));
    assert!(later(4).starts_with("node1.example.com/statements\n4\n"));
}

#[test]
fn a_container_without_figures_has_no_statement() {
    let error = chain(issue(Log::new(Salts::of([9; 32])), facts(6))).finish(&key(), None).unwrap_err();
    assert!(error.to_string().contains("no figures in 2026-10"), "{error}");
}

#[test]
fn a_public_key_is_what_the_statement_names() {
    let line = statement(1);
    let document: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    assert_eq!(PublicKey::parse(document["issuer"].as_str().unwrap()).unwrap(), *key().public());
}
