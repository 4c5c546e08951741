//! Tenants: who had which container when. A store keeps that as a list of assignments, which no node knows.
//!
//! An assignment is of a container's id, on one node or on any, for a span of time on five-minute borders. No two are
//! of the same container at the same time. Here is what both kinds of store refuse.

use traffic_model::calendar::five_minutes_of;

use crate::store::StoreError;

/// An assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its number in the store.
    pub number: i32,
    /// The tenant.
    pub tenant: String,
    /// The container's id, as its node knows it.
    pub container: String,
    /// The node; `None` for the container of this id on any node.
    pub node: Option<String>,
    /// From when on, Unix seconds; 0 for ever before.
    pub from: i64,
    /// Until when; `None` while it goes on.
    pub until: Option<i64>,
}

/// What was assigned, and what the owner should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The assignment.
    pub assignment: Assignment,
    /// Nodes that have such a container now.
    pub nodes: Vec<String>,
}

impl Assignment {
    /// The same on borders of five minutes.
    ///
    /// # Errors
    /// When it would end before it begins, or the tenant has no name.
    pub(crate) fn checked(&self) -> Result<Self, StoreError> {
        let (from, until) = (five_minutes_of(self.from), self.until.map(five_minutes_of));
        if until.is_some_and(|until| until <= from) {
            return Err(StoreError::Refused(
                "it would end before it begins; exchange --from and --until".to_owned(),
            ));
        }
        if self.tenant.trim().is_empty() || self.tenant.chars().any(char::is_control) {
            return Err(StoreError::Refused("the tenant has no name in one line; give one".to_owned()));
        }
        Ok(Self { from, until, ..self.clone() })
    }

    /// Refuses an id that does not say which container is meant. `nodes` have such a container, by name.
    ///
    /// # Errors
    /// When several nodes have one of their own.
    pub(crate) fn require_one(&self, nodes: &[String], has_own_ids: bool) -> Result<(), StoreError> {
        if self.node.is_some() || nodes.len() < 2 || !has_own_ids {
            return Ok(());
        }
        Err(StoreError::Refused(format!(
            "the nodes {} each have a container {} of their own; name one with --node",
            nodes.join(", "),
            self.container
        )))
    }

    /// Whether both are of the same container at the same time.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let is_node = self.node.is_none() || other.node.is_none() || self.node == other.node;
        let end = |one: &Self| one.until.unwrap_or(i64::MAX);
        self.container == other.container && is_node && self.from < end(other) && other.from < end(self)
    }

    /// Refuses it because of another one.
    pub(crate) fn refused_by(&self, other: &Self) -> StoreError {
        StoreError::Refused(format!(
            "{} would have container {} while {} has it ({}); end that with `trafctl store unassign`, or choose other \
             times",
            self.tenant,
            self.container,
            other.tenant,
            other.text()
        ))
    }

    /// Its number, node and times in UTC.
    pub fn text(&self) -> String {
        let time = |second: i64| {
            jiff::Timestamp::from_second(second).map_or_else(|_| second.to_string(), |time| time.to_string())
        };
        let from = if self.from == 0 { "the beginning".to_owned() } else { time(self.from) };
        let node = self.node.as_ref().map_or_else(|| "any node".to_owned(), |node| format!("node {node}"));
        let until = self.until.map_or_else(String::new, |until| format!(" until {}", time(until)));
        format!("assignment {}, {node}, from {from}{until}", self.number)
    }
}

/// There is nothing that could end.
pub(crate) fn nothing_to_end(number: i32) -> StoreError {
    StoreError::Refused(format!(
        "there is no assignment {number} that goes on at this time; `trafctl store tenants` lists them"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_a_container_together_with_another() {
        let of = |node: Option<&str>, from, until| Assignment {
            number: 7,
            tenant: "acme".to_owned(),
            container: "101".to_owned(),
            node: node.map(str::to_owned),
            from,
            until,
        };
        let all = of(None, 0, None);
        for (one, other, overlap) in [
            (of(Some("a"), 0, None), of(Some("b"), 0, None), false),
            (of(Some("a"), 0, None), all.clone(), true),
            (of(None, 300, Some(600)), of(None, 600, None), false),
            (of(None, 300, Some(601)), of(None, 600, None), true),
            (Assignment { container: "102".to_owned(), ..all.clone() }, all.clone(), false),
        ] {
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (overlap, overlap), "{one:?} {other:?}");
        }
        assert_eq!(of(None, 301, Some(900)).checked().unwrap().from, 300);
        assert!(of(None, 301, Some(599)).checked().is_err());
        assert!(Assignment { tenant: "a\nb".to_owned(), ..all.clone() }.checked().is_err());
        let nodes = ["a".to_owned(), "b".to_owned()];
        assert!(all.require_one(&nodes, true).is_err());
        assert!(all.require_one(&nodes, false).is_ok() && all.require_one(&nodes[..1], true).is_ok());
        assert!(of(Some("a"), 0, None).require_one(&nodes, true).is_ok());
    }
}
