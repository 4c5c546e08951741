//! Tests of the whole ledger on real files, fed with simulated readings.

mod billing;
mod clock;
mod close_refusals;
mod closing;
mod control_totals;
mod crashes;
mod days;
mod draining;
mod exchange;
mod files;
mod hashes;
mod histories;
mod interfaces;
mod live_counters;
mod migration;
mod packing;
mod percentiles;
mod previews;
mod pva;
mod pva_import;
mod reports;
mod returning;
mod rollups;
mod simulator;
mod tampering;
mod zones;
