//! The life of a node as an operator lives it: attaching, following, reloading, crashing, detaching, and being wrong.
//!
//! Every test ends with what the senders counted, or another witness that knows nothing of trafctl, and with the
//! balance of [`Counters::at_rest`](traffic_tests::Counters::at_rest): classes + faults = passed.

mod attach;
mod cli;
mod clsact;
mod daemon;
mod detach;
mod files;
mod hosts;
mod interfaces;
mod load;
mod node;
mod reload;
mod results;
mod resync;
mod shaping;
mod slots;
mod top;
mod uplink;
