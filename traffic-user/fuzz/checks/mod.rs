//! Properties that hold for any content of files that others write. A check panics if a property is violated.
//!
//! The fuzzers run the checks on generated input; `tests/fuzz_corpus.rs` runs them on the corpus.

// Each fuzzer uses one check.
#![allow(dead_code)]

pub mod classes;
pub mod vz_conf;
pub mod vznetstat;
