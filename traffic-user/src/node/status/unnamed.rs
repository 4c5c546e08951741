//! Interfaces that are counted although no rule and no list names their owner any more. Pure.
//!
//! Nothing is detached because a rule is missing: a wrong preset must not lose traffic. The interface keeps
//! counting for whom it counted. If it was renamed, that is all there is to say. If not, the configuration
//! changed, and the next interface of its kind will not be counted.

use super::report::CountedUnnamed;
use crate::{
    kernel::records::{read_name, read_text},
    net::interface::NetInterface,
    node::registry::Registry,
};

/// How many interfaces the problem names.
const NAMED: usize = 20;

/// Describes an interface that is attached, from its record. `None` if it has no record.
pub(super) fn describe(
    registry: &Registry,
    interface: &NetInterface,
    reason: String,
) -> Option<CountedUnnamed> {
    let record = registry.interface(registry.interface_of_index(interface.index)?);
    let container = read_text(&record.container);
    Some(CountedUnnamed {
        interface: interface.name.clone(),
        ifindex: interface.index,
        container: (record.shared == 0 && !container.is_empty()).then(|| container.to_owned()),
        counted_as: read_name(record),
        reason,
    })
}

/// One problem for all that have the name under which they were attached.
pub(super) fn problem(all: &[CountedUnnamed]) -> Option<String> {
    let unnamed: Vec<_> = all.iter().filter(|one| one.counted_as == one.interface).collect();
    let first = unnamed.first()?;
    let shown = unnamed.iter().take(NAMED).map(|one| match &one.container {
        Some(container) => format!("{} for {container}", one.interface),
        None => format!("{} by address", one.interface),
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = match unnamed.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (subject, them) = match unnamed.len() {
        1 => ("1 interface is".to_owned(), "it"),
        n => (format!("{n} interfaces are"), "them"),
    };
    Some(format!(
        "{subject} counted, but the configuration does not name {them} any more ({shown}{more}): {}; others of \
         their kind will not be attached; correct the configuration, or `trafctl detach` {them}",
        first.reason
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(interface: &str, counted_as: &str, container: Option<&str>) -> CountedUnnamed {
        CountedUnnamed {
            interface: interface.to_owned(),
            ifindex: 7,
            container: container.map(str::to_owned),
            counted_as: counted_as.to_owned(),
            reason: "no rule matches its name (preset custom)".to_owned(),
        }
    }

    #[test]
    fn only_what_kept_its_name_is_a_problem() {
        assert_eq!(problem(&[one("uplink", "veth101.0", Some("101"))]), None);
        assert_eq!(
            problem(&[one("uplink", "veth101.0", Some("101")), one("veth102.0", "veth102.0", Some("102"))]),
            Some(
                "1 interface is counted, but the configuration does not name it any more (veth102.0 for 102): no rule \
                 matches its name (preset custom); others of their kind will not be attached; correct the \
                 configuration, or `trafctl detach` it"
                    .to_owned()
            )
        );
        let many: Vec<_> = (0..30).map(|n| one(&format!("v{n}"), &format!("v{n}"), None)).collect();
        let text = problem(&many).unwrap();
        assert!(
            text.starts_with("30 interfaces are counted") && text.contains("v19 by address and 10 more)")
        );
    }
}
