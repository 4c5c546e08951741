//! The raw figures of all rounds, by name.

use serde::Serialize;

use crate::statistics::{differences, ratios};

/// One quantity, measured in every round.
#[derive(Debug, Serialize)]
pub struct Series {
    /// `program`, `packets`, `tcp`, `load`, ...
    pub part: &'static str,
    /// The circumstances, such as `ipv4/800000/zipf`.
    pub case: String,
    /// The variant, such as `trie`.
    pub variant: &'static str,
    /// The unit, such as `ns/packet`.
    pub unit: &'static str,
    /// One figure for each round.
    pub rounds: Vec<f64>,
}

/// All figures of one run.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    /// In the order of their first figures.
    pub series: Vec<Series>,
}

impl Results {
    /// Adds the figure of a round.
    pub fn push(
        &mut self,
        part: &'static str,
        case: &str,
        variant: &'static str,
        (value, unit): (f64, &'static str),
    ) {
        let known = self.series.iter_mut().find(|s| s.part == part && s.case == case && s.variant == variant);
        match known {
            Some(series) => series.rounds.push(value),
            None => {
                self.series.push(Series { part, case: case.to_owned(), variant, unit, rounds: vec![value] });
            }
        }
    }

    /// The figures of all rounds.
    pub fn get(&self, part: &str, case: &str, variant: &str) -> Option<&[f64]> {
        let found = self.series.iter().find(|s| s.part == part && s.case == case && s.variant == variant);
        found.map(|series| series.rounds.as_slice())
    }

    /// The difference of one variant from another in each round.
    pub fn above(&self, part: &str, case: &str, variant: &str, base: &str) -> Option<Vec<f64>> {
        Some(differences(self.get(part, case, variant)?, self.get(part, case, base)?))
    }

    /// The ratio of one variant to another in each round.
    pub fn ratio(&self, part: &str, case: &str, variant: &str, to: &str) -> Option<Vec<f64>> {
        Some(ratios(self.get(part, case, variant)?, self.get(part, case, to)?, f64::MIN_POSITIVE))
    }
}
