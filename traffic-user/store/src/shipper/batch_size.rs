//! How much one batch brings: less after a failure, and more again after successes.
//!
//! A slow link ends each large batch after the same time, and a server may have limits that nobody here knows. What fails
//! so may also have nothing to do with the size: then the next batches are smaller for a while. What a server refuses
//! whatever its size changes nothing.

use std::sync::atomic::{AtomicU32, Ordering};

use traffic_ledger::ContentSize;

/// A batch's rows and bytes, more or less: one part may have more. It bounds the memory. A packed day is read once for
/// each batch, and a server likes large ones.
const MOST: ContentSize = ContentSize { rows: 100_000, bytes: 16 << 20 };
/// A batch's parts. Those of one packed day are decoded together.
pub(super) const MOST_PARTS: usize = 288;
/// How often they are halved: to 390 rows, or one part if it has more.
const MOST_HALVINGS: u32 = 8;
/// Batches that are taken before the next ones are twice as large.
const TAKEN_BEFORE_GROWTH: u32 = 8;

/// What was learned about a store: how large its batches may be. Whoever ships to it again hands this in again.
#[derive(Debug, Default)]
pub struct BatchSize {
    halvings: AtomicU32,
    /// Batches that were taken since the size changed.
    taken: AtomicU32,
}

impl BatchSize {
    /// As after so many halvings; see [`Self::halvings`].
    pub fn halved(halvings: u32) -> Self {
        Self { halvings: halvings.min(MOST_HALVINGS).into(), taken: 0.into() }
    }

    /// How often it was halved, beyond what successes have doubled.
    pub fn halvings(&self) -> u32 {
        self.halvings.load(Ordering::Relaxed)
    }

    /// The most of the next batch.
    pub(super) fn most(&self) -> ContentSize {
        let halvings = self.halvings();
        ContentSize { rows: MOST.rows >> halvings, bytes: MOST.bytes >> halvings }
    }

    /// The most parts of the next batch.
    pub(super) fn most_parts(&self) -> usize {
        (MOST_PARTS >> self.halvings()).max(1)
    }

    /// How many parts to read next, by how many rows the last ones had.
    pub(super) fn next(&self, parts: usize, rows: usize, size: usize) -> usize {
        if parts == 0 {
            return size;
        }
        let fits = self.most().rows / rows.div_ceil(parts).max(1);
        // The next parts may be larger: grow in steps.
        fits.clamp(1, (2 * size).min(self.most_parts()))
    }

    pub(super) fn was_taken(&self) {
        let taken = self.taken.load(Ordering::Relaxed) + 1;
        let grows = taken >= TAKEN_BEFORE_GROWTH;
        self.taken.store(if grows { 0 } else { taken }, Ordering::Relaxed);
        if grows {
            self.halvings.store(self.halvings().saturating_sub(1), Ordering::Relaxed);
        }
    }

    pub(super) fn has_failed(&self) {
        self.halvings.store((self.halvings() + 1).min(MOST_HALVINGS), Ordering::Relaxed);
        self.taken.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_parts_have_as_many_rows_as_fit() {
        let size = BatchSize::default();
        assert_eq!(size.next(4, 160_000, 4), 2);
        assert_eq!(size.next(4, 4_000_000, 4), 1);
        assert_eq!(size.next(4, 0, 4), 8);
        assert_eq!(size.next(200, 200, 200), MOST_PARTS);
        assert_eq!(size.next(0, 0, 17), 17);
    }

    #[test]
    fn failures_halve_a_batch_and_successes_double_it() {
        let size = BatchSize::default();
        (0..3).for_each(|_| size.has_failed());
        assert_eq!(size.most(), ContentSize { rows: 12_500, bytes: 2 << 20 });
        assert_eq!((size.most_parts(), size.next(4, 40, 100)), (36, 36));
        for _ in 1..TAKEN_BEFORE_GROWTH {
            size.was_taken();
        }
        assert_eq!(size.most_parts(), 36);
        size.was_taken();
        assert_eq!(size.most_parts(), 72);
        (0..100).for_each(|_| size.has_failed());
        assert_eq!((size.most().rows, size.most_parts()), (390, 1));
        (0..100).for_each(|_| size.was_taken());
        assert_eq!((size.most(), size.most_parts()), (MOST, MOST_PARTS));
    }
}
