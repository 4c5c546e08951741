//! Owners that are not known: interfaces that are counted for somebody whom nothing names yet, and what was
//! counted on such interfaces before they went.

use std::collections::HashMap;

use traffic_common::Tally;
use traffic_model::{Snapshot, counted};

use super::report::Pending;
use crate::{
    kernel::records::{read_name, read_text},
    node::registry::Registry,
};

/// How long the owner of a new interface may be unknown before that is a problem, in seconds. Platforms list a
/// container up to eight seconds after its interface appears.
const GRACE_S: u64 = 30;
/// How many owners are named whose interface is gone.
const NAMED: usize = 20;

/// The pending owners, those that exist first. One that never carried anything and is gone is none.
pub(super) fn gather(
    registry: &Registry,
    snapshot: &Snapshot,
    unresolved: &HashMap<String, String>,
) -> Vec<Pending> {
    let mut pending: Vec<Pending> = registry
        .pending_owners()
        .into_iter()
        .map(|(slot, id)| {
            let interfaces = registry.interfaces().iter();
            let exists = interfaces
                .filter(|record| record.ifindex != 0 && read_text(&record.container) == id.as_str())
                .map(read_name)
                .next();
            let of_it = snapshot.interfaces.iter().filter(|counter| counter.container.as_ref() == Some(&id));
            let passed: Tally =
                of_it.flat_map(|counter| [counter.passed.incoming.wire, counter.passed.outgoing.wire]).sum();
            Pending {
                pending: id.to_string(),
                reason: exists.as_ref().and_then(|name| unresolved.get(name)).cloned(),
                interface: exists,
                since_unix_s: registry.containers()[slot as usize].since_unix_s,
                packets: passed.packets,
                bytes: passed.bytes,
            }
        })
        .collect();
    pending.retain(|one| one.interface.is_some() || one.packets > 0);
    pending.sort_by_key(|one| one.interface.is_none());
    pending
}

/// What is wrong with them.
pub(super) fn problems(pending: &[Pending], now_unix_s: u64) -> Vec<String> {
    let mut problems = Vec::new();
    for one in pending {
        let age_s = now_unix_s.saturating_sub(one.since_unix_s);
        // Without a reason, something names its container by now, and the next resync sees to it.
        if let (Some(name), Some(reason)) = (&one.interface, &one.reason)
            && age_s >= GRACE_S
        {
            problems.push(format!(
                "{name}: its container has been unknown for {age_s} s: {reason}; its traffic is counted as {} and \
                 becomes the container's once that is known",
                one.pending
            ));
        }
    }
    let gone: Vec<&Pending> = pending.iter().filter(|one| one.interface.is_none()).collect();
    if gone.is_empty() {
        return problems;
    }
    let mut named: Vec<String> = gone
        .iter()
        .take(NAMED)
        .map(|one| format!("{}: {}, {} B", one.pending, counted(one.packets, "packet"), one.bytes))
        .collect();
    if gone.len() > NAMED {
        named.push(format!("{} more", gone.len() - NAMED));
    }
    let (subject, verb) = match gone.len() {
        1 => ("1 interface".to_owned(), "its container was"),
        n => (format!("{n} interfaces"), "their containers were"),
    };
    problems.push(format!(
        "{subject} went before {verb} known, and the traffic is in nobody's bill ({}); `trafctl container attribute` \
         gives it to a container, `trafctl container retire` dismisses it",
        named.join("; ")
    ));
    problems
}

/// What the ledger has of pending owners, by their ids, that have no counters any more, because the node was rebooted
/// or their slots passed on.
pub(super) fn problem_of_ledger(mut ids: Vec<String>, present: &[Pending]) -> Option<String> {
    ids.retain(|id| !present.iter().any(|one| one.pending == *id));
    let more = ids.len().saturating_sub(NAMED);
    ids.truncate(NAMED);
    let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!ids.is_empty()).then(|| {
        format!(
            "the ledger has traffic that is in nobody's bill, of interfaces that went before their containers were \
             known ({}{and_more}); `trafctl container attribute` gives it to a container, `trafctl container \
             retire` dismisses it",
            ids.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(interface: Option<&str>, since_unix_s: u64, packets: u64) -> Pending {
        Pending {
            pending: format!("pending:veth{since_unix_s}:7:x"),
            interface: interface.map(str::to_owned),
            since_unix_s,
            packets,
            bytes: packets * 100,
            reason: interface.map(|_| "no file lists it".to_owned()),
        }
    }

    #[test]
    fn a_new_interface_has_some_time_and_one_that_went_is_named_at_once() {
        let young = pending(Some("veth1"), 980, 5);
        let old = pending(Some("veth2"), 970, 6);
        let found = problems(&[young.clone(), old], 1000);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("veth2: its container has been unknown for 30 s: no file lists it"),
            "{found:?}"
        );
        assert_eq!(problems(&[young], 1009), [""; 0]);
        let gone = pending(None, 999, 1001);
        let found = problems(std::slice::from_ref(&gone), 1000);
        assert!(found[0].contains("pending:veth999:7:x: 1001 packets, 100100 B"), "{found:?}");
        let many = vec![gone; NAMED + 3];
        assert!(problems(&many, 1000)[0].contains("; 3 more); "));
    }
}
