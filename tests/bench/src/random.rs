//! Pseudo-random numbers that are the same in every run, and peers drawn with them.

/// A generator of 64-bit numbers (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Creates a generator from a seed other than zero.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        // The upper half of the product: no division, and negligible bias for these limits.
        let product = u128::from(self.next()) * limit as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// A fraction from 0 to below 1.
    pub fn fraction(&mut self) -> f64 {
        // A float holds 53 bits.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The next 128 bits.
    pub fn bits(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// Draws ranks by Zipf's law: the n-th most frequent has the weight 1/n.
#[derive(Debug)]
pub struct Zipf {
    /// For each rank the sum of weights up to it, divided by the sum of all.
    cumulated: Vec<f64>,
}

impl Zipf {
    /// Creates the law for this many ranks.
    pub fn new(ranks: usize) -> Self {
        let mut sum = 0.0;
        let mut cumulated: Vec<f64> = (1..=ranks)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        for value in &mut cumulated {
            *value /= sum;
        }
        Self { cumulated }
    }

    /// The next rank, from 0 on.
    pub fn draw(&self, random: &mut Random) -> usize {
        let fraction = random.fraction();
        self.cumulated.partition_point(|&upto| upto <= fraction).min(self.cumulated.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_numbers_are_spread_evenly() {
        let mut random = Random::new(7);
        let mut drawn = [0_u32; 10];
        for _ in 0..100_000 {
            drawn[random.below(10)] += 1;
        }
        // 10,000 each; five standard deviations are 474.
        assert!(drawn.iter().all(|&count| count.abs_diff(10_000) < 474), "{drawn:?}");
    }

    #[test]
    fn zipf_ranks_are_as_frequent_as_their_weights() {
        const DRAWS: u32 = 200_000;
        let zipf = Zipf::new(100);
        let mut random = Random::new(7);
        let mut drawn = [0_u32; 100];
        for _ in 0..DRAWS {
            drawn[zipf.draw(&mut random)] += 1;
        }
        // The hundredth harmonic number.
        let all = 5.187_378;
        for rank in [1, 2, 3, 10, 50, 100] {
            let expected = f64::from(DRAWS) / (rank as f64 * all);
            let found = f64::from(drawn[rank - 1]);
            assert!(
                (found - expected).abs() < 5.0 * expected.sqrt(),
                "rank {rank}: {found} instead of {expected}"
            );
        }
    }

    #[test]
    fn fractions_stay_below_one() {
        let mut random = Random::new(99);
        assert!((0..10_000).map(|_| random.fraction()).all(|fraction| (0.0..1.0).contains(&fraction)));
    }
}
