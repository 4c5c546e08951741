//! Tenants: customers with several containers, who share an allowance. A container may move from one to another.

use jiff::civil::Date;

use crate::{file::Quotas, scope::Container};

/// Containers of a tenant, for a time. A tenant may have several such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The tenant's name.
    pub tenant: String,
    /// The line of the file on which it begins, from 1.
    pub line: usize,
    /// Ids of containers.
    pub containers: Vec<String>,
    /// The first day; `None` for always before.
    pub from: Option<Date>,
    /// The first day on which it is not so any more; `None` for always after.
    pub until: Option<Date>,
}

impl Assignment {
    /// Whether it is so on a day; without a day, whether it is so now and for ever.
    fn is_on(&self, day: Option<Date>) -> bool {
        match day {
            Some(day) => {
                self.from.is_none_or(|from| from <= day) && self.until.is_none_or(|until| day < until)
            }
            None => self.until.is_none(),
        }
    }
}

/// Whether two are so at the same time.
pub(crate) fn meet(one: &Assignment, other: &Assignment) -> bool {
    let begins_before_end = |one: &Assignment, other: &Assignment| match (one.from, other.until) {
        (Some(from), Some(until)) => from < until,
        _ => true,
    };
    begins_before_end(one, other) && begins_before_end(other, one)
}

impl Quotas {
    /// All that a tenant has or had.
    pub fn assignments<'q>(&'q self, tenant: &'q str) -> impl Iterator<Item = &'q Assignment> {
        self.tenants.iter().filter(move |one| one.tenant == tenant)
    }

    /// The tenant of a container on its day.
    pub fn tenant_of(&self, container: &Container) -> Option<&str> {
        let has = |one: &&Assignment| {
            one.is_on(container.day) && one.containers.iter().any(|id| container.ids.contains(id))
        };
        self.tenants.iter().find(has).map(|one| one.tenant.as_str())
    }
}

#[cfg(test)]
#[path = "tenant_tests.rs"]
mod tests;
