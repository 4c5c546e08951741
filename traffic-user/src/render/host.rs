//! A [`HostReport`] as `trafctl host` prints it.

use crate::{
    node::host_report::{HostReport, Named},
    render::{json as form, rows},
};

/// One document.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn json(report: &HostReport) -> anyhow::Result<String> {
    form::document(report)
}

/// The text for people.
pub fn table(report: &HostReport) -> String {
    let dash = || "-".to_owned();
    let mut text = format!("node {}, preset {}\n", report.node, report.preset);
    if report.platforms.is_empty() {
        text += "no platform found\n";
    } else {
        let platforms = report.platforms.iter();
        let platforms = platforms.map(|found| vec![found.title.clone(), found.evidence.join(", ")]);
        text += &format!("\n{}", rows(&["PLATFORM", "FOUND BY"], platforms));
    }
    if !report.interfaces.is_empty() || !report.on_uplinks.is_empty() {
        let interfaces = report.interfaces.iter().map(|one| {
            let container = one.owner.as_ref().map_or_else(|| "(shared)".to_owned(), |o| o.container.clone());
            let of = |value: Option<String>| value.unwrap_or_else(dash);
            vec![
                one.interface.clone(),
                container,
                of(one.owner.as_ref().and_then(|owner| owner.name.clone())),
                of(one.owner.as_ref().and_then(|owner| owner.platform.map(str::to_owned))),
                one.rule.clone(),
            ]
        });
        let on_uplinks = report.on_uplinks.iter().map(|device| {
            vec![
                device.interface.clone(),
                device.owner.container.clone(),
                device.owner.name.clone().unwrap_or_else(dash),
                device.owner.platform.map_or_else(dash, str::to_owned),
                format!("the container's addresses, on the uplink {}", device.uplink),
            ]
        });
        let header = ["INTERFACE", "CONTAINER", "NAME", "PLATFORM", "ASSIGNED BY"];
        text += &format!("\n{}", rows(&header, interfaces.chain(on_uplinks)));
    }
    if !report.without_interface.is_empty() {
        let names: Vec<_> = report.without_interface.iter().map(shown).collect();
        text += &format!(
            "\nwithout an interface on this host (the host's network, or none), so not counted apart:\n  \
             {}\n",
            names.join("\n  ")
        );
    }
    if !report.others.is_empty() {
        let names: Vec<_> = report.others.iter().map(|other| other.interface.as_str()).collect();
        text += &format!("\nother interfaces: {}; --format json has the reasons\n", names.join(", "));
    }
    for one in &report.interfaces {
        if let Some(what) = &one.before_hook {
            text += &format!(
                "\nBEFORE TRAFCTL {}: {what} sees packets first; what it drops, answers or redirects is not counted, \
                 and becomes a gap\n",
                one.interface
            );
        }
    }
    for one in &report.pending {
        text += &format!(
            "\nCOUNTED PENDING {} as {}: {}; {}\n",
            one.interface, one.pending, one.reason, one.advice
        );
    }
    for one in &report.not_counted {
        text += &format!("\nNOT COUNTED {}: {}; {}\n", one.interface, one.reason, one.advice);
    }
    for device in report.advice_on_devices() {
        text += &format!("\nNOT COUNTED {device}\n");
    }
    for problem in &report.problems {
        text += &format!("\nPROBLEM {problem}\n");
    }
    text
}

fn shown(named: &Named) -> String {
    let about: Vec<&str> = named.name.as_deref().into_iter().chain(named.platform).collect();
    format!("{} ({})", named.container, about.join(", "))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::node::{
        host_report::{FoundPlatform, NotCounted, OnUplink, Other, OwnedInterface, PendingOwner},
        status::WithoutHostEnd,
    };

    fn sample() -> HostReport {
        let named = |container: &str, name: Option<&str>, platform| Named {
            container: container.to_owned(),
            name: name.map(str::to_owned),
            platform,
        };
        let owned = |interface: &str, ifindex, owner, rule: &str| OwnedInterface {
            interface: interface.to_owned(),
            ifindex,
            kind: "veth".to_owned(),
            shared: Option::is_none(&owner),
            before_hook: (ifindex == 6).then(|| "an XDP program (native, id 12)".to_owned()),
            owner,
            rule: rule.to_owned(),
        };
        HostReport {
            node: "n1".to_owned(),
            preset: "auto",
            platforms: vec![FoundPlatform {
                platform: "docker",
                title: "Docker".to_owned(),
                evidence: vec!["/run/docker.sock".to_owned(), "/var/lib/docker/containers".to_owned()],
            }],
            interfaces: vec![
                owned(
                    "veth1a2b3c4",
                    5,
                    Some(named("4a6e1f0b2c3d", Some("shop_web"), Some("docker"))),
                    "the network namespace of its other end: cgroup /system.slice/docker-4a6e.scope",
                ),
                owned("venet0", 6, None, "the rule for names ^venet0$"),
            ],
            pending: vec![PendingOwner {
                interface: "veth8".to_owned(),
                ifindex: 8,
                kind: "veth".to_owned(),
                pending: "pending:veth8:8:20261128T224530Z".to_owned(),
                reason: "its container is not listed yet".to_owned(),
                advice: "name its container",
            }],
            not_counted: vec![NotCounted {
                interface: "veth9".to_owned(),
                ifindex: 9,
                kind: "veth".to_owned(),
                reason: "no container of a known platform".to_owned(),
                advice: "name its container",
            }],
            on_uplinks: vec![OnUplink {
                interface: "shop/eth1".to_owned(),
                kind: "ipvlan".to_owned(),
                uplink: "eno2".to_owned(),
                owner: named("shop", None, Some("lxc")),
            }],
            without_host_end: vec![WithoutHostEnd {
                interface: "mail/eth0".to_owned(),
                container: Some("mail".to_owned()),
                kind: "macvlan".to_owned(),
                parent: Some("eno1".to_owned()),
                reason: "a macvlan on eno1 of container mail (LXC)".to_owned(),
            }],
            without_interface: vec![named("77c0ffee2c3d", Some("side"), Some("docker"))],
            others: vec![Other { interface: "lo".to_owned(), reason: "it is the loopback".to_owned() }],
            problems: vec!["/etc/pve/lxc/101.conf: cannot use it: it is a FIFO".to_owned()],
        }
    }

    #[test]
    fn table_is_stable() {
        assert_snapshot!("host_table", table(&sample()));
    }

    #[test]
    fn json_is_stable() {
        assert_snapshot!("host_json", json(&sample()).unwrap());
    }
}
