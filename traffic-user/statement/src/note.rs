//! Texts with signatures: C2SP signed-note with Ed25519. A text ends with a line feed; an empty line and the
//! signatures follow.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::{SecureRandom as _, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use traffic_model::hex;

use crate::{error::StatementError, merkle::sha256};

/// The type of keys and signatures, as the format numbers them.
const TYPE: u8 = 1;
const SEED_BYTES: usize = 32;
pub(crate) const KEY_BYTES: usize = 32;
pub(crate) const ID_BYTES: usize = 4;
/// What each line with a signature begins with: an em dash and a space.
const SIGNATURE: &str = "\u{2014} ";
/// What the text of a secret key begins with.
const SECRET: &str = "PRIVATE+KEY+";

/// A key that checks signatures. Its text is `NAME+ID+KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: [u8; KEY_BYTES],
}

impl PublicKey {
    /// Parses the text of a key.
    ///
    /// # Errors
    /// When it is not one of Ed25519, or its parts contradict each other.
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let (name, key) = parse_key(text, TYPE)?;
        Ok(Self { name, key })
    }

    /// The name of whoever signs.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> [u8; ID_BYTES] {
        key_id(&self.name, TYPE, &self.key)
    }

    /// The text of a note that this key, and nobody else, has signed.
    ///
    /// # Errors
    /// As [`open_all`].
    pub(crate) fn open<'n>(&self, note: &'n str) -> Result<&'n str, StatementError> {
        open_all(note, &[self])
    }

    /// Whether a line is this key's signature of a text.
    fn has_signed(&self, text: &str, line: &str) -> Result<bool, StatementError> {
        let (name, signature) = signature_of(line)?;
        let signature = signature.strip_prefix(&self.id()).filter(|_| name == self.name);
        let key = UnparsedPublicKey::new(&ED25519, &self.key);
        Ok(signature.is_some_and(|signature| key.verify(text.as_bytes(), signature).is_ok()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_text(&self.name, TYPE, &self.key))
    }
}

/// The id of a key, as the format of signed notes has it for keys of each type.
pub(crate) fn key_id(name: &str, kind: u8, key: &[u8; KEY_BYTES]) -> [u8; ID_BYTES] {
    let hash = sha256(&[name.as_bytes(), b"\n", &[kind], key]);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The text of a key of a type.
pub(crate) fn key_text(name: &str, kind: u8, key: &[u8; KEY_BYTES]) -> String {
    let id = hex(&key_id(name, kind, key));
    format!("{name}+{id}+{}", STANDARD.encode([&[kind], &key[..]].concat()))
}

/// Name and bytes of a key of a type, from its text.
///
/// # Errors
/// When it is of another type, or its parts contradict each other.
pub(crate) fn parse_key(text: &str, kind: u8) -> Result<(String, [u8; KEY_BYTES]), StatementError> {
    let wrong = |why: &str| {
        StatementError::Key(format!(
            "{text:?} is no public key{}: {why}; it looks like `statements.example.com+0123abcd+{}...`",
            if kind == TYPE { "" } else { " of a witness" },
            if kind == TYPE { "AZZj" } else { "BJZj" },
        ))
    };
    // The key itself may have plus signs.
    let mut parts = text.trim().splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong("it has no three parts with plus signs between them"));
    };
    check_name(name)?;
    let bytes = STANDARD.decode(key).map_err(|_| wrong("its last part is not base64"))?;
    let Some(key) = bytes.strip_prefix(&[kind]) else { return Err(wrong("it is of another type")) };
    let key = key.try_into().map_err(|_| wrong("it has not 32 bytes"))?;
    if hex(&key_id(name, kind, &key)) != id {
        return Err(wrong("its id is not that of its name and key"));
    }
    Ok((name.to_owned(), key))
}

/// A key that signs. Its text is `PRIVATE+KEY+NAME+ID+SEED`, as other tools for signed notes have it.
pub struct SecretKey {
    public: PublicKey,
    seed: [u8; SEED_BYTES],
    pair: Ed25519KeyPair,
}

/// Shows no secret.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&self.public.to_string()).finish()
    }
}

impl SecretKey {
    /// A new key.
    ///
    /// # Errors
    /// When the name cannot be one, or the system has no random bytes.
    pub fn generate(name: &str) -> Result<Self, StatementError> {
        Self::new(name, random()?)
    }

    pub(crate) fn new(name: &str, seed: [u8; SEED_BYTES]) -> Result<Self, StatementError> {
        check_name(name)?;
        let unusable = |_| StatementError::Key("the seed cannot be used".to_owned());
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(unusable)?;
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(pair.public_key().as_ref());
        Ok(Self { public: PublicKey { name: name.to_owned(), key }, seed, pair })
    }

    /// Parses the text of a key. No error shows any of it.
    ///
    /// # Errors
    /// When it is not one of Ed25519, or its parts contradict each other.
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let wrong = || StatementError::Key("this is no secret key, or a part of it is missing".to_owned());
        let mut parts = text.trim().strip_prefix(SECRET).ok_or_else(wrong)?.splitn(3, '+');
        let (Some(name), Some(id), Some(seed)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let bytes = STANDARD.decode(seed).map_err(|_| wrong())?;
        let [TYPE, seed @ ..] = bytes.as_slice() else { return Err(wrong()) };
        let key = Self::new(name, seed.try_into().map_err(|_| wrong())?)?;
        if hex(&key.public.id()) != id {
            return Err(wrong());
        }
        Ok(key)
    }

    /// The text with the secret, to be stored where nobody else can read it.
    pub fn secret_text(&self) -> String {
        let seed = STANDARD.encode([&[TYPE], &self.seed[..]].concat());
        format!("{SECRET}{}+{}+{seed}", self.public.name, hex(&self.public.id()))
    }

    /// The key that checks what this one signs.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The note of a text, which ends with a line feed.
    pub(crate) fn sign(&self, text: &str) -> String {
        sign_all(text, &[self])
    }

    /// The line with the signature of a text.
    fn signature(&self, text: &str) -> String {
        let signature = self.pair.sign(text.as_bytes());
        signature_line(&self.public.name, &[&self.public.id(), signature.as_ref()].concat()) + "\n"
    }
}

/// A line with a signature, which begins with the id of its key.
pub(crate) fn signature_line(name: &str, signature: &[u8]) -> String {
    format!("{SIGNATURE}{name} {}", STANDARD.encode(signature))
}

/// The note of a text, which ends with a line feed, with the signatures of these keys in this order.
pub(crate) fn sign_all(text: &str, keys: &[&SecretKey]) -> String {
    let signatures: String = keys.iter().map(|key| key.signature(text)).collect();
    format!("{text}\n{signatures}")
}

/// The text of a note that these keys, in this order, and nobody else have signed: what others added would be shown to
/// readers who take the file for something else, such as a page, and would have passed every check.
///
/// # Errors
/// When it is no note, or a signature is missing, wrong or one too many.
pub(crate) fn open_all<'n>(note: &'n str, keys: &[&PublicKey]) -> Result<&'n str, StatementError> {
    let (text, signatures) = split(note)?;
    let lines: Vec<&str> = signatures.strip_suffix('\n').unwrap_or_default().split('\n').collect();
    if lines.len() != keys.len() || signatures.contains('\r') {
        let count = keys.len();
        return Err(StatementError::form(format!("the number of its signatures is not {count}")));
    }
    for (key, line) in keys.iter().zip(lines) {
        if !key.has_signed(text, line)? {
            return Err(StatementError::Signature { key: key.to_string() });
        }
    }
    Ok(text)
}

/// The text of a note that one of these keys has signed first, that key, and the lines of all other signatures.
///
/// # Errors
/// When it is no note, or none of the keys has signed it first.
pub(crate) fn open_first<'n, 'k>(
    note: &'n str,
    keys: &[&'k PublicKey],
) -> Result<(&'n str, &'k PublicKey, Vec<&'n str>), StatementError> {
    let (text, signatures) = split(note)?;
    let mut lines = signatures.strip_suffix('\n').unwrap_or_default().split('\n');
    let first = lines.next().unwrap_or_default();
    for key in keys {
        if key.has_signed(text, first)? {
            return Ok((text, key, lines.collect()));
        }
    }
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    Err(StatementError::Signature { key: keys.join(" or ") })
}

/// The text of a note, whoever has signed it.
///
/// # Errors
/// When it is no note.
pub(crate) fn text_of(note: &str) -> Result<&str, StatementError> {
    Ok(split(note)?.0)
}

/// 32 random bytes of the system.
pub(crate) fn random() -> Result<[u8; 32], StatementError> {
    let mut bytes = [0; 32];
    let none = |_| StatementError::Key("the system has no random bytes".to_owned());
    SystemRandom::new().fill(&mut bytes).map_err(none)?;
    Ok(bytes)
}

pub(crate) fn check_name(name: &str) -> Result<(), StatementError> {
    let is_usual = |letter: char| letter.is_ascii_graphic() && !"+<>&\"'`\\".contains(letter);
    if name.is_empty() || !name.chars().all(is_usual) {
        return Err(StatementError::Key(format!(
            "{name:?} cannot be the name of a key: it has letters, digits, and signs such as `.`, `-` and `/`; take one \
             that says who signs, such as `billing.example.com/node1`"
        )));
    }
    Ok(())
}

/// The text and the signatures of a note.
fn split(note: &str) -> Result<(&str, &str), StatementError> {
    let Some(border) = note.rfind("\n\n") else { return Err(StatementError::form("it has no signature")) };
    let (text, signatures) = (&note[..=border], &note[border + 2..]);
    if !signatures.ends_with('\n') || text.contains(|letter: char| letter.is_control() && letter != '\n') {
        return Err(StatementError::form("its lines are not those of a signed note"));
    }
    Ok((text, signatures))
}

/// Name and content of a line with a signature.
pub(crate) fn signature_of(line: &str) -> Result<(&str, Vec<u8>), StatementError> {
    let parts = line.strip_prefix(SIGNATURE).and_then(|line| line.split_once(' '));
    let decoded = parts.and_then(|(name, signature)| Some((name, STANDARD.decode(signature).ok()?)));
    decoded
        .filter(|(_, signature)| signature.len() > ID_BYTES)
        .ok_or_else(|| StatementError::form(format!("{line:?} is no signature")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of C2SP's signed-note, which others made.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_of_others_is_opened() {
        let key = PublicKey::parse(KEY).unwrap();
        assert_eq!(key.name(), "PeterNeumann");
        assert_eq!(key.to_string(), KEY);
        assert!(key.open(NOTE).unwrap().ends_with("your problem is.\n"));
        for changed in [
            NOTE.replace("problem,", "problem."),
            NOTE.replace("x08go", "x08gp"),
            NOTE.replace("\u{2014} PeterNeumann", "\u{2014} PeterNeuman"),
            NOTE.replace('\u{2014}', "-"),
            NOTE.trim_end().to_owned(),
            NOTE.replace("\n\n", "\n"),
        ] {
            assert!(key.open(&changed).is_err(), "{changed}");
        }
    }

    #[test]
    fn what_a_key_signs_it_opens_and_no_other_does() {
        let key = SecretKey::new("node1.example.com/bill", [7; 32]).unwrap();
        let note = key.sign("two\n\nparts\n");
        assert_eq!(key.public().open(&note).unwrap(), "two\n\nparts\n");
        let other = SecretKey::new("node1.example.com/bill", [8; 32]).unwrap();
        assert!(other.public().open(&note).is_err());
        let again = SecretKey::parse(&key.secret_text()).unwrap();
        assert_eq!(again.sign("x\n"), key.sign("x\n"));
        assert_eq!(PublicKey::parse(&key.public().to_string()).unwrap(), *key.public());
        assert!(!format!("{key:?}").contains("PRIVATE"));
        assert_ne!(
            SecretKey::generate("a").unwrap().secret_text(),
            SecretKey::generate("a").unwrap().secret_text()
        );
    }

    #[test]
    fn keys_that_are_none_are_refused_without_being_shown() {
        let key = SecretKey::new("a", [7; 32]).unwrap();
        let secret = key.secret_text();
        for (at, _) in secret.char_indices() {
            assert!(SecretKey::parse(&secret[..at]).is_err(), "{at}");
        }
        let error = SecretKey::parse(&secret.replace("+a+", "+b+")).unwrap_err().to_string();
        assert!(!error.contains(&secret[20..]), "{error}");
        for name in ["", "a b", "a+b", "a\nb", "a\u{a0}b"] {
            assert!(SecretKey::generate(name).is_err(), "{name:?}");
        }
        for text in ["", "a", "a+b", "a+b+c", KEY.trim_end_matches("10TW"), &KEY.replace("c74f", "c74e")] {
            assert!(PublicKey::parse(text).is_err(), "{text}");
        }
    }
}
