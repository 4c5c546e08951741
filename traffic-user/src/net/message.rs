//! The bytes of netlink messages: headers and attributes. Pure.
//!
//! Libraries that decode whole messages refuse one whose attribute they cannot parse, such as an alias that
//! is not UTF-8. Here an attribute that is not asked for is never looked at.

use std::io;

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// Messages and attributes begin at multiples of this.
const ALIGN: usize = 4;

/// `NLMSG_ERROR`: a refusal, or with code 0 an acknowledgement.
pub(super) const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(super) const DONE: u16 = 3;
/// `NLM_F_REQUEST`
pub(super) const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`
pub(super) const ACK: u16 = 0x4;
/// `NLM_F_ECHO`: the answer comes to the sender too, and not only to those who follow changes.
pub(super) const ECHO: u16 = 8;
/// `NLM_F_DUMP_INTR`: what is dumped changed meanwhile, so that the dump may lack parts.
pub(super) const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP`
pub(super) const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`
pub(super) const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`
pub(super) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`
pub(super) const CREATE: u16 = 0x400;
/// The bits of an attribute's type that are flags: `NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`.
const ATTRIBUTE_FLAGS: u16 = 0xc000;

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGN)
}

/// A number at an offset; `None` where the bytes end before.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// As [`u16_at`].
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// As [`u16_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A request under construction.
#[derive(Clone, Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// Begins a request of a kind (`RTM_*`) with its fixed part.
    pub(super) fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(body);
        bytes.resize(aligned(bytes.len()), 0);
        Self(bytes)
    }

    /// Adds an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        append_attribute(&mut self.0, kind, value);
        self
    }

    /// Adds an attribute that holds others.
    pub(super) fn nested(mut self, kind: u16, inner: &[(u16, &[u8])]) -> Self {
        let mut value = Vec::new();
        for (kind, inner) in inner {
            append_attribute(&mut value, *kind, inner);
        }
        append_attribute(&mut self.0, kind, &value);
        self
    }

    /// The bytes to send, under a sequence number.
    pub(super) fn finish(mut self, sequence: u32) -> io::Result<Vec<u8>> {
        let length = u32::try_from(self.0.len()).map_err(io::Error::other)?;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(self.0)
    }
}

/// Adds an attribute to others.
pub(super) fn append_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Names, ids and file descriptors: nothing here is near 64 KiB.
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(aligned(bytes.len()), 0);
}

/// A received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'b> {
    /// `RTM_*`, [`ERROR`] or [`DONE`].
    pub kind: u16,
    /// `NLM_F_*`
    pub flags: u16,
    /// The request that it answers; 0 for an event.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'b [u8],
}

impl Message<'_> {
    /// The errno of an [`ERROR`] message as a positive number, 0 for an acknowledgement.
    pub(super) fn errno(&self) -> i32 {
        u32_at(self.body, 0).map_or(libc::EPROTO, |code| code.cast_signed().wrapping_neg())
    }
}

/// The messages in a datagram. One whose length cannot be right ends the iteration: nothing after it can be
/// found.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        if length < HEADER || length > rest.len() {
            return None;
        }
        let message = Message {
            kind: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
            sequence: u32_at(rest, 8)?,
            body: &rest[HEADER..length],
        };
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`, by type without flags. A length that cannot be right ends the iteration.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        if length < ATTRIBUTE_HEADER || length > rest.len() {
            return None;
        }
        let kind = u16_at(rest, 2)? & !ATTRIBUTE_FLAGS;
        let value = &rest[ATTRIBUTE_HEADER..length];
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_read_back_as_it_was_built() {
        let bytes = Request::new(18, DUMP, &[7; 5])
            .attribute(3, b"veth101.0\0")
            .nested(18, &[(1, b"veth"), (2, b"")])
            .finish(9)
            .unwrap();
        let found: Vec<_> = messages(&bytes).collect();
        assert_eq!(found.len(), 1);
        let message = found[0];
        assert_eq!((message.kind, message.flags, message.sequence), (18, DUMP | REQUEST, 9));
        assert_eq!(message.body[..8], [7, 7, 7, 7, 7, 0, 0, 0]);
        let attributes_found: Vec<_> = attributes(&message.body[8..]).collect();
        assert_eq!(attributes_found[0], (3, &b"veth101.0\0"[..]));
        assert_eq!(attributes(attributes_found[1].1).collect::<Vec<_>>(), [(1, &b"veth"[..]), (2, &b""[..])]);
    }

    #[test]
    fn flags_of_an_attribute_are_not_part_of_its_type() {
        let mut bytes = Vec::new();
        append_attribute(&mut bytes, 52 | 0x8000, &[1]);
        assert_eq!(attribute(&bytes, 52), Some(&[1][..]));
    }

    #[test]
    fn an_error_code_is_the_negated_errno() {
        let body = (-libc::ENODEV).to_ne_bytes();
        let message = Message { kind: ERROR, flags: 0, sequence: 1, body: &body };
        assert_eq!(message.errno(), libc::ENODEV);
        assert_eq!(Message { body: &[0; 4], ..message }.errno(), 0);
        assert_eq!(Message { body: &[], ..message }.errno(), libc::EPROTO);
    }

    proptest! {
        /// Whatever the bytes, reading ends and stays within them.
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let total: usize = messages(&bytes).map(|message| message.body.len()).sum();
            prop_assert!(total <= bytes.len());
            let total: usize = attributes(&bytes).map(|(_, value)| value.len()).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
