//! Why a statement cannot be made, or is refused.

/// Why a statement cannot be made, or is refused.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// A key, or the name of one, is not in its format.
    #[error("{0}")]
    Key(String),
    /// The text is no signed note, or no statement.
    #[error("this is no statement of trafctl: {0}")]
    Form(String),
    /// The text was changed, or another key signed it.
    #[error("the signature is not that of {key}: the text was changed, or another key signed it")]
    Signature {
        /// The key that should have signed.
        key: String,
    },
    /// Another key than the expected one signed.
    #[error("signed by {found}, and not by {expected}")]
    OtherKey {
        /// The key named in the statement.
        found: String,
        /// The key that was given.
        expected: String,
    },
    /// A key that was to count no longer signed, or was to be the one that signs.
    #[error("{key} was revoked from {from} on: {reason}{then}")]
    Revoked {
        /// The key.
        key: String,
        /// From when on.
        from: String,
        /// Why.
        reason: String,
        /// What follows from that here.
        then: String,
    },
    /// A witness has not seen it.
    #[error("{0}")]
    Witness(String),
    /// Two texts of the same issuer show two logs.
    #[error("two histories were shown: {0}; keep both files, which prove it")]
    TwoHistories(String),
    /// Signed, but its parts do not agree.
    #[error("the parts of the statement contradict each other: {0}")]
    Contradiction(String),
    /// It cannot be made from these figures.
    #[error("the statement cannot be made: {0}")]
    Facts(String),
}

impl StatementError {
    pub(crate) fn form(what: impl std::fmt::Display) -> Self {
        Self::Form(what.to_string())
    }
}
