//! What must hold when things go wrong, and with no more privilege than the service has.
//!
//! Every test ends with figures that are equal to a witness's, or with a gap of the right size, and with a daemon that
//! has recovered by itself.

mod churn;
mod counting;
mod hooks;
mod kills;
mod limits;
mod node;
mod privileges;
mod service;
mod soak;
mod unit;
mod wipe;
