//! Amounts of bytes and lengths of time: the one parser and the one formatter for options, configuration and
//! output.
//!
//! Bytes: `B`, `k`/`kB`, `M`/`MB`, `G`/`GB`, `T`/`TB`, `P`/`PB` are powers of 1000; `KiB` to `PiB` are powers
//! of 1024. A small `b` is refused, because it usually means bits. Durations: a number alone is seconds;
//! `ms`, `s`, `m`, `h` and `d` may be combined. Months have no fixed length, so they are read apart and never
//! converted.
//!
//! Volumes and rates for people have three digits and powers of 1000, as on the web page. Addresses are in
//! [`notation`](crate::notation).

mod bytes;
mod durations;
mod short;

pub use bytes::{format_bytes, parse_bytes, parse_signed_bytes};
pub use durations::{
    DurationRange, format_duration, parse_days, parse_duration, parse_months, parse_repeat_interval,
};

pub use short::{count, percent, rate, volume};

/// An amount that cannot be used: what was written, why it is refused, and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}; {accepted}")]
pub struct InvalidAmount {
    text: String,
    problem: &'static str,
    accepted: String,
}

impl InvalidAmount {
    pub(crate) fn new(text: &str, problem: &'static str, accepted: impl Into<String>) -> Self {
        Self { text: text.to_owned(), problem, accepted: accepted.into() }
    }
}
