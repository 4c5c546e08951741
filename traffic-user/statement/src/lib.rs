//! Statements: what a container carried in a closed month, signed, and checked by whoever receives it.
//!
//! It owns the formats of `docs/statement.md`: the canonical document, the signature, and the log in which each
//! closed month, each correction and each change of the key is a leaf. It knows no ledger and no files: figures go in, texts come out, and
//! back.
//!
//! - `canonical`: JSON of which each value has one text (RFC 8785).
//! - `note`: texts with signatures, and their keys (C2SP signed-note).
//! - `keys`: changes of the key that signs.
//! - `merkle`: trees of hashes, and proofs that something is in them (RFC 9162).
//! - `log`: what the leaves of the log are, and its proofs (C2SP tlog-proof).
//! - `checkpoint`, `cosignature`: states of the log, their order, and who has seen them (C2SP tlog-checkpoint,
//!   tlog-cosignature).
//! - `document`: the parts of a statement.
//! - `issue`, `verify`: from figures to a statement, and back with all checks.

mod canonical;
mod checkpoint;
mod cosignature;
mod document;
mod error;
mod issue;
mod keys;
mod log;
mod merkle;
mod note;
mod page;
#[cfg(test)]
mod tests;
mod verify;

pub use checkpoint::{Checkpoint, Update};
pub use cosignature::{Cosignature, WitnessKey};
pub use document::{
    Amounts, Calibration, ClassTable, ClosedRate, ClosedRow, Counts, Day, Document, Dropped, DroppedRow,
    FaultRow, GapLine, Period, Record, SignedCounts, Sum,
};
pub use error::StatementError;
pub use issue::{Facts, Issuing, issue};
pub use keys::{KeyHistory, Revoked, revocation, rotation};
pub use log::{Entry, Kind, Log, Salts};
pub use note::{PublicKey, SecretKey};
pub use page::{InPage, PAGE, page_of, statement_in};
pub use verify::{Verified, verify};
