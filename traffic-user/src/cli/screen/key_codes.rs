//! The bytes by which terminals name keys. Pure: bytes go in, keys come out.

use crate::render::screen::Key;

const ESCAPE: u8 = 0x1b;
/// No key has a longer name.
const LONGEST: usize = 32;

/// Reads keys out of bytes, however these are divided.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The beginning of a key whose end is missing.
    begun: Vec<u8>,
}

impl Decoder {
    /// Whether the last key is not complete. If nothing follows soon, it was Escape alone.
    pub fn is_waiting(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Ends the key that has begun, because nothing followed.
    pub fn time_out(&mut self) -> Option<Key> {
        (std::mem::take(&mut self.begun) == [ESCAPE]).then_some(Key::Escape)
    }

    /// Takes bytes, and returns the keys that are complete. Unknown keys are left out.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Key> {
        let mut keys = Vec::new();
        for &byte in bytes {
            self.next(byte, &mut keys);
        }
        keys
    }

    fn next(&mut self, byte: u8, keys: &mut Vec<Key>) {
        match self.begun.as_slice() {
            [] => self.first(byte, keys),
            [ESCAPE] if matches!(byte, b'[' | b'O') => self.begun.push(byte),
            // A slow connection delivers Escape and the key after it together.
            [ESCAPE] => {
                keys.push(Key::Escape);
                self.anew(byte, keys);
            }
            // The Linux console: ESC [ [ A.
            [ESCAPE, b'[', b'['] => self.end(if byte == b'A' { Some(Key::Char('?')) } else { None }, keys),
            [ESCAPE, b'['] if byte == b'[' => self.begun.push(byte),
            [ESCAPE, kind, number @ ..] => match byte {
                b' '..=b'?' if *kind == b'[' && number.len() < LONGEST => self.begun.push(byte),
                b'@'..=b'~' => self.end(named(number, byte), keys),
                // Not a key's name after all.
                _ => self.anew(byte, keys),
            },
            [_, ..] => self.character(byte, keys),
        }
    }

    fn end(&mut self, key: Option<Key>, keys: &mut Vec<Key>) {
        self.begun.clear();
        keys.extend(key);
    }

    fn anew(&mut self, byte: u8, keys: &mut Vec<Key>) {
        self.begun.clear();
        self.first(byte, keys);
    }

    fn first(&mut self, byte: u8, keys: &mut Vec<Key>) {
        let key = match byte {
            ESCAPE | 0x80.. => {
                self.begun.push(byte);
                return;
            }
            b'\r' | b'\n' => Key::Enter,
            b'\t' => Key::Tab,
            // Which of both a terminal sends is a matter of its settings.
            0x7f | 0x08 => Key::Backspace,
            1..=26 => Key::Ctrl(char::from(byte - 1 + b'a')),
            b' '..=b'~' => Key::Char(char::from(byte)),
            _ => return,
        };
        keys.push(key);
    }

    /// One more byte of a character of several. A byte that cannot belong to it begins something new.
    fn character(&mut self, byte: u8, keys: &mut Vec<Key>) {
        self.begun.push(byte);
        match std::str::from_utf8(&self.begun) {
            Ok(text) => {
                let key = text.chars().next().filter(|c| !c.is_control()).map(Key::Char);
                self.end(key, keys);
            }
            Err(error) if error.error_len().is_none() => {}
            Err(_) if byte & 0xc0 == 0x80 => self.begun.clear(),
            Err(_) => self.anew(byte, keys),
        }
    }
}

/// The key of `ESC [ NUMBER LAST` or `ESC O LAST`. A modifier follows the number, and changes nothing.
fn named(number: &[u8], last: u8) -> Option<Key> {
    let number = number.split(|byte| *byte == b';').next()?;
    Some(match (number, last) {
        (_, b'A') => Key::Up,
        (_, b'B') => Key::Down,
        (_, b'H') | (b"1" | b"7", b'~') => Key::Home,
        (_, b'F') | (b"4" | b"8", b'~') => Key::End,
        (b"5", b'~') => Key::PageUp,
        (b"6", b'~') => Key::PageDown,
        (b"", b'M') => Key::Enter,
        // F1 and F10.
        (_, b'P') | (b"11", b'~') => Key::Char('?'),
        (b"21", b'~') => Key::Char('q'),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All keys of some bytes that come in the given parts, each after the other's time.
    fn keys(parts: &[&[u8]]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        let mut keys: Vec<Key> = parts.iter().flat_map(|part| decoder.take(part)).collect();
        keys.extend(decoder.time_out());
        assert!(!decoder.is_waiting());
        keys
    }

    #[test]
    fn every_terminal_names_its_keys() {
        for (names, key) in [
            (&["q"][..], Key::Char('q')),
            (&["\x1b[A", "\x1bOA", "\x1b[1;5A"], Key::Up),
            (&["\x1b[B", "\x1bOB"], Key::Down),
            (&["\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~"], Key::Home),
            (&["\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~"], Key::End),
            (&["\x1b[5~", "\x1b[5;2~"], Key::PageUp),
            (&["\x1b[6~"], Key::PageDown),
            (&["\x1b[[A", "\x1bOP", "\x1b[11~", "?"], Key::Char('?')),
            (&["\x1b[21~"], Key::Char('q')),
            (&["\r", "\n", "\x1bOM"], Key::Enter),
            (&["\x7f", "\x08"], Key::Backspace),
            (&["\t"], Key::Tab),
            (&["\x03"], Key::Ctrl('c')),
            (&["\x1a"], Key::Ctrl('z')),
            (&["ü"], Key::Char('ü')),
            (&["日"], Key::Char('日')),
            (&["😀"], Key::Char('😀')),
            (&["\x1b"], Key::Escape),
        ] {
            for name in names {
                assert_eq!(keys(&[name.as_bytes()]), [key], "{name:?}");
                // Byte by byte, and with a key behind it.
                let single: Vec<&[u8]> = name.as_bytes().chunks(1).collect();
                assert_eq!(keys(&single), [key], "{name:?}");
                if key != Key::Escape {
                    assert_eq!(keys(&[name.as_bytes(), b"x"]), [key, Key::Char('x')], "{name:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_known_key_does_nothing_and_takes_nothing_with_it() {
        let x = Key::Char('x');
        for bytes in [
            // Delete, Left, the mouse of some terminals, focus, shift and tabulator, F2, NUL, FS.
            &b"\x1b[3~"[..],
            b"\x1b[D",
            b"\x1b[<0;10;5M",
            b"\x1b[I",
            b"\x1b[Z",
            b"\x1b[12~",
            b"\x1bOQ",
            b"\0",
            b"\x1c",
            // Latin-1, a character that is cut off, one that is too long for its value, a C1 control character.
            b"\xfc",
            b"\xe6\x97",
            b"\xc0\x80",
            b"\xc2\x9b",
            b"\x1b[",
            b"\x1b[5",
        ] {
            let mut decoder = Decoder::default();
            assert_eq!(decoder.take(bytes), [], "{bytes:?}");
            assert_eq!(decoder.time_out(), None, "{bytes:?}");
            assert_eq!(decoder.take(b"x"), [x], "{bytes:?}");
        }
        assert_eq!(keys(&[b"\xfcx", b"\xe6\x97x"]), [x, x]);
        assert_eq!(keys(&[b"\x1b[", &[b'1'; 100], b"Ax"]).last(), Some(&x));
        assert_eq!(keys(&[b"\x1b\x1b[Aq"]), [Key::Escape, Key::Up, Key::Char('q')]);
        assert_eq!(keys(&[b"\x1bq"]), [Key::Escape, Key::Char('q')]);
        assert_eq!(keys(&[b"\x1b[\x1b[B"]), [Key::Down]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(0_u8.., 0..200), at in 0_usize..200) {
            let at = at.min(bytes.len());
            let mut parted = Decoder::default();
            let mut first = parted.take(&bytes[..at]);
            first.extend(parted.take(&bytes[at..]));
            let mut whole = Decoder::default();
            assert_eq!(whole.take(&bytes), first);
            assert!(whole.begun.len() <= LONGEST + 3);
            whole.time_out();
            assert_eq!(whole.take(b"q"), [Key::Char('q')]);
        }
    }
}
