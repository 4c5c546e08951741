//! The names that platforms give the cgroups of containers. Pure.
//!
//! Only the outermost cgroup counts: what a container calls its own cgroups is below that.

use super::{Platform, is_hash};

/// The container that a cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recognised {
    pub platform: Platform,
    /// The id as the platform has it. That of an unprivileged user's container begins with the user's.
    pub id: String,
    /// For LXC and what builds on it: the cgroup of the process that watches the container, whose command line
    /// names it.
    pub monitor: Option<String>,
}

/// What a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// That of a container.
    Container(Recognised),
    /// One that holds nothing of interest, such as that of a container's watcher.
    Nothing,
    /// Any other: containers may be below it.
    Other,
}

/// What the cgroup `name` in the cgroup `parent` is. `parent` has the names from the top downwards.
pub(super) fn kind(parent: &[String], name: &str) -> Kind {
    if name.starts_with("libpod-conmon-") || name.starts_with("lxc.monitor") || name == "lxc.pivot" {
        return Kind::Nothing;
    }
    let last = parent.last().map_or("", String::as_str);
    let found = of_kubernetes(parent, name)
        .or_else(|| of_lxc(last, name))
        .or_else(|| of_podman(last, name))
        .or_else(|| of_docker(last, name))
        .or_else(|| of_machined(name));
    match found {
        Some(found) => Kind::Container(of_user(parent, found)),
        None if is_of_a_machine(name) => Kind::Nothing,
        None => Kind::Other,
    }
}

fn container(platform: Platform, id: &str) -> Option<Recognised> {
    (!id.is_empty()).then(|| Recognised { platform, id: id.to_owned(), monitor: None })
}

/// `lxc.payload.NAME`; `lxc.payload/NAME` of LXC 3.1; `lxc/NAME` of older ones and, as `lxc/ID/ns`, of Proxmox.
fn of_lxc(last: &str, name: &str) -> Option<Recognised> {
    let (id, monitor) = match (last, name.strip_prefix("lxc.payload.")) {
        (_, Some(id)) => (id, format!("lxc.monitor.{id}")),
        ("lxc.payload" | "lxc", None) => (name, format!("../lxc.monitor/{name}")),
        _ => return None,
    };
    let found = container(Platform::Lxc, id)?;
    Some(Recognised { monitor: Some(monitor), ..found })
}

/// `libpod-ID.scope` or `libpod-ID`, or those of a pod.
fn of_podman(last: &str, name: &str) -> Option<Recognised> {
    let pod = name.strip_prefix("machine-libpod_pod_").or_else(|| name.strip_prefix("user-libpod_pod_"));
    let pod = pod.and_then(|rest| rest.strip_suffix(".slice"));
    let one = || name.strip_prefix("libpod-").map(|rest| rest.strip_suffix(".scope").unwrap_or(rest));
    let in_parent = || (last == "libpod_parent").then_some(name);
    let id = pod.or_else(one).or_else(in_parent).filter(|id| is_hash(id))?;
    container(Platform::Podman, id)
}

/// `docker-ID.scope`, or `docker/ID`.
fn of_docker(last: &str, name: &str) -> Option<Recognised> {
    let scope = name.strip_prefix("docker-").and_then(|rest| rest.strip_suffix(".scope"));
    let id = scope.or_else(|| (last == "docker").then_some(name)).filter(|id| is_hash(id))?;
    container(Platform::Docker, id)
}

/// `kubepods-burstable-podUID.slice`, or `kubepods/burstable/podUID`. In the names of slices, dashes separate
/// parents, so that those of the id are underscores.
fn of_kubernetes(parent: &[String], name: &str) -> Option<Recognised> {
    let in_pods = parent.iter().any(|one| one.starts_with("kubepods"));
    let slice = name.strip_prefix("kubepods").and_then(|rest| rest.strip_suffix(".slice"));
    let id = match slice {
        Some(rest) => rest.rsplit_once("-pod").map(|(_, id)| id.replace('_', "-"))?,
        None if in_pods => name.strip_prefix("pod")?.to_owned(),
        None => return None,
    };
    (id.len() >= 32).then_some(())?;
    container(Platform::Kubernetes, &id)
}

/// `machine-NAME.scope`, or `systemd-nspawn@NAME.service`, with the escapes of unit names.
fn of_machined(name: &str) -> Option<Recognised> {
    let scope = || name.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"));
    let service = || name.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service"));
    let machine = unescaped(scope().or_else(service)?);
    if is_of_libvirt(&machine) {
        return None;
    }
    container(Platform::Nspawn, &machine)
}

/// Whether it is the scope of a machine that libvirt registered: `machine-qemu\x2d7\x2dNAME.scope`. Its
/// processes are in the host's network namespace, and its name changes with each start.
fn is_of_a_machine(name: &str) -> bool {
    let scope = name.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"));
    scope.is_some_and(|machine| is_of_libvirt(&unescaped(machine)))
}

fn is_of_libvirt(machine: &str) -> bool {
    ["qemu-", "lxc-"].iter().any(|prefix| {
        let rest = machine.strip_prefix(prefix).unwrap_or("");
        rest.split_once('-').is_some_and(|(id, _)| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Replaces `\xNN` by the byte. What is not UTF-8 then stays as it is.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        let (before, escape) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        match escape.get(2..4).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &escape[4..];
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = &escape[2..];
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// A user can call their own cgroups as they like. So the id of a container below a user's slice begins with the
/// number of the user, and is nobody else's.
fn of_user(parent: &[String], found: Recognised) -> Recognised {
    let user = parent.iter().find_map(|one| one.strip_prefix("user-")?.strip_suffix(".slice"));
    // Where `pam_cgfs` makes the cgroups: `user/NAME/0`.
    let by_name = || (parent.first().map(String::as_str) == Some("user")).then(|| parent.get(1)).flatten();
    match user.or_else(|| by_name().map(String::as_str)) {
        Some(user) => Recognised { id: format!("{user}:{}", found.id), ..found },
        None => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "4a6e1f0b2c3d4e5f60718293a4b5c6d7e8f90123456789abcdef0123456789ab";

    fn of(path: &str) -> String {
        let mut parent: Vec<String> = Vec::new();
        for name in path.split('/') {
            match kind(&parent, name) {
                Kind::Container(found) => return format!("{} {}", found.platform.key(), found.id),
                Kind::Nothing => return "nothing".to_owned(),
                Kind::Other => parent.push(name.to_owned()),
            }
        }
        "-".to_owned()
    }

    #[test]
    fn the_outermost_cgroup_of_a_container_is_recognised() {
        let uid = "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f";
        let under = uid.replace('-', "_");
        let cases = [
            ("lxc.payload.web/init.scope", "lxc web".to_owned()),
            ("lxc.monitor.web", "nothing".to_owned()),
            ("lxc/101/ns/system.slice", "lxc 101".to_owned()),
            ("lxc.payload/db", "lxc db".to_owned()),
            // A container in a container is the outer one's.
            (&format!("lxc.payload.web/docker/{HASH}"), "lxc web".to_owned()),
            ("system.slice/ssh.service", "-".to_owned()),
            (&format!("system.slice/docker-{HASH}.scope"), format!("docker {HASH}")),
            (&format!("docker/{HASH}"), format!("docker {HASH}")),
            ("docker/buildkit", "-".to_owned()),
            ("system.slice/docker-compose.scope", "-".to_owned()),
            (&format!("machine.slice/libpod-{HASH}.scope/container"), format!("podman {HASH}")),
            (&format!("machine.slice/libpod-conmon-{HASH}.scope"), "nothing".to_owned()),
            (&format!("libpod_parent/libpod-{HASH}"), format!("podman {HASH}")),
            (
                &format!("machine.slice/machine-libpod_pod_{HASH}.slice/libpod-{}.scope", "b".repeat(64)),
                format!("podman {HASH}"),
            ),
            (&format!("libpod_parent/{HASH}/libpod-{}", "b".repeat(64)), format!("podman {HASH}")),
            ("machine.slice/machine-my\\x2dweb.scope/payload", "nspawn my-web".to_owned()),
            ("machine.slice/systemd-nspawn@mail.service/payload", "nspawn mail".to_owned()),
            ("machine.slice/machine-qemu\\x2d7\\x2dweb.scope/emulator", "nothing".to_owned()),
            ("machine.slice/machine-lxc\\x2d4711\\x2dweb.scope", "nothing".to_owned()),
            (
                &format!(
                    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/\
                     cri-containerd-{HASH}.scope"
                ),
                format!("kubernetes {uid}"),
            ),
            (&format!("kubepods.slice/kubepods-pod{under}.slice"), format!("kubernetes {uid}")),
            (&format!("kubepods/besteffort/pod{uid}/{HASH}"), format!("kubernetes {uid}")),
            // A user's own cgroups.
            (
                &format!("user.slice/user-1000.slice/user@1000.service/app.slice/docker-{HASH}.scope"),
                format!("docker 1000:{HASH}"),
            ),
            ("user.slice/user-1000.slice/session-3.scope/lxc.payload.web", "lxc 1000:web".to_owned()),
            ("user/jane/0/lxc/web", "lxc jane:web".to_owned()),
        ];
        for (path, expected) in cases {
            assert_eq!(of(path), expected, "{path}");
        }
    }

    #[test]
    fn escapes_of_unit_names_are_undone() {
        for (text, expected) in
            [("a\\x2db", "a-b"), ("\\x2d", "-"), ("a\\x", "a\\x"), ("\\xzz", "\\xzz"), ("\\xff", "\\xff")]
        {
            assert_eq!(unescaped(text), expected, "{text}");
        }
    }
}
