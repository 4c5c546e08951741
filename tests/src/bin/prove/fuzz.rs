//! Millions of generated frames, most of them malformed, compared with a parser that shares nothing with the
//! program.

use anyhow::Result;
use traffic_tests::{Amounts, fuzz};

use crate::bench::Bench;
use crate::evidence::{Evidence, Row};

/// The summary of this part.
pub const ABOUT: &str = "frames of every shape, whole, truncated and corrupted, each in the one counter that a \
     reference parser names";

const FRAMES: u64 = 5_000_000;
const FRAMES_ON_WIRE: usize = 200_000;
/// Other seeds than in the tests, so that other frames are tried.
const SEED: u64 = 0x5eed;

/// Runs the part.
pub fn run(bench: &Bench, evidence: &mut Evidence) -> Result<()> {
    bench.step(&format!("{FRAMES} frames through the program"));
    let summary = fuzz::run(SEED, FRAMES, |_| {})?;
    summary.check_coverage()?;
    let all = summary.counted.values().copied().fold(Amounts::default(), Amounts::plus);
    let sent =
        format!("{} frames, in {} counters; every batch was compared", summary.frames, summary.counted.len());
    evidence.row(Row::new("frames by test runs", sent, "a reference parser").amounts(summary.expected, all));
    bench.step(&format!("{FRAMES_ON_WIRE} frames out of a container"));
    let (expected, counted) = fuzz::over_wire(SEED, FRAMES_ON_WIRE)?;
    let sent = format!("{FRAMES_ON_WIRE} frames by a raw socket in the container; each counter was compared");
    evidence.row(
        Row::new("frames as real traffic", sent, "a reference parser, and the interface's statistics")
            .amounts(expected, counted),
    );
    Ok(())
}
