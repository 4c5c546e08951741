//! Which ledgers are not shipped: one whose rows the store would count twice, or mix with another's.

use traffic_ledger::Identity;

use crate::store::Known;

/// Why a ledger is not shipped, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The ledger in the state directory is another machine's.
    #[error(
        "this ledger belongs to another machine: the node was cloned, or its ledger was copied here; run `trafctl \
         ledger adopt --yes` if it is to go on here, or move it away so that this node begins its own"
    )]
    Copied,
    /// The store has this ledger from another machine.
    #[error(
        "a clone: the store has ledger {ledger} from another machine; on the machine that is the copy, move the ledger \
         away so that it begins its own; if the other machine is gone, run `trafctl ship adopt`"
    )]
    Clone {
        /// The ledger's id.
        ledger: String,
    },
    /// The ledger was adopted from another machine, with a history that the store has or gets from there.
    #[error(
        "an adopted copy: the history of this ledger is that of ledger {parent}, which would be counted twice; if that \
         one is gone, run `trafctl ship adopt`, and this ledger takes its place; otherwise move this ledger away, so \
         that the node begins its own"
    )]
    Adopted {
        /// The id of the ledger that it is a copy of.
        parent: String,
    },
    /// Another ledger took its place.
    #[error(
        "replaced: ledger {by} took the place of this one in the store, with its history; move this ledger away, so that \
         the node begins its own; if it was replaced by mistake, run `trafctl ship adopt`"
    )]
    Replaced {
        /// The id of that ledger.
        by: String,
    },
    /// The store knows changes that the ledger does not have.
    #[error(
        "a restored copy: the store knows change {known} of this ledger, which is at change {changes} of another \
         course of events; run `trafctl ship adopt` to replace what the store holds by what the ledger holds"
    )]
    Restored {
        /// The change number that the store knows.
        known: i64,
        /// The ledger's change number.
        changes: i64,
    },
}

/// Whether a ledger goes on where the store is. `at_known` is the ledger's token at the store's change number, and
/// `machine` this machine, if something tells it from others.
pub(crate) fn check(
    (known, at_known): (Option<&Known>, Option<&str>),
    ledger: &Identity,
    machine: Option<&str>,
) -> Result<(), Refusal> {
    if differ(ledger.machine.as_deref(), machine) {
        return Err(Refusal::Copied);
    }
    let Some(known) = known else {
        return match &ledger.parent {
            Some(parent) => Err(Refusal::Adopted { parent: parent.clone() }),
            None => Ok(()),
        };
    };
    if let Some(by) = &known.replaced_by {
        return Err(Refusal::Replaced { by: by.clone() });
    }
    if differ(known.machine.as_deref(), ledger.machine.as_deref()) {
        return Err(Refusal::Clone { ledger: ledger.ledger.clone() });
    }
    check_other((known.changes, known.token.as_deref()), at_known, ledger)
}

/// Whether a ledger has a change number with its token. `at_known` is its own token of that number.
pub(crate) fn check_other(
    (known, token): (i64, Option<&str>),
    at_known: Option<&str>,
    ledger: &Identity,
) -> Result<(), Refusal> {
    if known > ledger.changes || token != at_known {
        return Err(Refusal::Restored { known, changes: ledger.changes });
    }
    Ok(())
}

/// Whether both are known, and not the same.
fn differ(one: Option<&str>, other: Option<&str>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            ledger: "l".to_owned(),
            machine: Some("m".to_owned()),
            parent: None,
            changes: 7,
            token: Some("t".to_owned()),
            kept_from: None,
        }
    }

    fn known() -> Known {
        Known {
            machine: Some("m".to_owned()),
            changes: 5,
            token: Some("s".to_owned()),
            done: 4,
            ..Known::default()
        }
    }

    #[test]
    fn each_case_is_refused_by_its_name() {
        let fits =
            |known: &Known, ledger: &Identity, machine| check((Some(known), Some("s")), ledger, machine);
        assert_eq!(check((None, None), &identity(), Some("m")), Ok(()));
        assert_eq!(fits(&known(), &identity(), Some("m")), Ok(()));
        assert_eq!(fits(&known(), &identity(), None), Ok(()), "nothing names this machine");
        assert_eq!(fits(&known(), &identity(), Some("n")), Err(Refusal::Copied));
        let adopted = Identity { parent: Some("p".to_owned()), ..identity() };
        let refused = check((None, None), &adopted, Some("m"));
        assert_eq!(refused, Err(Refusal::Adopted { parent: "p".to_owned() }));
        assert_eq!(fits(&known(), &adopted, Some("m")), Ok(()), "it took its parent's place");
        let cloned = Known { machine: Some("n".to_owned()), ..known() };
        let clone = fits(&cloned, &identity(), Some("m"));
        assert_eq!(clone, Err(Refusal::Clone { ledger: "l".to_owned() }));
        let replaced = Known { replaced_by: Some("q".to_owned()), ..known() };
        let by = Refusal::Replaced { by: "q".to_owned() };
        assert_eq!(fits(&replaced, &identity(), Some("m")), Err(by));
        let ahead = Known { changes: 8, ..known() };
        let restored = Refusal::Restored { known: 8, changes: 7 };
        assert_eq!(fits(&ahead, &identity(), Some("m")), Err(restored));
        let other = check((Some(&known()), Some("x")), &identity(), Some("m"));
        assert_eq!(other, Err(Refusal::Restored { known: 5, changes: 7 }));
        // Each names itself and the way on.
        for refusal in [clone.unwrap_err(), refused.unwrap_err(), other.unwrap_err()] {
            assert!(refusal.to_string().contains("run `trafctl ship adopt`"), "{refusal}");
        }
    }
}
