//! What must hold whatever stands in a file that somebody else has written. The fuzzers run these with what they make up, and
//! an ordinary test runs them with the corpus: a check panics where something does not hold.

// Each fuzzer uses one of them.
#![allow(dead_code)]

pub mod classes;
pub mod vz_conf;
pub mod vznetstat;
