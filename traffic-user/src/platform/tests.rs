//! A host in a folder: files in the real formats, and a kernel that knows which process is where.

use std::{collections::HashMap, fs, io, path::Path};

use super::{
    netns::NamespaceIds,
    survey::{Survey, Surveyor},
};
use crate::net::interface::NetInterface;

const WEB: &str = "4a6e1f0b2c3d4e5f60718293a4b5c6d7e8f90123456789abcdef0123456789ab";
const DB: &str = "77c0ffee2c3d4e5f60718293a4b5c6d7e8f90123456789abcdef0123456789cd";
const UUID: &str = "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f";

/// A host in a folder.
struct Host {
    folder: tempfile::TempDir,
    /// The network namespace of each process, by the kernel's id.
    processes: HashMap<u32, i32>,
    /// Those of files.
    files: HashMap<String, i32>,
    interfaces: Vec<NetInterface>,
    /// The interfaces in the namespaces.
    inside: HashMap<i32, Vec<NetInterface>>,
    /// Whether nobody may look into them.
    refuses: bool,
}

/// The id of the host's own namespace.
const OWN: i32 = 77;

impl Host {
    /// A host with cgroup v2 and nothing else.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Self {
            folder,
            processes: HashMap::new(),
            files: HashMap::new(),
            interfaces: Vec::new(),
            inside: HashMap::new(),
            refuses: false,
        };
        host.write("/sys/fs/cgroup/cgroup.procs", "1\n");
        host
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) -> &Self {
        let place = self.folder.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
        self
    }

    /// A process in a cgroup and in a network namespace; `None` for that of the host.
    fn process(&mut self, cgroup: &str, pid: u32, namespace: Option<i32>) -> &mut Self {
        self.write(&format!("/sys/fs/cgroup/{cgroup}/cgroup.procs"), format!("{pid}\n"));
        self.processes.extend(namespace.map(|id| (pid, id)));
        self
    }

    /// A veth whose other end is in a namespace.
    fn veth(&mut self, name: &str, namespace: i32) -> &mut Self {
        let index = 100 + u32::try_from(self.interfaces.len()).unwrap();
        self.interfaces.push(NetInterface {
            index,
            name: name.to_owned(),
            kind: "veth".to_owned(),
            peer: Some(2),
            peer_is_elsewhere: true,
            peer_namespace: Some(namespace),
            ..NetInterface::default()
        });
        self
    }

    fn tap(&mut self, name: &str) -> &mut Self {
        let index = 100 + u32::try_from(self.interfaces.len()).unwrap();
        let (name, kind) = (name.to_owned(), "tun".to_owned());
        self.interfaces.push(NetInterface { index, name, kind, ethernet: true, ..NetInterface::default() });
        self
    }

    fn survey(&self) -> Survey {
        Surveyor::below(self.folder.path()).of_interfaces(&self.interfaces, self).unwrap()
    }

    /// Each interface with its owner, or why that is unknown.
    fn owners(&self) -> Vec<String> {
        let survey = self.survey();
        assert_eq!(survey.problems, [""; 0]);
        let owner = |interface: &NetInterface| match survey.of(interface).map(|found| &found.owner) {
            Some(Ok(owner)) => format!("{} = {owner}", interface.name),
            Some(Err(reason)) => format!("{} ? {reason}", interface.name),
            None => format!("{} -", interface.name),
        };
        self.interfaces.iter().map(owner).collect()
    }
}

impl NamespaceIds for Host {
    fn of_process(&self, pid: u32) -> io::Result<Option<i32>> {
        Ok(self.processes.get(&pid).copied())
    }

    fn of_file(&self, path: &Path) -> io::Result<Option<i32>> {
        let name = format!("/{}", path.strip_prefix(self.folder.path()).unwrap().display());
        Ok(self.files.get(&name).copied())
    }

    fn address_in(&self, namespace: i32, index: u32) -> io::Result<Option<[u8; 6]>> {
        Ok(Some([2, 0, 0, 0, u8::try_from(namespace).unwrap_or(0), u8::try_from(index).unwrap_or(0)]))
    }

    fn own(&self) -> io::Result<i32> {
        Ok(OWN)
    }

    fn number_of_process(&self, pid: u32) -> io::Result<i32> {
        Ok(self.of_process(pid)?.unwrap_or(OWN))
    }

    fn number_of_file(&self, path: &Path) -> io::Result<i32> {
        self.of_file(path)?.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
    }

    fn interfaces_in(&self, namespace: i32) -> io::Result<Vec<NetInterface>> {
        if self.refuses {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        // The host's own would be taken for a container's.
        assert_ne!(namespace, OWN);
        Ok(self.inside.get(&namespace).cloned().unwrap_or_default())
    }
}

fn docker_file(id: &str, name: &str, sandbox: &str) -> String {
    format!(
        r#"{{"StreamConfig":{{}},"State":{{"Running":true,"Paused":false,"Pid":4711,"ExitCode":0}},"ID":"{id}",
        "Created":"2026-11-28T22:00:00Z","Config":{{"Hostname":"x","Image":"bb"}},"Name":"/{name}",
        "NetworkSettings":{{"Bridge":"","SandboxID":"c","SandboxKey":"{sandbox}","Networks":{{}}}}}}"#
    )
}

#[test]
fn a_container_of_each_platform_owns_the_veth_into_its_namespace() {
    let mut host = Host::new();
    host.process("lxc.payload.mail", 10, Some(1))
        .process("lxc.monitor.mail", 11, None)
        .process("lxc.payload.web1-1", 20, Some(2))
        .process("lxc.monitor.web1-1", 21, None)
        .process(&format!("system.slice/docker-{WEB}.scope"), 30, Some(3))
        .process(&format!("machine.slice/libpod-{DB}.scope/container"), 40, Some(4))
        .process(&format!("machine.slice/libpod-conmon-{DB}.scope"), 41, None)
        .process("machine.slice/machine-my\\x2dbox.scope/payload", 50, Some(5))
        .process("machine.slice/machine-my\\x2dbox.scope/supervisor", 51, None);
    host.write("/proc/11/cmdline", "[lxc monitor] /var/lib/lxc mail\0\0\0");
    // After a crash, the cgroup's name has a number behind it.
    host.write("/proc/21/cmdline", "[lxc monitor] /var/snap/lxd/common/lxd/containers web1");
    host.write(
        &format!("/var/lib/docker/containers/{WEB}/config.v2.json"),
        docker_file(WEB, "shop_web", "/k"),
    );
    host.write(
        "/var/lib/containers/storage/overlay-containers/containers.json",
        format!(
            r#"[{{"id":"{DB}","names":["db"],"image":"i","layer":"l","metadata":"{{}}","created":"x"}}]"#
        ),
    );
    for (name, namespace) in [
        ("vethA1b2C3", 1),
        ("veth12345678", 2),
        ("veth1234567", 3),
        ("veth0", 4),
        ("ve-my-box", 5),
        ("vethx", 6),
    ] {
        host.veth(name, namespace);
    }
    assert_eq!(
        host.owners(),
        [
            "vethA1b2C3 = mail (LXC)",
            "veth12345678 = web1 (LXD)",
            "veth1234567 = 4a6e1f0b2c3d (shop_web, Docker)",
            "veth0 = 77c0ffee2c3d (db, Podman)",
            "ve-my-box = my-box (systemd-nspawn)",
            "vethx ? no container of a known platform is in the network namespace of its other end",
        ]
    );
    let survey = host.survey();
    let found: Vec<_> = survey.platforms.keys().map(|platform| platform.key()).collect();
    assert_eq!(found, ["lxd", "lxc", "nspawn", "docker", "podman"]);
    assert!(survey.of(&host.interfaces[0]).unwrap().rule.ends_with("cgroup /lxc.payload.mail"));
}

#[test]
fn the_true_name_of_a_machine_is_machineds() {
    let mut host = Host::new();
    host.write(
        "/run/systemd/machines/customer-with-long-name.example",
        "# This is private data. Do not parse.\nNAME=customer-with-long-name.example\nSERVICE=systemd-nspawn\n\
         ROOT=/var/lib/machines/x\nID=00000000000000000000000000000000\nLEADER=60\nCLASS=container\nNETIF=7\n",
    );
    host.write("/run/systemd/machines/qemu-1-vm", "NAME=qemu-1-vm\nSERVICE=libvirt-qemu\nLEADER=61\n");
    host.processes.insert(60, 6);
    host.veth("ve-customer8D2N", 6);
    assert_eq!(host.owners(), ["ve-customer8D2N = customer-with-long-name.example (systemd-nspawn)"]);
}

#[test]
fn a_tap_belongs_to_the_machine_whose_state_names_it() {
    let mut host = Host::new();
    host.write(
        "/run/libvirt/qemu/mail.xml",
        format!(
            "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n<domstatus state='running' reason='booted' \
             pid='4711'>\n  <taint flag='x'/>\n  <domain type='kvm' id='1'>\n    <name>mail</name>\n    \
             <uuid>{UUID}</uuid>\n    <devices>\n      <interface type='bridge'>\n        <mac \
             address='52:54:00:00:00:01'/>\n        <source bridge='br0'/>\n        <target dev='vnet0'/>\n      \
             </interface>\n      <interface type='hostdev'><mac address='52:54:00:00:00:02'/></interface>\n    \
             </devices>\n  </domain>\n</domstatus>\n"
        ),
    );
    host.tap("vnet0").tap("vnet1");
    assert_eq!(host.owners(), [format!("vnet0 = {UUID} (mail, libvirt)"), "vnet1 -".to_owned()]);
}

#[test]
fn the_containers_of_proxmox_are_its_own() {
    let mut host = Host::new();
    host.write("/etc/pve/nodes/pve/x", "");
    host.write(
        "/etc/pve/lxc/101.conf",
        "arch: amd64\nhostname: shop\nnet0: name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,type=veth\n\n\
         [before-upgrade]\nhostname: older\n",
    );
    host.process("lxc/101/ns", 10, Some(1)).veth("veth101i0", 1);
    assert_eq!(host.owners(), ["veth101i0 = 101 (shop, Proxmox)"]);
    let names = Surveyor::below(host.folder.path()).names();
    let names: Vec<_> = names.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
    assert_eq!(names, [("101", "shop")], "not what a snapshot was called");
}

#[test]
fn of_containers_in_one_namespace_the_one_that_did_not_join_it_owns_it() {
    let mut host = Host::new();
    host.process(&format!("docker/{WEB}"), 10, Some(1)).process(&format!("docker/{DB}"), 20, Some(1));
    host.veth("veth1234567", 1);
    let reason = &host.owners()[0];
    assert!(reason.contains("share its network namespace, and none of them alone owns it"), "{reason}");
    assert!(reason.contains("containers 4a6e1f0b2c3d (Docker) and 77c0ffee2c3d (Docker)"), "{reason}");
    host.write(
        &format!("/var/lib/docker/containers/{WEB}/config.v2.json"),
        docker_file(WEB, "app", "/run/k"),
    );
    host.write(&format!("/var/lib/docker/containers/{DB}/config.v2.json"), docker_file(DB, "side", ""));
    assert_eq!(host.owners(), ["veth1234567 = 4a6e1f0b2c3d (app, Docker)"]);
    let running: Vec<_> =
        host.survey().running.iter().map(|one| (one.owner.id.to_string(), one.has_interface)).collect();
    assert_eq!(running, [("4a6e1f0b2c3d".to_owned(), true), ("77c0ffee2c3d".to_owned(), false)]);
}

#[test]
fn a_pod_owns_the_interface_of_its_containers() {
    let mut host = Host::new();
    let under = UUID.replace('-', "_");
    let pod = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice");
    host.process(&format!("{pod}/cri-containerd-{WEB}.scope"), 10, Some(1))
        .process(&format!("{pod}/cri-containerd-{DB}.scope"), 11, Some(1))
        .veth("veth9a8b7c6d", 1);
    host.write(&format!("/var/log/pods/shop_web-0_{UUID}/web/0.log"), "");
    assert_eq!(host.owners(), [format!("veth9a8b7c6d = {UUID} (shop/web-0, Kubernetes)")]);
}

#[test]
fn two_platforms_with_one_id_are_not_merged() {
    let mut host = Host::new();
    host.process("lxc.payload.web", 10, Some(1))
        .process("machine.slice/machine-web.scope", 20, Some(2))
        .veth("vethA1b2C3", 1)
        .veth("ve-web", 2);
    let survey = host.survey();
    let id = |at: usize| survey.of(&host.interfaces[at]).unwrap().owner.as_ref().unwrap().id.to_string();
    assert_eq!((id(0), id(1)), ("web".to_owned(), "nspawn:web".to_owned()));
    assert_eq!(survey.problems.len(), 1, "{:?}", survey.problems);
    assert!(survey.problems[0].starts_with("LXC and systemd-nspawn each have a container web"));
}

#[test]
fn an_answer_is_valid_for_that_device_only() {
    let mut host = Host::new();
    host.process("lxc.payload.web", 10, Some(1)).veth("vethA1b2C3", 1);
    let survey = host.survey();
    let of = |change: &dyn Fn(&mut NetInterface)| {
        let mut interface = host.interfaces[0].clone();
        change(&mut interface);
        survey.of(&interface).is_some()
    };
    assert!(of(&|_| {}));
    assert!(of(&|interface| "renamed".clone_into(&mut interface.name)));
    assert!(!of(&|interface| interface.index = 7));
    assert!(!of(&|interface| interface.peer_namespace = Some(2)));
    assert!(!of(&|interface| interface.peer = Some(3)));
    assert!(!of(&|interface| interface.peer_namespace = None));
}

#[test]
fn what_was_known_stays_while_nothing_else_is_known() {
    let mut host = Host::new();
    host.process("lxc.payload.web", 10, Some(1)).veth("vethA1b2C3", 1);
    let first = host.survey();
    let id = |survey: &Survey| {
        survey.of(&host.interfaces[0]).map(|found| found.owner.clone().unwrap().id.to_string())
    };
    // Its last process has just ended.
    fs::remove_file(host.folder.path().join("sys/fs/cgroup/lxc.payload.web/cgroup.procs")).unwrap();
    let mut second = host.survey();
    assert!(second.of(&host.interfaces[0]).unwrap().owner.is_err());
    assert_eq!(second.keep_known(&first), [""; 0]);
    assert_eq!(id(&second).as_deref(), Some("web"));
    assert!(!second.differs_from(&first));
    // A listing may lack it; more than two in a row do not.
    let empty = Host::new();
    let mut survey = second;
    for known in [true, true, false] {
        let mut next = empty.survey();
        next.keep_known(&survey);
        assert_eq!(next.of(&host.interfaces[0]).is_some(), known);
        survey = next;
    }
    // Another container uses the namespace now.
    let mut other = Host::new();
    other.process("lxc.payload.db", 10, Some(1)).veth("vethA1b2C3", 1);
    let mut third = other.survey();
    assert!(third.differs_from(&first));
    let changes = third.keep_known(&first);
    assert!(changes[0].starts_with("interface 100 passes from web (LXC) to db (LXC)"), "{changes:?}");
}

#[test]
fn what_cannot_be_read_costs_only_itself() {
    let mut host = Host::new();
    host.process("lxc.payload.web", 10, Some(1)).veth("vethA1b2C3", 1);
    host.write(&format!("/var/lib/docker/containers/{WEB}/config.v2.json"), "{\"ID\": 7");
    host.write(&format!("/var/lib/docker/containers/{DB}/config.v2.json"), docker_file(DB, "db", "/k"));
    host.write("/run/libvirt/qemu/a.xml", "<domstatus><domain>");
    host.write("/run/systemd/machines/x", "NAME=x\nSERVICE=systemd-nspawn\n");
    let pve = host.folder.path().join("etc/pve/lxc");
    fs::create_dir_all(&pve).unwrap();
    crate::files::tests::make_fifo(&pve.join("101.conf"));
    fs::File::create(pve.join("102.conf")).unwrap().set_len(1 << 40).unwrap();
    host.write("/var/lib/containers/storage/overlay-containers/containers.json", [0xff, 0xfe]);
    let survey = host.survey();
    assert_eq!(survey.of(&host.interfaces[0]).unwrap().owner.as_ref().unwrap().id.as_str(), "web");
    assert!(Surveyor::below(host.folder.path()).names().values().any(|name| name == "db"));
    let starts = [
        "/etc/pve/lxc/101.conf: cannot use it: it is a FIFO",
        "/etc/pve/lxc/102.conf: cannot use it: it is larger than",
        "/run/libvirt/qemu/a.xml: cannot use it: ",
        "/run/systemd/machines/x: cannot use it: it has no LEADER=",
        "/var/lib/docker/containers/4a6e",
        "/var/lib/containers/storage/overlay-containers/containers.json: cannot use it: ",
    ];
    assert_eq!(survey.problems.len(), starts.len(), "{:#?}", survey.problems);
    for (problem, start) in survey.problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn with_cgroup_v1_any_hierarchy_has_the_containers() {
    let mut host = Host::new();
    fs::remove_file(host.folder.path().join("sys/fs/cgroup/cgroup.procs")).unwrap();
    host.process(&format!("unified/docker/{WEB}"), 9, None);
    fs::write(host.folder.path().join(format!("sys/fs/cgroup/unified/docker/{WEB}/cgroup.procs")), "")
        .unwrap();
    host.process(&format!("systemd/docker/{WEB}"), 10, Some(1))
        .process(&format!("memory/docker/{WEB}"), 10, Some(1))
        .process("memory/lxc/db", 20, Some(2))
        .veth("veth1234567", 1)
        .veth("vethA1b2C3", 2);
    assert_eq!(host.owners(), ["veth1234567 = 4a6e1f0b2c3d (Docker)", "vethA1b2C3 = db (LXC)"]);
}

#[test]
fn the_name_of_a_namespace_without_a_container_is_shown() {
    let mut host = Host::new();
    host.write("/run/netns/blue", "");
    host.files.insert("/run/netns/blue".to_owned(), 8);
    host.veth("veth0", 8);
    assert!(host.owners()[0].contains("in the network namespace /run/netns/blue of its other end"));
}

#[test]
fn only_what_leads_past_the_host_is_named_of_the_devices_in_containers() {
    let mut host = Host::new();
    host.veth("vethQ7x2Ab", 4)
        .tap("eno1")
        .process("lxc.payload.mail", 4100, Some(4))
        .process("lxc.payload.none", 4200, None)
        .write("/run/netns/router", "")
        .write("/run/netns/mail", "");
    host.files.insert("/run/netns/router".to_owned(), 9);
    // The same namespace as the container's, and one that is none.
    host.files.insert("/run/netns/mail".to_owned(), 4);
    let eno1 = host.interfaces[1].index;
    let device = |index: u32, name: &str, kind: &str, on: Option<(i32, u32)>| NetInterface {
        index,
        name: name.to_owned(),
        kind: kind.to_owned(),
        ethernet: name != "lo",
        peer_is_elsewhere: on.is_some(),
        peer_namespace: on.map(|(namespace, _)| namespace),
        peer: on.map(|(_, index)| index).filter(|&on| on != index),
        ..NetInterface::default()
    };
    let of_mail = vec![
        device(1, "lo", "", None),
        device(2, "eth0", "veth", Some((OWN, 100))),
        device(3, "eth1", "macvlan", Some((OWN, eno1))),
        device(4, "card", "", None),
        // On a device of the container, and of another one.
        NetInterface { peer: Some(2), ..device(5, "own", "macvlan", None) },
        device(6, "cable", "vlan", Some((8, 3))),
        device(7, "tun0", "tun", None),
        // Of one index with the interface below it, and on one that is gone.
        device(eno1, "same", "ipvlan", Some((OWN, eno1))),
        device(8, "gone\u{1b}[2J", "vlan", Some((OWN, 555))),
    ];
    host.inside.insert(4, of_mail);
    host.inside.insert(9, vec![device(2, "wan", "macvtap", Some((OWN, eno1)))]);
    let survey = host.survey();
    let shown: Vec<String> =
        survey.inside.iter().map(|one| format!("{}: {}", one.label, one.why())).collect();
    let why = |what: &str| {
        format!("{what}, in container mail (LXC): it has no end on this host, so that nothing counts it")
    };
    assert_eq!(
        shown,
        [
            format!("mail/eth1: {}", why("a macvlan on eno1")),
            format!("mail/card: {}", why("a network card of its own")),
            format!("mail/same: {}", why("an ipvlan on eno1")),
            format!("mail/gone\\u{{1b}}[2J: {}", why("a vlan on interface 555")),
            "router/wan: a macvtap on eno1: it has no end on this host, so that nothing counts it, and no container of \
             a known platform is in the network namespace /run/netns/router"
                .to_owned(),
        ]
    );
    // The internal port of a switch that the host has, unless the container has one of its own.
    let switched = |devices: Vec<NetInterface>, on_host: bool| {
        let mut host = Host::new();
        host.process("lxc.payload.mail", 4100, Some(4));
        if on_host {
            let index = 70;
            host.interfaces.push(NetInterface { index, ..device(index, "ovs0", "openvswitch", None) });
        }
        host.inside.insert(4, devices);
        let found = host.survey().inside;
        found.into_iter().map(|one| format!("{}: {}", one.label, one.why())).collect::<Vec<_>>()
    };
    let port = || device(8, "eth0", "openvswitch", None);
    assert_eq!(
        switched(vec![port()], true),
        [format!("mail/eth0: {}", why("an internal port of the host's Open vSwitch"))]
    );
    assert_eq!(switched(vec![port()], false), [""; 0]);
    assert_eq!(switched(vec![device(7, "ovs-system", "openvswitch", None), port()], true), [""; 0]);

    let mut earlier = survey.clone();
    assert!(!survey.differs_from(&earlier));
    earlier.inside.pop();
    assert!(survey.differs_from(&earlier));

    // The kernel refuses or does not answer: what was known stays, and it is a problem.
    host.refuses = true;
    let mut without = host.survey();
    assert!(without.inside.is_empty());
    let problem = "cannot look into the containers' network namespaces for devices that are not counted";
    assert!(without.problems.iter().any(|text| text.starts_with(problem)), "{:?}", without.problems);
    without.keep_known(&survey);
    assert_eq!(without.inside, survey.inside);
    // A container that ended is no refusal.
    host.refuses = false;
    host.inside.clear();
    let mut ended = host.survey();
    ended.keep_known(&survey);
    assert!(ended.inside.is_empty());
    assert_eq!(survey.problems, [""; 0]);
}
