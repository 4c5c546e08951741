//! A mail as RFC 5322 has it, for the node's own `sendmail`. Whatever a container is called, a header is one
//! header.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{Timestamp, fmt::rfc2822};
use sha2::{Digest as _, Sha256};
use traffic_model::hex;

/// Longest line of a header, in bytes, as RFC 2047 has it for encoded words.
const LONGEST_LINE: usize = 76;
/// Bytes of text in an encoded word: 45 become 60 characters, beside 12 of `=?UTF-8?B?` and `?=`.
const IN_WORD: usize = 45;
/// Longest line of a text that need not be encoded.
const LONGEST_PLAIN: usize = 900;
/// The most characters of a subject.
const MOST_SUBJECT: usize = 250;

/// A mail.
#[derive(Clone, Debug)]
pub struct Mail<'a> {
    /// The recipients, as checked.
    pub to: &'a [String],
    /// The sender, as checked; that of the mail system without.
    pub from: Option<&'a str>,
    /// The same in each attempt.
    pub id: &'a str,
    /// When it is sent.
    pub date: Timestamp,
    /// The subject.
    pub subject: &'a str,
    /// The text.
    pub text: &'a str,
}

impl Mail<'_> {
    /// As `sendmail -t` reads it, with ends of lines as on this machine.
    pub fn message(&self) -> Vec<u8> {
        let mut head = String::new();
        if let Some(from) = self.from {
            head += &format!("From: {from}\n");
        }
        head += &format!("To: {}\n", self.to.join(",\n "));
        head += &format!("Subject: {}\n", unstructured(&one_line(self.subject), "Subject: ".len()));
        let date = rfc2822::to_string(&self.date.to_zoned(jiff::tz::TimeZone::UTC));
        if let Ok(date) = date {
            head += &format!("Date: {date}\n");
        }
        // Of mails with one id, programs show the first.
        head += &format!("Message-ID: <{}@trafctl.invalid>\n", &hex(&Sha256::digest(self.id))[..32]);
        head +=
            "Auto-Submitted: auto-generated\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n";
        let is_plain = self.text.is_ascii() && self.text.lines().all(|line| line.len() <= LONGEST_PLAIN);
        let text = match is_plain {
            true => format!("{head}Content-Transfer-Encoding: 7bit\n\n{}", self.text),
            false => format!("{head}Content-Transfer-Encoding: base64\n\n{}", in_lines(self.text)),
        };
        text.into_bytes()
    }
}

/// A text without line breaks and other control characters, of bounded length.
fn one_line(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = spaced.split_whitespace().collect();
    words.join(" ").chars().take(MOST_SUBJECT).collect()
}

/// The value of a header of free text: as it is, or as encoded words.
fn unstructured(text: &str, begin: usize) -> String {
    let is_plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    // A text that looks like an encoded word would be shown decoded.
    if is_plain && begin + text.len() <= LONGEST_LINE && !text.contains("=?") {
        return text.to_owned();
    }
    let mut words = Vec::new();
    let mut word = String::new();
    for character in text.chars() {
        // A character is never divided.
        if word.len() + character.len_utf8() > IN_WORD {
            words.push(std::mem::take(&mut word));
        }
        word.push(character);
    }
    words.push(word);
    let encoded = words.iter().map(|word| format!("=?UTF-8?B?{}?=", STANDARD.encode(word)));
    // In lines of their own, as the first one stands behind the name.
    encoded.collect::<Vec<_>>().join("\n ")
}

fn in_lines(text: &str) -> String {
    let encoded = STANDARD.encode(text);
    let mut lines = String::new();
    for (at, character) in encoded.chars().enumerate() {
        if at > 0 && at % LONGEST_LINE == 0 {
            lines.push('\n');
        }
        lines.push(character);
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(subject: &str, text: &str) -> String {
        let to = ["noc@example.net".to_owned(), "root".to_owned()];
        let date = "2026-11-12T09:13:00Z".parse().unwrap();
        let mail = Mail { to: &to, from: Some("trafctl@n7"), id: "l1/x", date, subject, text };
        String::from_utf8(mail.message()).unwrap()
    }

    #[test]
    fn a_plain_mail_is_readable_as_it_is() {
        assert_eq!(
            mail("[n7] 101 has reached 80 %", "Used: 1 GB\n.\nFrom here\n"),
            "From: trafctl@n7\nTo: noc@example.net,\n root\nSubject: [n7] 101 has reached 80 %\n\
             Date: Thu, 12 Nov 2026 09:13:00 +0000\nMessage-ID: <27c7154df6fb6db6d5523c259eb770ad@trafctl.invalid>\n\
             Auto-Submitted: auto-generated\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n\
             Content-Transfer-Encoding: 7bit\n\nUsed: 1 GB\n.\nFrom here\n"
        );
    }

    #[test]
    fn no_name_makes_a_header_of_its_own() {
        for name in
            ["a\nBcc: x@y", "a\r\n\r\nBcc: x@y", "a\u{85}Bcc: x@y", "a\u{2028}Bcc: x@y", "a\0b\x0b\x0cBcc: x"]
        {
            let message = mail(&format!("shop {name}"), "text\n");
            let (head, _) = message.split_once("\n\n").unwrap();
            for line in head.lines().filter(|line| !line.starts_with(' ')) {
                let (key, _) = line.split_once(": ").unwrap();
                assert!(!key.contains("Bcc"), "{message}");
            }
            assert_eq!(head.lines().filter(|line| line.starts_with("Subject: ")).count(), 1);
        }
    }

    #[test]
    fn long_and_foreign_texts_are_encoded_in_short_lines_of_ascii() {
        let long = "\u{20ac}".repeat(400);
        for subject in [long.as_str(), &"x".repeat(300), "=?UTF-8?B?eA==?=", "\u{416}"] {
            let message = mail(subject, &format!("{long}\n"));
            assert!(message.is_ascii() && message.lines().all(|line| line.len() <= 85), "{message}");
            assert!(message.contains("Subject: =?UTF-8?B?"), "{message}");
        }
        assert!(mail("a", &"x".repeat(2000)).contains("Transfer-Encoding: base64\n\neHh4"));
    }
}
