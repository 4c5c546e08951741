//! Stores that are behind, or differ from the ledger.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use traffic_ledger::Ledger;
use traffic_model::units::format_duration;
use traffic_store::Target;

use crate::{
    config::ShipConfig,
    drain::ledger_path,
    shipping::{ShipState, StoreState},
};

/// How far a store may be behind, in seconds. More if `[ship] interval` is long.
const MOST_LAG_S: i64 = 3600;
/// Intervals of `[ship]` in which everything is shipped, whatever fails once.
const INTERVALS: i64 = 3;
/// How long a store may be without a comparison, in seconds.
const MOST_UNCOMPARED_S: i64 = 3 * 86_400;

/// What is wrong with the stores of a configuration.
pub(super) fn problems(state_dir: &Path, config: &ShipConfig, now_s: i64) -> Vec<String> {
    let names: Vec<String> =
        config.to.iter().filter_map(|url| Target::parse(url).ok()).map(|of| of.name().to_owned()).collect();
    // Without a ledger there is nothing to ship.
    let ledger = ledger_path(state_dir);
    if names.is_empty() || !ledger.exists() {
        return Vec::new();
    }
    let known = match ShipState::read(state_dir) {
        Ok(known) => known.stores,
        Err(error) => return vec![format!("the shipping of the ledger: {error:#}")],
    };
    // A ledger that cannot be read is a problem of its own.
    let Ok(id) = Ledger::open_read_only(&ledger).and_then(|ledger| ledger.shipping_identity()) else {
        return Vec::new();
    };
    let interval_s = i64::try_from(config.interval.as_secs()).unwrap_or(i64::MAX);
    let most_s = MOST_LAG_S.max(interval_s.saturating_mul(INTERVALS));
    let of = |name: &String| {
        let store = known.get(name).filter(|store| store.ledger == id.ledger);
        [of_store(name, store, now_s, most_s), differing(name, store), uncompared(name, store, now_s)]
    };
    names.iter().flat_map(of).flatten().collect()
}

fn of_store(name: &str, store: Option<&StoreState>, now_s: i64, most_s: i64) -> Option<String> {
    let Some(store) = store else {
        return Some(format!(
            "nothing was shipped to {name} yet: start `trafctl ship` (systemctl enable --now trafctl-ship)"
        ));
    };
    let since_s = store.shipped_s.unwrap_or(store.since_s);
    let late_s = now_s.saturating_sub(since_s);
    if late_s <= most_s {
        return None;
    }
    let late = format_duration(Duration::from_secs((late_s - late_s % 60).unsigned_abs()));
    Some(match &store.error {
        Some(error) => format!("not everything was shipped to {name} for {late}: {error}"),
        None => format!(
            "nothing was shipped to {name} for {late}: is `trafctl ship` (trafctl-ship.service) running?"
        ),
    })
}

fn differing(name: &str, store: Option<&StoreState>) -> Option<String> {
    let compared = store?.compared.as_ref().filter(|compared| !compared.differing.is_empty())?;
    Some(format!(
        "{name} differs from the ledger ({}); `trafctl ship verify` lists what, `--repair` ships it again",
        compared.differing_text()
    ))
}

/// A store that is shipped to but not compared.
fn uncompared(name: &str, store: Option<&StoreState>, now_s: i64) -> Option<String> {
    let store = store?;
    if let Some(error) = &store.compare_error {
        return Some(format!("{name} cannot be compared with the ledger: {error}"));
    }
    let since_s = store.compare_tried_s.max(store.since_s);
    let is_shipped = store.shipped_s.is_some_and(|shipped_s| shipped_s > since_s);
    if !is_shipped || now_s.saturating_sub(since_s) <= MOST_UNCOMPARED_S {
        return None;
    }
    let since = Timestamp::from_second(since_s).map_or_else(|_| String::new(), |since| since.to_string());
    Some(format!(
        "{name} was not compared with the ledger since {since}: `trafctl ship` without --once does it each day, \
         `trafctl ship verify` now"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipping::Compared;

    const NOW_S: i64 = 1_800_000_000;

    #[test]
    fn a_store_that_is_behind_is_named_with_the_reason() {
        let of = |store: Option<&StoreState>| of_store("s", store, NOW_S, 3600).unwrap_or_default();
        assert!(of(None).contains("trafctl-ship"));
        let mut store =
            StoreState { since_s: NOW_S - 9000, shipped_s: Some(NOW_S - 3600), ..StoreState::default() };
        store.error = Some("no route".to_owned());
        assert_eq!(of(Some(&store)), "");
        store.shipped_s = Some(NOW_S - 7230);
        assert_eq!(of(Some(&store)), "not everything was shipped to s for 2h: no route");
        store.error = None;
        assert!(of(Some(&store)).contains("running?"));
        store.shipped_s = None;
        assert!(of(Some(&store)).contains("for 2h 30m"), "{}", of(Some(&store)));
        store.since_s = NOW_S + 5;
        assert_eq!(of(Some(&store)), "");
    }

    #[test]
    fn a_store_that_differs_or_is_not_compared_is_named() {
        let mut store = StoreState {
            since_s: NOW_S - 10 * 86_400,
            compare_tried_s: NOW_S - MOST_UNCOMPARED_S,
            shipped_s: Some(NOW_S),
            ..StoreState::default()
        };
        assert_eq!(uncompared("s", Some(&store), NOW_S), None);
        assert!(uncompared("s", Some(&store), NOW_S + 1).unwrap().contains("2027-01-12"));
        store.compare_error = Some("gave up".to_owned());
        assert!(uncompared("s", Some(&store), NOW_S).unwrap().ends_with("ledger: gave up"));
        store.compare_error = None;
        // A store that is away cannot be compared.
        store.shipped_s = Some(store.compare_tried_s);
        assert_eq!(uncompared("s", Some(&store), NOW_S + 1), None);
        assert_eq!((differing("s", Some(&store)), differing("s", None)), (None, None));
        store.compared = Some(Compared { differing: vec!["2026-11-10".to_owned()], ..Compared::default() });
        assert!(differing("s", Some(&store)).unwrap().contains("(2026-11-10)"));
    }
}
