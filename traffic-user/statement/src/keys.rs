//! Changes of the key that signs: rotations to a new key, and revocations of an earlier one. Each is a signed note, and an
//! entry of the log.

use serde::Serialize;

use crate::{
    error::StatementError,
    note::{self, PublicKey, SecretKey},
};

/// The first line of each note: what it is, and the version of its format. No checkpoint begins like this: the name of a
/// key has no space.
const ROTATION: &str = "trafctl-key/1 rotation";
const REVOCATION: &str = "trafctl-key/1 revocation";

/// The note by which another key of the same name signs from now on. Both keys sign it.
///
/// # Errors
/// When the names differ, the keys do not, or the time is not in the form of statements.
pub fn rotation(from: &SecretKey, to: &SecretKey, made: &str) -> Result<String, StatementError> {
    let text = format!("{ROTATION}\n{}\n{}\n{made}\n", from.public(), to.public());
    KeyChange::parse(&text)?;
    Ok(note::sign_all(&text, &[from, to]))
}

/// The note by which statements of an earlier key count no longer, if they say that they were made from a time on.
///
/// # Errors
/// When the reason is not one line, or a time is not in the form of statements.
pub fn revocation(
    by: &SecretKey,
    key: &PublicKey,
    (from, made): (&str, &str),
    reason: &str,
) -> Result<String, StatementError> {
    let text = format!("{REVOCATION}\n{key}\n{from}\n{made}\n{reason}\n");
    KeyChange::parse(&text)?;
    Ok(note::sign_all(&text, &[by]))
}

/// What a note changes.
#[derive(Debug)]
enum KeyChange {
    Rotation { from: PublicKey, to: PublicKey },
    Revocation { key: PublicKey, from: String, reason: String },
}

impl KeyChange {
    /// Reads the text of a note. Who signed it is another matter.
    fn parse(text: &str) -> Result<Self, StatementError> {
        let wrong = |why: &str| StatementError::form(format!("a change of its key: {why}"));
        let lines: Vec<&str> = text.strip_suffix('\n').unwrap_or_default().split('\n').collect();
        match *lines.as_slice() {
            [ROTATION, from, to, made] => {
                let (from, to) = (exact_key(from)?, exact_key(to)?);
                if !is_time(made) {
                    return Err(wrong("a time is none"));
                }
                if from.name() != to.name() || from == to {
                    return Err(wrong("it does not lead to another key of the same name"));
                }
                Ok(Self::Rotation { from, to })
            }
            [REVOCATION, key, from, made, reason] => {
                if !is_time(from) || !is_time(made) {
                    return Err(wrong("a time is none"));
                }
                if reason.trim().is_empty() || reason.chars().any(char::is_control) {
                    return Err(wrong("its reason is not one line of text"));
                }
                Ok(Self::Revocation {
                    key: exact_key(key)?,
                    from: from.to_owned(),
                    reason: reason.to_owned(),
                })
            }
            _ => Err(wrong("its lines are not those of one")),
        }
    }
}

/// A key in its only form.
fn exact_key(text: &str) -> Result<PublicKey, StatementError> {
    let key = PublicKey::parse(text)?;
    if key.to_string() == text { Ok(key) } else { Err(StatementError::form(format!("{text:?} is no key"))) }
}

/// Whether a text is a time like `2026-11-30T17:00:00Z`. Such texts have the order of their times.
pub(crate) fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00Z";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            form => byte == *form,
        })
}

/// A key that another one followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Former {
    pub key: PublicKey,
    /// Number of the entry of the log that replaced it.
    pub replaced: u64,
}

/// A key whose statements count no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revoked {
    /// The key.
    #[serde(serialize_with = "as_text")]
    pub key: PublicKey,
    /// Statements that say they were made from here on are refused.
    pub from: String,
    /// Why.
    pub reason: String,
}

fn as_text<S: serde::Serializer>(key: &PublicKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

/// The keys of a log, from all changes of them in its order.
#[derive(Clone, Debug, Default)]
pub struct KeyHistory {
    former: Vec<Former>,
    current: Option<PublicKey>,
    revoked: Vec<Revoked>,
}

impl KeyHistory {
    /// Takes the next change, which is under an entry of the log.
    ///
    /// # Errors
    /// When it is not signed as it must be, or does not follow from the changes before it.
    pub fn take(&mut self, note: &str, entry: u64) -> Result<(), StatementError> {
        let not = |what: &str| {
            Err(StatementError::Contradiction(format!("the change of the key in entry {entry} {what}")))
        };
        match KeyChange::parse(note::text_of(note)?)? {
            KeyChange::Rotation { from, to } => {
                note::open_all(note, &[&from, &to])?;
                if self.current.as_ref().is_some_and(|current| *current != from) {
                    return not("replaces another key than the one before it led to");
                }
                if self.former.iter().any(|former| former.key == to) {
                    return not("leads back to an earlier key");
                }
                self.former.push(Former { key: from, replaced: entry });
                self.current = Some(to);
            }
            KeyChange::Revocation { key, from, reason } => {
                let Some(current) = &self.current else { return not("revokes a key that signs") };
                note::open_all(note, &[current])?;
                if !self.former.iter().any(|former| former.key == key) {
                    return not("revokes a key that no other one had replaced");
                }
                if self.revocation(&key).is_some() {
                    return not("revokes a key again");
                }
                self.revoked.push(Revoked { key, from, reason });
            }
        }
        Ok(())
    }

    /// The key that signs after all changes; `None` where there was none.
    pub const fn current(&self) -> Option<&PublicKey> {
        self.current.as_ref()
    }

    /// Checks that a key is the one that signs after all changes.
    ///
    /// # Errors
    /// When another one does.
    pub fn check_signer(&self, key: &PublicKey) -> Result<(), StatementError> {
        match self.current().filter(|current| *current != key) {
            None => Ok(()),
            Some(current) => Err(StatementError::Key(format!(
                "another key signs by now: the log leads to {current}, and the file has {key}; if `trafctl statement key \
                 --rotate` was interrupted, run it again, otherwise restore the newer file"
            ))),
        }
    }

    /// The keys that others replaced, the first one first.
    pub fn former_keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.former.iter().map(|former| &former.key)
    }

    pub(crate) fn former(&self) -> &[Former] {
        &self.former
    }

    /// The revocation of a key.
    pub fn revocation(&self, key: &PublicKey) -> Option<&Revoked> {
        self.revoked.iter().find(|revoked| revoked.key == *key)
    }

    /// All revocations.
    pub fn revoked(&self) -> &[Revoked] {
        &self.revoked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: &str = "2026-11-30T17:00:00Z";

    fn key(seed: u8) -> SecretKey {
        SecretKey::new("node1.example.com", [seed; 32]).unwrap()
    }

    fn refused(history: &KeyHistory, note: &str) -> String {
        history.clone().take(note, 9).unwrap_err().to_string()
    }

    #[test]
    fn keys_follow_each_other_and_earlier_ones_are_revoked() {
        let [one, two, three] = [1, 2, 3].map(key);
        let mut history = KeyHistory::default();
        history.take(&rotation(&one, &two, MADE).unwrap(), 3).unwrap();
        // Whoever has the former key leads nobody elsewhere, nor does one that never signed.
        assert!(refused(&history, &rotation(&one, &three, MADE).unwrap()).contains("another key than"));
        assert!(refused(&history, &rotation(&two, &one, MADE).unwrap()).contains("back to an earlier key"));
        let leaked = ("2026-11-01T00:00:00Z", MADE);
        let revoke = |by: &SecretKey, of: &SecretKey| revocation(by, of.public(), leaked, "leaked").unwrap();
        assert!(matches!(
            history.clone().take(&revoke(&one, &one), 9),
            Err(StatementError::Signature { .. })
        ));
        assert!(refused(&history, &revoke(&two, &two)).contains("no other one had replaced"));
        assert!(refused(&history, &revoke(&two, &three)).contains("no other one had replaced"));
        assert!(refused(&KeyHistory::default(), &revoke(&one, &one)).contains("a key that signs"));
        history.take(&revoke(&two, &one), 4).unwrap();
        assert!(refused(&history, &revoke(&two, &one)).contains("again"));
        history.take(&rotation(&two, &three, MADE).unwrap(), 7).unwrap();
        assert_eq!(history.current(), Some(three.public()));
        let replaced: Vec<_> = history.former().iter().map(|former| (&former.key, former.replaced)).collect();
        assert_eq!(replaced, [(one.public(), 3), (two.public(), 7)]);
        let revoked =
            Revoked { key: one.public().clone(), from: leaked.0.to_owned(), reason: "leaked".to_owned() };
        assert_eq!(history.revocation(one.public()), Some(&revoked));
        assert_eq!(history.revocation(two.public()), None);
    }

    #[test]
    fn both_keys_sign_a_rotation() {
        let [one, two, three] = [1, 2, 3].map(key);
        let text = format!("{ROTATION}\n{}\n{}\n{MADE}\n", one.public(), two.public());
        let by = |keys: &[&SecretKey]| KeyHistory::default().take(&note::sign_all(&text, keys), 1);
        assert!(by(&[&one, &two]).is_ok());
        for keys in [
            &[&one][..],
            &[&two],
            &[&two, &one],
            &[&one, &one],
            &[&two, &two],
            &[&three, &two],
            &[&one, &three],
            &[&one, &two, &two],
            &[&one, &two, &three],
        ] {
            assert!(by(keys).is_err(), "{keys:?}");
        }
    }

    #[test]
    fn each_change_has_one_text() {
        let [one, two] = [1, 2].map(key);
        let (from, to) = (one.public(), two.public());
        for text in [
            format!("{ROTATION}\n{from}\n{to}\n2026-11-30T17:00:00+01:00\n"),
            format!("{ROTATION}\n{from}\n{to}\n2026-11-30 17:00:00Z\n"),
            format!("{ROTATION}\n{from}\n{to}\n{MADE}\nmore\n"),
            format!("{ROTATION}\n{from} \n{to}\n{MADE}\n"),
            format!("{ROTATION}\n{from}\n{from}\n{MADE}\n"),
            format!("{ROTATION}\n{from}\n{to}\n{MADE}"),
            format!("trafctl-key/2 rotation\n{from}\n{to}\n{MADE}\n"),
            format!("{REVOCATION}\n{from}\n{MADE}\n{MADE}\n \n"),
            format!("{REVOCATION}\n{from}\n{MADE}\n{MADE}\na\tb\n"),
            format!("{REVOCATION}\n{from}\n{MADE}\nnow\nleaked\n"),
            format!("{REVOCATION}\n{from}\nnow\n{MADE}\nleaked\n"),
            String::new(),
        ] {
            assert!(KeyChange::parse(&text).is_err(), "{text}");
        }
        let other = SecretKey::new("node2.example.com", [2; 32]).unwrap();
        assert!(rotation(&one, &other, MADE).is_err(), "the name is that of the log");
    }
}
