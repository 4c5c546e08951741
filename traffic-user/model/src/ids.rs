//! Container ids, and bytes as hexadecimal text.

use std::fmt;

use jiff::Timestamp;

/// A container's id as text: a number or a UUID, never empty, at most 63 bytes. `0` is the node itself. An id
/// that begins with `pending:` is that of an owner who is not known yet ([`ContainerId::pending`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

/// The id of the node itself.
pub const NODE_ID: &str = "0";

/// How the ids of pending owners begin.
const PENDING: &str = "pending:";

fn is_uuid(text: &str) -> bool {
    let digit_or_dash = |(at, b): (usize, u8)| {
        if matches!(at, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() }
    };
    text.len() == 36 && text.bytes().enumerate().all(digit_or_dash)
}

/// Whether a text is the id of an owner that is not known yet.
pub fn is_pending(id: &str) -> bool {
    id.starts_with(PENDING)
}

/// Characters of an interface's name in the id of its pending owner: as many as the kernel allows.
const LONGEST_NAME: usize = 15;

/// Why a text is not a container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("container id {id:?} is not usable: {reason}")]
pub struct InvalidContainerId {
    /// The text.
    pub id: String,
    /// What is wrong; what to do.
    pub reason: &'static str,
}

impl ContainerId {
    /// Accepts letters, digits, `-`, `_`, `.` and `:`. Braces are removed, and a UUID is converted to lower
    /// case.
    ///
    /// # Errors
    /// When the id is empty, longer than its place in the maps, or contains other characters (ids are printed
    /// in columns that blanks separate).
    pub fn new(id: &str) -> Result<Self, InvalidContainerId> {
        let invalid = |reason| InvalidContainerId { id: id.to_owned(), reason };
        let bare = id.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(id);
        if bare.is_empty() {
            return Err(invalid("it is empty"));
        }
        if bare.len() >= traffic_common::CONTAINER_ID_BYTES {
            return Err(invalid("it is longer than 63 bytes"));
        }
        if !bare.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b)) {
            return Err(invalid("it may contain only letters, digits and - _ . :"));
        }
        Ok(Self(if is_uuid(bare) { bare.to_ascii_lowercase() } else { bare.to_owned() }))
    }

    /// Accepts the id of a container or a machine: as [`Self::new`], but not `0`, which is the node itself.
    ///
    /// # Errors
    /// As [`Self::new`], and when the id is the node's.
    pub fn of_container(id: &str) -> Result<Self, InvalidContainerId> {
        let valid = Self::new(id)?;
        if valid.0.bytes().all(|b| b == b'0') {
            let reason = "it is the node itself; its interfaces are listed under [node] uplinks";
            return Err(InvalidContainerId { id: id.to_owned(), reason });
        }
        if valid.is_pending() {
            let reason = "trafctl uses it for an interface whose container is not known yet";
            return Err(InvalidContainerId { id: id.to_owned(), reason });
        }
        Ok(valid)
    }

    /// The id under which an interface is counted while its container is unknown: its name, its index, and when
    /// that began, in seconds since the Unix epoch. It is unique as long as no interface has the same name and
    /// index twice within a second.
    pub fn pending(name: &str, ifindex: u32, since_unix_s: u64) -> Self {
        let start = Self::pending_of(name, ifindex);
        let since = i64::try_from(since_unix_s).ok().and_then(|since| Timestamp::from_second(since).ok());
        let since = since.unwrap_or_default().strftime("%Y%m%dT%H%M%SZ");
        Self(format!("{start}{since}"))
    }

    /// How the ids of pending owners of interfaces with this name and index begin.
    pub fn pending_of(name: &str, ifindex: u32) -> String {
        let usable = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let name: String = name.chars().take(LONGEST_NAME).map(usable).collect();
        format!("{PENDING}{name}:{ifindex}:")
    }

    /// Whether it is the id of an owner that is not known yet.
    pub fn is_pending(&self) -> bool {
        is_pending(&self.0)
    }

    /// The node's id, `0`.
    pub fn node() -> Self {
        Self(NODE_ID.to_owned())
    }

    /// Whether it is the node's id.
    pub fn is_node(&self) -> bool {
        self.0 == NODE_ID
    }

    /// Whether it is a UUID in its canonical form.
    pub fn is_uuid(&self) -> bool {
        is_uuid(&self.0)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_normalised_or_refused() {
        let id = |text: &str| ContainerId::new(text).map(|id| id.to_string());
        assert_eq!(id("101"), Ok("101".to_owned()));
        assert_eq!(
            id("{6D1E1C39-63E6-4A2B-8EF4-1B7A1D2F3C4D}"),
            Ok("6d1e1c39-63e6-4a2b-8ef4-1b7a1d2f3c4d".to_owned())
        );
        assert_eq!(id("Web-Server"), Ok("Web-Server".to_owned()), "only UUIDs ignore case");
        for bad in ["", "{}", "a b", "a\tb", "ä", &"x".repeat(64)] {
            assert!(id(bad).is_err(), "{bad:?}");
        }
        assert!(ContainerId::new("0").unwrap().is_node());
        assert!(!ContainerId::new("10").unwrap().is_node());
        for node in ["0", "00"] {
            let error = ContainerId::of_container(node).unwrap_err().to_string();
            assert!(error.contains("is the node itself"), "{error}");
        }
    }

    #[test]
    fn a_pending_owner_has_an_id_that_nobody_can_give() {
        let id = ContainerId::pending("veth1a2b3c", 17, 1_795_905_930);
        assert_eq!(id.as_str(), "pending:veth1a2b3c:17:20261128T224530Z");
        assert!(id.is_pending() && is_pending(id.as_str()));
        assert!(id.as_str().starts_with(&ContainerId::pending_of("veth1a2b3c", 17)));
        // What the kernel allows in a name, with an index and a time of full length.
        let odd = ContainerId::pending("\\xe9<@ä234567890abcdef", u32::MAX, u64::MAX);
        assert_eq!(ContainerId::new(odd.as_str()), Ok(odd.clone()), "it has its place in the maps");
        assert!(!ContainerId::new("pendingveth").unwrap().is_pending());
        let error = ContainerId::of_container(odd.as_str()).unwrap_err().to_string();
        assert!(error.contains("is not known yet"), "{error}");
    }
}
