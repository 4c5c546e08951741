//! What the kernel drops behind the hooks: counted = dropped + delivered, to the packet and to the byte. The
//! receiver says what was delivered.

mod filters;
mod ledger;
mod lifecycle;
mod no_loss;
mod node;
mod routes;
mod shapers;
