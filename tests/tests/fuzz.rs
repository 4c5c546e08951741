//! Frames of every shape, beside a parser that shares nothing with the program.

use anyhow::Result;
use traffic_tests::fuzz;

#[test]
fn every_frame_is_counted_where_a_reference_says() -> Result<()> {
    fuzz::run(0x7261_6663_746c, 150_000, |_| {})?.check_coverage()
}
