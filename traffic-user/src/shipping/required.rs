//! `[ship] required`: five-minute rows stay in the ledger until every store has verified them.
//!
//! A store has verified what its last comparisons found equal (`daily`), up to what changed or was found to differ since.
//! Where nothing is known of a store, nothing is verified: one that was never reached, one that has another ledger, or
//! any of them while `ship.json` cannot be read.

use std::path::Path;

use jiff::Timestamp;
use traffic_ledger::{HeldRows, Ledger, LedgerError, VerifiedRows};
use traffic_model::calendar::Retention;
use traffic_store::Target;

use super::{ShipState, StoreState, daily};
use crate::config::ShipConfig;

/// Five-minute rows that are kept longer than their retention, and for which stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The rows.
    pub rows: HeldRows,
    /// URLs without options of the stores that have not verified them.
    pub stores: Vec<String>,
}

/// Has the maintenance of a ledger keep what the stores of a configuration have not verified.
///
/// # Errors
/// When the ledger cannot be read: it then keeps everything.
pub fn hold(ledger: &mut Ledger, state_dir: &Path, config: &ShipConfig) -> Result<(), LedgerError> {
    ledger.hold_five_minutes(config.required.then_some(i64::MIN));
    if config.required {
        let verified = verified_before(ledger, state_dir, config)?;
        ledger.hold_five_minutes(verified.into_iter().map(|(_, before_s)| before_s).min());
    }
    Ok(())
}

/// What is kept beyond its retention because of that.
///
/// # Errors
/// When the ledger cannot be read.
pub fn held(
    ledger: &Ledger,
    state_dir: &Path,
    (config, retention): (&ShipConfig, Retention),
    now: Timestamp,
) -> Result<Option<Held>, LedgerError> {
    let mut held: Option<Held> = None;
    if !config.required {
        return Ok(held);
    }
    for (store, before_s) in verified_before(ledger, state_dir, config)? {
        let Some(rows) = ledger.held(retention, before_s, now)? else { continue };
        match &mut held {
            Some(held) => {
                held.stores.push(store);
                if rows.oldest < held.rows.oldest {
                    held.rows = rows;
                }
            }
            None => held = Some(Held { rows, stores: vec![store] }),
        }
    }
    Ok(held)
}

/// For each store of a configuration, the time (Unix seconds) before which it has verified all five-minute rows.
fn verified_before(
    ledger: &Ledger,
    state_dir: &Path,
    config: &ShipConfig,
) -> Result<Vec<(String, i64)>, LedgerError> {
    let id = ledger.shipping_identity()?.ledger;
    // A damaged file is a problem of `trafctl status`.
    let known = ShipState::read(state_dir).unwrap_or_default();
    let names = config.to.iter().filter_map(|url| Target::parse(url).ok()).map(|to| to.name().to_owned());
    names
        .map(|name| {
            let before_s = match verified(&known.of((&name, &id))) {
                Some(verified) => ledger.verified_before(&verified)?,
                None => i64::MIN,
            };
            Ok((name, before_s))
        })
        .collect()
}

/// What a store was found to hold; `None` if it was never compared.
fn verified(store: &StoreState) -> Option<VerifiedRows> {
    let compared = store.compared.as_ref()?;
    Some(VerifiedRows {
        until_s: compared.until_s,
        changes: compared.changes,
        token: compared.token.clone(),
        differing_from_s: daily::first_day_s(&compared.differing),
    })
}

#[cfg(test)]
mod tests {
    use traffic_ledger::{LedgerConfig, testing::*};

    use super::*;
    use crate::shipping::{Compared, state};

    const DAY_S: i64 = 86_400;
    const RETENTION: Retention = Retention { five_minutes_days: 10, hours_months: 1 };
    const FIRST: &str = "postgresql://ship@db/traffic";
    const SECOND: &str = "clickhouse+https://ship@ch/traffic";

    /// Twenty days of a ledger, of which the retention keeps ten.
    struct Kept {
        directory: tempfile::TempDir,
        ledger: Ledger,
        node: Node,
        config: ShipConfig,
    }

    impl Kept {
        fn new(to: &[&str]) -> Self {
            let mut kept = Self::empty(to);
            kept.live(20);
            kept
        }

        fn empty(to: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let settings = LedgerConfig { retention: RETENTION, ..LedgerConfig::default() };
            let ledger = Ledger::open(&directory.path().join("ledger.sqlite"), settings).unwrap();
            let node = Node::balanced(NOON);
            let to = to.iter().map(|&url| url.to_owned()).collect();
            let config = ShipConfig { to, required: true, ..ShipConfig::default() };
            Self { directory, ledger, node, config }
        }

        fn live(&mut self, days: usize) {
            for _ in 0..days * 6 {
                self.node.traffic("101", 1, [1, 100, 2, 7]).pass(4 * 3600).drain(&mut self.ledger);
            }
        }

        fn compared(&self, until_s: i64, differing: &[&str]) -> Compared {
            let identity = self.ledger.shipping_identity().unwrap();
            let differing = differing.iter().map(|&day| day.to_owned()).collect();
            Compared { until_s, changes: identity.changes, token: identity.token, differing }
        }

        fn note(&self, store: &str, compared: Compared) {
            let id = self.ledger.shipping_identity().unwrap().ledger;
            state::change(self.directory.path(), (store, &id), 7, |known| known.compared = Some(compared))
                .unwrap();
        }

        /// Days of which five-minute rows are left after maintenance, counted from the first.
        fn left(&mut self) -> i64 {
            hold(&mut self.ledger, self.directory.path(), &self.config).unwrap();
            self.ledger.maintain(self.node.wall).unwrap();
            let kept_from = self.ledger.shipping_identity().unwrap().kept_from;
            kept_from.map_or(0, |from| (from - day(0)) / DAY_S)
        }

        fn held(&self) -> Option<Held> {
            let (of, now) = ((&self.config, RETENTION), self.node.wall);
            held(&self.ledger, self.directory.path(), of, now).unwrap()
        }
    }

    /// Start of a day, counted from the first.
    fn day(number: i64) -> i64 {
        NOON.div_euclid(DAY_S) * DAY_S + number * DAY_S
    }

    fn stores(held: Option<&Held>) -> Vec<&str> {
        held.into_iter().flat_map(|held| &held.stores).map(String::as_str).collect()
    }

    #[test]
    fn rows_stay_until_every_store_has_verified_them() {
        let mut kept = Kept::new(&[FIRST, SECOND]);
        assert_eq!(kept.left(), 0, "no store was ever reached");
        let held = kept.held();
        assert_eq!(stores(held.as_ref()), [FIRST, SECOND]);
        let rows = held.unwrap().rows;
        // Ten days after the end of the first.
        assert_eq!((rows.oldest.as_second(), rows.since.as_second()), (NOON + 4 * 3600 - 300, day(11)));
        kept.note(FIRST, kept.compared(day(20), &[]));
        assert_eq!(kept.left(), 0, "one of two has verified");
        assert_eq!(stores(kept.held().as_ref()), [SECOND]);
        kept.note(SECOND, kept.compared(day(4), &[]));
        assert_eq!(kept.left(), 4);
        assert_eq!(kept.held().unwrap().rows.since.as_second(), day(15));
        kept.note(SECOND, kept.compared(day(20), &[]));
        assert_eq!(kept.left(), 10);
        assert_eq!(kept.held(), None);
    }

    #[test]
    fn what_differs_stays_and_all_after_it() {
        let mut kept = Kept::new(&[FIRST]);
        let third = Timestamp::from_second(day(3)).unwrap().to_string();
        kept.note(FIRST, kept.compared(day(20), &["container", &third[..10]]));
        assert_eq!(kept.left(), 3);
        assert_eq!(stores(kept.held().as_ref()), [FIRST]);
    }

    #[test]
    fn what_changed_after_it_was_verified_stays() {
        let mut kept = Kept::empty(&[FIRST]);
        kept.live(5);
        let compared = kept.compared(day(20), &[]);
        kept.live(15);
        kept.note(FIRST, compared);
        assert_eq!(kept.left(), 5);
    }

    #[test]
    fn nothing_is_verified_of_another_ledger_or_of_a_past_that_was_left() {
        for change in [
            |known: &mut Compared| known.token = Some("another".to_owned()),
            |known: &mut Compared| known.changes = 0,
        ] {
            let mut kept = Kept::new(&[FIRST]);
            let mut compared = kept.compared(day(20), &[]);
            change(&mut compared);
            kept.note(FIRST, compared);
            assert_eq!(kept.left(), 0);
        }
        let mut kept = Kept::new(&[FIRST]);
        let compared = kept.compared(day(20), &[]);
        state::change(kept.directory.path(), (FIRST, "another"), 7, |known| known.compared = Some(compared))
            .unwrap();
        assert_eq!(kept.left(), 0);
        std::fs::write(kept.directory.path().join("ship.json"), "{").unwrap();
        assert_eq!(kept.left(), 0);
    }

    #[test]
    fn rows_go_when_nobody_requires_them_any_more() {
        let mut kept = Kept::new(&[FIRST, SECOND]);
        kept.note(FIRST, kept.compared(day(20), &[]));
        assert_eq!(kept.left(), 0);
        // The store that was never reached is no longer configured.
        kept.config.to.pop();
        assert_eq!((kept.held(), kept.left()), (None, 10));

        let mut kept = Kept::new(&[FIRST]);
        assert_eq!(kept.left(), 0);
        kept.config.required = false;
        assert_eq!((kept.held(), kept.left()), (None, 10));
    }
}
