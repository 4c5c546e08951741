//! Checkpoints that continue each other, and that witnesses have seen.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;
use crate::{Checkpoint, Update, WitnessKey, merkle::sha256};

/// A witness, written from the format alone.
struct Witness {
    name: &'static str,
    pair: Ed25519KeyPair,
}

impl Witness {
    fn new(name: &'static str, seed: u8) -> Self {
        Self { name, pair: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap() }
    }

    fn id(&self) -> [u8; 4] {
        let hash = sha256(&[self.name.as_bytes(), b"\n\x04", self.pair.public_key().as_ref()]);
        [hash[0], hash[1], hash[2], hash[3]]
    }

    fn key(&self) -> WitnessKey {
        let key = STANDARD.encode([b"\x04", self.pair.public_key().as_ref()].concat());
        let text = format!("{}+{}+{key}", self.name, traffic_model::hex(&self.id()));
        let parsed = WitnessKey::parse(&text).unwrap();
        assert_eq!(parsed.to_string(), text);
        parsed
    }

    fn cosign(&self, checkpoint: &str, time: u64) -> String {
        let (text, _) = checkpoint.split_once("\n\n").unwrap();
        let signature = self.pair.sign(format!("cosignature/v1\ntime {time}\n{text}\n").as_bytes());
        let bytes = [&self.id()[..], &time.to_be_bytes(), signature.as_ref()].concat();
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(bytes))
    }
}

const TIME: u64 = 1_795_000_000;

/// The log with so many entries.
fn log(entries: usize) -> Log {
    let mut log = Log::new(Salts::of([9; 32]));
    for number in 0..entries {
        let period = format!("20{number:02}-01");
        log.push((Kind::Period, Some(&period), CHAIN[number % 4]), &[figures(&period, 1, 5)]).unwrap();
    }
    log
}

fn opened(note: &str) -> Checkpoint {
    Checkpoint::open(note, &[key().public()]).unwrap()
}

#[test]
fn a_later_checkpoint_continues_an_earlier_one() {
    for new in 0..9 {
        for old in 0..=new {
            let (before, after) = (log(old), log(new));
            let text = after.update(&key(), old as u64).unwrap().text();
            assert!(text.starts_with(&format!("old {old}\n")), "{text}");
            let update = Update::parse(&text).unwrap().unwrap();
            assert_eq!(update.text(), text);
            let (earlier, later) = (opened(&before.checkpoint(&key())), opened(&update.checkpoint));
            assert_eq!((earlier.size, later.size), (old as u64, new as u64));
            update.check(&earlier, &later).unwrap();
            if old > 0 {
                // A log whose salts are others is another one.
                let mut other = Log::new(Salts::of([8; 32]));
                for number in 0..old {
                    let record = figures("2026-01", 1, number as u64);
                    other.push((Kind::Period, Some("2026-01"), CHAIN[0]), &[record]).unwrap();
                }
                let other = opened(&other.checkpoint(&key()));
                assert!(matches!(update.check(&other, &later), Err(StatementError::TwoHistories(_))));
                let one_less = opened(&log(old - 1).checkpoint(&key()));
                let error = update.check(&one_less, &later).unwrap_err().to_string();
                assert!(error.contains(&format!("--since {}", old - 1)), "{error}");
            }
        }
        assert!(log(new).update(&key(), new as u64 + 1).is_err());
    }
    let elsewhere = SecretKey::new("node2.example.com", [7; 32]).unwrap();
    let other = Checkpoint::open(&log(3).checkpoint(&elsewhere), &[elsewhere.public()]).unwrap();
    let update = log(4).update(&key(), 3).unwrap();
    let error = update.check(&other, &opened(&update.checkpoint)).unwrap_err().to_string();
    assert!(error.contains("one is of the log"), "{error}");
}

#[test]
fn a_proof_of_consistency_has_one_text() {
    let text = log(7).update(&key(), 3).unwrap().text();
    assert_eq!(Update::parse(&text[1..]).unwrap(), None);
    for changed in [
        text.replacen("old 3", "old 03", 1),
        text.replacen("old 3", "old x", 1),
        text.replacen("=\n", "\n", 1),
        text.replacen("\n\n", "\n", 2),
        "old 3".to_owned(),
    ] {
        assert!(Update::parse(&changed).is_err(), "{changed}");
    }
}

#[test]
fn witnesses_are_carried_and_checked() {
    let [one, two] = [("witness.example.org/one", 1), ("witness.example.org/two", 2)];
    let (one, two) = (Witness::new(one.0, one.1), Witness::new(two.0, two.1));
    let bare = chain(issue(Log::new(Salts::of([9; 32])), facts(3)));
    let checkpoint =
        document_of(&bare.finish(&key(), None).unwrap())["checkpoint"].as_str().unwrap().to_owned();
    let cosigned =
        format!("{checkpoint}{}{}", one.cosign(&checkpoint, TIME), two.cosign(&checkpoint, TIME + 9));
    let issuing = || chain(issue(Log::new(Salts::of([9; 32])), facts(3)));
    let note = issuing().finish(&key(), Some(&cosigned)).unwrap();
    let found = verify(&note, Some(key().public())).unwrap().checkpoint;
    assert_eq!(found.cosignatures.len(), 2);
    assert_eq!(found.seen_by(&one.key()).unwrap(), TIME);
    assert_eq!(found.seen_by(&two.key()).unwrap(), TIME + 9);
    let refused = |witness: &Witness| found.seen_by(&witness.key()).unwrap_err().to_string();
    assert!(refused(&Witness::new("witness.example.org/three", 3)).contains("has not cosigned it"));
    assert!(refused(&Witness::new("witness.example.org/one", 3)).contains("is not that of the key"));
    // The same keys as those of statements are of another type.
    assert!(WitnessKey::parse(&key().public().to_string()).is_err());
    assert!(PublicKey::parse(&one.key().to_string()).is_err());
    // Every byte of what a witness signed, by whoever has the key of the log.
    let last = two.cosign(&checkpoint, TIME + 9);
    for at in 0..last.len() {
        let mut line = last.clone().into_bytes();
        line[at] ^= 1;
        let Ok(line) = String::from_utf8(line) else { continue };
        let changed = signed_again(&note, |document| {
            document["checkpoint"] = format!("{checkpoint}{line}").into();
        });
        let seen = verify(&changed, Some(key().public())).and_then(|of| of.checkpoint.seen_by(&two.key()));
        assert!(seen.is_err(), "byte {at}");
    }
}

fn document_of(note: &str) -> serde_json::Value {
    serde_json::from_str(note.lines().next().unwrap()).unwrap()
}

#[test]
fn only_cosignatures_follow_the_signature_of_a_checkpoint() {
    let note = statement(3);
    let checkpoint = document_of(&note)["checkpoint"].as_str().unwrap().to_owned();
    let witness = Witness::new("witness.example.org", 1);
    let cosignature = witness.cosign(&checkpoint, TIME);
    let other = SecretKey::new("other.example.org", [4; 32]).unwrap();
    let text = checkpoint.split_once("\n\n").unwrap().0.to_owned() + "\n";
    let second = other.sign(&text).split_once("\n\n").unwrap().1.to_owned();
    let with = |added: &str| {
        let changed =
            signed_again(&note, |document| document["checkpoint"] = format!("{checkpoint}{added}").into());
        let found = verify(&changed, None).map(drop);
        assert_eq!(passes_independently(&changed, key().public()), found.is_ok(), "{added:?}");
        found
    };
    with(&cosignature).unwrap();
    for added in [
        cosignature.clone() + &witness.cosign(&checkpoint, TIME + 1),
        second,
        cosignature.replace(' ', "  "),
        cosignature.replace("witness.", "<b>"),
        cosignature.clone() + "\n",
        cosignature.trim_end().to_owned(),
        "\u{2014} witness.example.org AAAAAAAA\n".to_owned(),
        witness.cosign(&checkpoint, u64::MAX),
    ] {
        assert!(with(&added).is_err(), "{added:?}");
    }
    // The statement itself has one signature, whoever else has seen it.
    let more = note.clone() + &witness.cosign(&note, TIME);
    assert!(verify(&more, None).is_err());
}

#[test]
fn an_earlier_checkpoint_is_stated_where_it_covers_everything() {
    let witness = Witness::new("witness.example.org", 1);
    let cosigned = |log: &Log| {
        let note = log.checkpoint(&key());
        let line = witness.cosign(&note, TIME);
        note + &line
    };
    let with = |number: i64, cosigned: &str| {
        let note =
            chain(issue(Log::new(Salts::of([9; 32])), facts(number))).finish(&key(), Some(cosigned)).unwrap();
        let found = verify(&note, Some(key().public())).unwrap();
        (found.log_size, found.checkpoint.cosignatures.len())
    };
    // The chain of the other tests up to the correction of container 3, which is entry 4.
    let up_to = |entries: usize| {
        let mut log = Log::new(Salts::of([9; 32]));
        let month =
            |period: &str, base| (1..=5).map(|number| figures(period, number, base)).collect::<Vec<_>>();
        let all = [
            (Kind::Period, "2026-09", CHAIN[0], month("2026-09", 7)),
            (Kind::Period, "2026-10", CHAIN[1], month("2026-10", 100)),
            (Kind::Correction, "2026-09", CHAIN[2], vec![correction("2026-09", 3, 1, -20)]),
            (Kind::Correction, "2026-10", CHAIN[3], vec![correction("2026-10", 3, 1, -20)]),
        ];
        for (kind, period, chain, records) in all.into_iter().take(entries) {
            log.push((kind, Some(period), chain), &records).unwrap();
        }
        log
    };
    assert_eq!(with(3, &cosigned(&up_to(4))), (4, 1));
    assert_eq!(with(3, &cosigned(&up_to(3))), (5, 0), "a correction came later");
    assert_eq!(with(1, &cosigned(&up_to(3))), (3, 1));
    assert_eq!(with(3, &cosigned(&log(4))), (5, 0), "of another log");
    assert_eq!(with(3, "no checkpoint\n"), (5, 0));
}

#[test]
fn cosignatures_are_added_if_a_given_key_made_them() {
    let (one, two) = (Witness::new("one.example.org", 1), Witness::new("two.example.org", 2));
    let note = log(3).checkpoint(&key());
    let mut checkpoint = opened(&note);
    let line = |witness: &Witness, time| witness.cosign(&note, time).trim_end().to_owned();
    assert!(checkpoint.cosign(&[&line(&one, TIME)], &[two.key()]).is_err());
    let of_another = one.cosign(&log(4).checkpoint(&key()), TIME).trim_end().to_owned();
    assert!(checkpoint.cosign(&[&of_another], &[one.key()]).is_err());
    assert_eq!(checkpoint.cosignatures, []);
    checkpoint.cosign(&[&line(&one, TIME)], &[one.key(), two.key()]).unwrap();
    checkpoint.cosign(&[&line(&two, TIME), &line(&one, TIME + 5)], &[one.key(), two.key()]).unwrap();
    checkpoint.cosign(&[&line(&one, TIME + 1)], &[one.key()]).unwrap();
    let times: Vec<_> = checkpoint.cosignatures.iter().map(|one| (one.name.as_str(), one.time)).collect();
    assert_eq!(times, [("one.example.org", TIME + 5), ("two.example.org", TIME)]);
    assert_eq!(opened(&checkpoint.with_cosignatures(&note)), checkpoint);
}
