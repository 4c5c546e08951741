//! The metrics of the daemon's optional parts, and of what it leaves out.

use super::page::{Kind, Metric, Page};
use crate::{api::DaemonHealth, health::State};

const UNCOUNTED: Metric = Metric {
    kind: Kind::Gauge,
    name: "trafctl_uncounted_interfaces",
    unit: None,
    help: "Interfaces that look like those of containers and are not counted; `trafctl host` lists them.",
};

/// The daemon's optional parts. Those that the configuration does not ask for have no samples.
pub(super) fn write(page: &mut Page, health: &DaemonHealth) {
    let asked_for = || health.components.iter().filter(|component| component.state != State::Disabled);
    if asked_for().next().is_none() {
        return;
    }
    page.single(UNCOUNTED, health.uncounted);
    let works = Metric {
        kind: Kind::Gauge,
        name: "trafctl_component_works",
        unit: None,
        help: "Whether an optional part of the daemon works: 1 if so, 0 while it fails and is retried.",
    };
    page.open(works);
    for component in asked_for() {
        page.sample(works, &[("component", &component.name)], u8::from(component.state == State::Ok));
    }
    let failures = Metric {
        kind: Kind::Gauge,
        name: "trafctl_component_failures",
        unit: None,
        help: "Failed attempts since an optional part of the daemon last worked.",
    };
    page.open(failures);
    for component in asked_for() {
        page.sample(failures, &[("component", &component.name)], component.failures);
    }
}
