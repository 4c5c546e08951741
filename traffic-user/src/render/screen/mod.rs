//! The live screen of `trafctl top` and `trafctl dump --watch`: what it shows, and what keys change.
//!
//! It is pure: readings and keys go in, and [`draw`] fills a frame. The terminal, the signals and the thread
//! that reads the counters are in `cli/screen`.

mod columns;
mod help;
mod minute;
mod rows;
mod state;
#[cfg(test)]
mod tests;
mod view;

pub use state::{Action, ContainerNames, Key, Kind, Reading, Screen, Start};
pub use view::draw;
