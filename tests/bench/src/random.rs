//! Numbers that look random and are the same in every run, and peers drawn by them.

/// A generator of 64-bit numbers (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts at a seed other than zero.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        // The upper half of the product: no division, and no bias worth a word at these limits.
        let product = u128::from(self.next()) * limit as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// A fraction from 0 to 1.
    pub fn fraction(&mut self) -> f64 {
        // 53 bits are what a float holds.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// 128 bits.
    pub fn bits(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// Draws ranks by Zipf's law: the n-th most frequent comes with a weight of 1/n.
#[derive(Debug)]
pub struct Zipf {
    /// Sum of the weights up to and with each rank, over the sum of all.
    cumulated: Vec<f64>,
}

impl Zipf {
    /// A law over this many ranks.
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

    /// A rank, from 0 on.
    pub fn draw(&self, random: &mut Random) -> usize {
        let fraction = random.fraction();
        self.cumulated.partition_point(|&upto| upto <= fraction).min(self.cumulated.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_numbers_fill_their_range_evenly() {
        let mut random = Random::new(7);
        let mut drawn = [0_u32; 10];
        for _ in 0..100_000 {
            drawn[random.below(10)] += 1;
        }
        // 10,000 each; five standard deviations are 474.
        assert!(drawn.iter().all(|&count| count.abs_diff(10_000) < 474), "{drawn:?}");
    }

    #[test]
    fn zipf_ranks_come_as_often_as_their_weight_says() {
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
            assert!((found - expected).abs() < 5.0 * expected.sqrt(), "rank {rank}: {found}, not {expected}");
        }
    }

    #[test]
    fn fractions_stay_below_one() {
        let mut random = Random::new(99);
        assert!((0..10_000).map(|_| random.fraction()).all(|fraction| (0.0..1.0).contains(&fraction)));
    }
}
