//! The life of a node: attach, follow, reload, crash, detach, and wrong input.
//!
//! Every test ends with a comparison with the senders' counts or another independent witness, and with the
//! balance of [`Counters::at_rest`](traffic_tests::Counters::at_rest): interface traffic = classes + faults.

mod attach;
mod cli;
mod clsact;
mod components;
mod configuration;
mod daemon;
mod detach;
mod devices;
mod files;
mod hosts;
mod inputs;
mod interfaces;
mod load;
mod loading;
mod locks;
mod many;
mod mistakes;
mod node;
mod pending;
mod reload;
mod results;
mod resync;
mod screen;
mod shaping;
mod slots;
mod status_cost;
mod top;
mod uplink;
