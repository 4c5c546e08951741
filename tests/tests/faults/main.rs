//! Faults: what must hold when something fails, with no more privileges than the service has.
//!
//! Every test ends with figures equal to those of a witness, or with a gap of the exact size, and with a
//! daemon that has recovered by itself.

mod bypass;
mod carry_over;
mod churn;
mod counting;
mod excess;
mod hidden;
mod hooks;
mod kills;
mod limits;
mod node;
mod privileges;
mod service;
mod shadow;
mod soak;
mod stopping;
mod unit;
mod wipe;
