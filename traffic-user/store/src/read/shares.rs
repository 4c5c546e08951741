//! Whose a container is when: the rows of a report by tenant.
//!
//! Most containers have one tenant for the whole span, and are added up as they are elsewhere. The rows of the others
//! are cut where a tenant changes. All borders are those of five minutes, so that each row has one tenant.

use std::collections::{BTreeSet, HashMap};

use traffic_ledger::{LedgerError, StoredContainer};

use crate::tenants::Assignment;

/// What is shown for containers that nobody has.
const NOBODY: &str = "(no tenant)";
/// The end of what does not end.
const FOREVER: i64 = i64::MAX;

/// A container of a ledger, while it is one tenant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub ledger: i32,
    pub number: i64,
    /// Number of the tenant in the report.
    pub shown: i64,
    pub span: (i64, i64),
}

/// Who has what, always covering all time of each container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares(pub Vec<Share>);

impl Shares {
    /// The shares that overlap a span, of all or some tenants.
    pub fn within(&self, range: (i64, i64), tenants: Option<&[i64]>) -> impl Iterator<Item = &Share> {
        self.0.iter().filter(move |share| {
            let overlaps = share.span.0 < range.1 && share.span.1 > range.0;
            overlaps && tenants.is_none_or(|asked| asked.contains(&share.shown))
        })
    }

    /// Where a tenant changes within a span.
    pub fn borders(&self, range: (i64, i64)) -> BTreeSet<i64> {
        let ends = self.0.iter().flat_map(|share| [share.span.0, share.span.1]);
        ends.filter(|&at| range.0 < at && at < range.1).collect()
    }

    /// The tenant of a container at a time.
    pub fn at(&self, ledger: i32, number: i64, at: i64) -> Option<i64> {
        let is_it = |share: &&Share| {
            (share.ledger, share.number) == (ledger, number) && share.span.0 <= at && at < share.span.1
        };
        self.0.iter().find(is_it).map(|share| share.shown)
    }
}

/// The spans of one container: those of its assignments, and what is left, which is nobody's.
fn spans(mut assigned: Vec<(i64, i64, String)>) -> Vec<(i64, i64, String)> {
    assigned.sort();
    let mut all = Vec::new();
    let mut at = i64::MIN;
    for (from, until, tenant) in assigned {
        let from = if from == 0 { i64::MIN } else { from };
        if at < from {
            all.push((at, from, NOBODY.to_owned()));
        }
        all.push((from, until, tenant));
        at = until;
    }
    if at < FOREVER {
        all.push((at, FOREVER, NOBODY.to_owned()));
    }
    all
}

/// The tenants of a report.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    pub shares: Shares,
    /// As containers of the report.
    pub all: Vec<StoredContainer>,
    /// What each has at some time: ledger, and number in it.
    pub members: HashMap<i64, Vec<(i32, i64)>>,
}

/// A container of a ledger: ledger, number, id, and since when it is known.
pub(crate) type Known = (i32, i64, String, i64);

/// Who has what of some containers. `node` is the name of a ledger's.
///
/// # Errors
/// When two tenants have a container at the same time, as two who assign it at the same moment might leave it.
pub(crate) fn tenants<'n>(
    assignments: &[Assignment],
    containers: Vec<Known>,
    node: impl Fn(i32) -> &'n str,
) -> Result<Tenants, LedgerError> {
    let mut assigned: HashMap<&str, Vec<&Assignment>> = HashMap::new();
    for one in assignments {
        assigned.entry(&one.container).or_default().push(one);
    }
    let mut tenants = Tenants::default();
    let mut places: HashMap<String, i64> = HashMap::new();
    for (ledger, number, id, since) in containers {
        let of_id = assigned.get(id.as_str()).into_iter().flatten();
        let here: Vec<&Assignment> =
            of_id.filter(|one| one.node.as_deref().is_none_or(|of| of == node(ledger))).copied().collect();
        for (at, one) in here.iter().enumerate() {
            if let Some(other) = here[..at].iter().find(|other| one.overlaps(other)) {
                return Err(LedgerError::Store(format!(
                    "{} and {} have container {id} at the same time ({}; {}); end one with `trafctl store unassign`",
                    one.tenant,
                    other.tenant,
                    one.text(),
                    other.text()
                )));
            }
        }
        let here = here.into_iter().map(|one| (one.from, one.until.unwrap_or(FOREVER), one.tenant.clone()));
        for (from, until, tenant) in spans(here.collect()) {
            let shown = *places.entry(tenant.clone()).or_insert_with(|| {
                let shown = i64::try_from(tenants.all.len()).unwrap_or(i64::MAX) + 1;
                tenants.all.push(StoredContainer {
                    number: shown,
                    id: tenant.clone(),
                    label: tenant.clone(),
                    kind: "ct".to_owned(),
                    since,
                    retired: None,
                    names: Vec::new(),
                });
                shown
            });
            let members = tenants.members.entry(shown).or_default();
            if !members.contains(&(ledger, number)) {
                members.push((ledger, number));
            }
            tenants.shares.0.push(Share { ledger, number, shown, span: (from, until) });
        }
    }
    Ok(tenants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_time_is_somebodys_or_nobodys() {
        let of = |list: &[(i64, i64, &str)]| {
            spans(list.iter().map(|one| (one.0, one.1, one.2.to_owned())).collect())
        };
        let nobody = |from, until| (from, until, NOBODY.to_owned());
        assert_eq!(of(&[]), [nobody(i64::MIN, FOREVER)]);
        assert_eq!(
            of(&[(600, 900, "b"), (0, 300, "a")]),
            [
                (i64::MIN, 300, "a".to_owned()),
                nobody(300, 600),
                (600, 900, "b".to_owned()),
                nobody(900, FOREVER)
            ]
        );
        assert_eq!(of(&[(0, FOREVER, "a")]), [(i64::MIN, FOREVER, "a".to_owned())]);
    }

    #[test]
    fn a_container_that_two_have_is_refused() {
        let of = |tenant: &str, until| Assignment {
            number: 1,
            tenant: tenant.to_owned(),
            container: "101".to_owned(),
            node: None,
            from: 0,
            until,
        };
        let known = || vec![(1, 5, "101".to_owned(), 7)];
        let found = tenants(&[of("a", Some(300)), of("b", None)], known(), |_| "n1");
        assert!(found.unwrap_err().to_string().contains("b and a have container 101"));
        let found = tenants(&[of("a", Some(300))], known(), |_| "n1").unwrap();
        assert_eq!((found.all.len(), found.members[&1].len()), (2, 1));
        assert_eq!((found.shares.at(1, 5, 299), found.shares.at(1, 5, 300)), (Some(1), Some(2)));
    }

    #[test]
    fn a_change_within_a_span_is_a_border_of_it() {
        let share = |shown, span| Share { ledger: 1, number: 7, shown, span };
        let shares = Shares(vec![share(1, (i64::MIN, 600)), share(2, (600, FOREVER))]);
        assert_eq!(shares.borders((300, 900)), BTreeSet::from([600]));
        assert!(shares.borders((600, 900)).is_empty());
        assert_eq!(
            (shares.at(1, 7, 599), shares.at(1, 7, 600), shares.at(2, 7, 0)),
            (Some(1), Some(2), None)
        );
        assert_eq!(shares.within((0, 600), None).count(), 1);
        assert_eq!(shares.within((0, 900), Some(&[2])).count(), 1);
    }
}
