//! Whose a container is when: the rows of a report by tenant.
//!
//! Most containers have one tenant for the whole span, and are added up as they are elsewhere. The rows of the others
//! are cut where a tenant changes. All borders are those of five minutes, so that each row has one tenant.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::types::Type;
use traffic_ledger::{LedgerError, StoredContainer};

use super::Reader;

/// What is shown for containers that nobody has.
const NOBODY: &str = "(no tenant)";
/// The end of what does not end.
const FOREVER: i64 = i64::MAX;

/// A container of a ledger, while it is one tenant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub ledger: i32,
    pub number: i64,
    /// Number of the tenant in the report.
    pub shown: i64,
    pub span: (i64, i64),
}

/// Who has what, always covering all time of each container.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares(pub Vec<Share>);

/// Some shares as parameters: ledgers, numbers, tenants, starts, ends.
pub(super) type Columns = (Vec<i32>, Vec<i64>, Vec<i64>, Vec<i64>, Vec<i64>);

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

/// Shares as parameters of a statement.
pub(super) fn columns<'a>(shares: impl Iterator<Item = &'a Share>) -> Columns {
    let mut columns = Columns::default();
    for share in shares {
        columns.0.push(share.ledger);
        columns.1.push(share.number);
        columns.2.push(share.shown);
        columns.3.push(share.span.0);
        columns.4.push(share.span.1);
    }
    columns
}

/// An assignment: its node, if it is of one, from, until, and the tenant.
type OfNode = (Option<String>, i64, i64, String);

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

/// Reads who has what. Returns the tenants as containers of the report.
pub(super) fn read(reader: &mut Reader) -> Result<Vec<StoredContainer>, LedgerError> {
    let sql = "SELECT container, node, \"from\", coalesce(until, $1), tenant FROM trafctl.assignment";
    let mut assigned: HashMap<String, Vec<OfNode>> = HashMap::new();
    for row in reader.rows(sql, &[(&FOREVER, Type::INT8)])? {
        let of_id = assigned.entry(row.get(0)).or_default();
        of_id.push((row.get(1), row.get(2), row.get(3), row.get(4)));
    }
    let sql =
        "SELECT ledger, number, name, since FROM trafctl.container WHERE ledger = ANY($1) ORDER BY 1, 2";
    let mut tenants: Vec<StoredContainer> = Vec::new();
    let mut places: HashMap<String, i64> = HashMap::new();
    let ledgers = reader.ledger_numbers();
    for row in reader.rows(sql, &[(&ledgers, Type::INT4_ARRAY)])? {
        let (ledger, number): (i32, i64) = (row.get(0), row.get(1));
        let of_id = assigned.get(row.get::<_, &str>(2)).into_iter().flatten();
        let here = of_id.filter(|one| one.0.as_deref().is_none_or(|node| node == reader.node(ledger)));
        let here = here.map(|one| (one.1, one.2, one.3.clone())).collect();
        for (from, until, tenant) in spans(here) {
            let shown = *places.entry(tenant.clone()).or_insert_with(|| {
                let shown = i64::try_from(tenants.len()).unwrap_or(i64::MAX) + 1;
                tenants.push(StoredContainer {
                    number: shown,
                    id: tenant.clone(),
                    label: tenant.clone(),
                    kind: "ct".to_owned(),
                    since: row.get(3),
                    retired: None,
                    names: Vec::new(),
                });
                shown
            });
            reader.labels.insert(shown, tenant);
            let members = reader.members.entry(shown).or_default();
            if !members.contains(&(ledger, number)) {
                members.push((ledger, number));
            }
            let shares = reader.shares.get_or_insert_default();
            shares.0.push(Share { ledger, number, shown, span: (from, until) });
        }
    }
    reader.shares.get_or_insert_default();
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
