//! trafctl.
fn main() {}
