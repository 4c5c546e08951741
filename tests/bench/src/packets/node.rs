//! A node with 100 containers behind veth pairs, which routes their packets to a destination that drops them.

use anyhow::{Context as _, Result};
use traffic_tests::{Lab, Namespace};

/// The number of containers.
pub const CONTAINERS: u8 = 100;
/// The destination's own address, for connections.
pub const WORLD: [u8; 4] = [10, 254, 0, 2];

/// The namespaces.
pub struct Node {
    /// The node.
    pub lab: Lab,
    /// The containers.
    pub containers: Vec<Namespace>,
    /// Everything beyond the uplink.
    pub world: Namespace,
}

/// The name of a container's interface on the node.
pub fn interface(container: usize) -> String {
    format!("veth{}.0", id(container))
}

/// The id of a container.
pub fn id(container: usize) -> usize {
    container + 101
}

impl Node {
    /// Creates the namespaces.
    pub fn new(config: &str) -> Result<Self> {
        let lab = Lab::new("packets")?;
        lab.configure(config)?;
        let world = Namespace::new("world")?;
        let host = lab.host();
        host.ip_batch(&format!(
            "address add 10.0.0.1/32 dev lo
             link add up0 address 02:00:00:00:fe:01 type veth peer name eth0 address 02:00:00:00:fe:02 netns {}
             address add 10.254.0.1/32 dev up0
             link set up0 up
             neighbour add 10.254.0.2 lladdr 02:00:00:00:fe:02 dev up0 nud permanent
             route add default via 10.254.0.2 dev up0 onlink\n",
            world.name()
        ))?;
        host.ip_batch(
            "address add fd00:fe::1/64 dev up0 nodad
             neighbour add fd00:fe::2 lladdr 02:00:00:00:fe:02 dev up0 nud permanent
             route add default via fd00:fe::2 dev up0\n",
        )?;
        host.sysctl("ipv4/ip_forward", "1")?;
        host.sysctl("ipv6/conf/all/forwarding", "1")?;
        world.sysctl("ipv6/conf/all/forwarding", "1")?;
        world.ip_batch(
            "address add 10.254.0.2/32 dev eth0
             link set eth0 up
             neighbour add 10.254.0.1 lladdr 02:00:00:00:fe:01 dev eth0 nud permanent
             route add 10.1.0.0/16 via 10.254.0.1 dev eth0 onlink
             route add blackhole default
             address add fd00:fe::2/64 dev eth0 nodad
             route add blackhole ::/0\n",
        )?;
        let mut containers = Vec::new();
        for number in 0..CONTAINERS {
            containers.push(container(host, number)?);
        }
        // The rule that silences the lab's namespaces looks at every packet that is sent.
        for namespace in containers.iter().chain([&world, host]) {
            traffic_tests::process::run_ok(namespace.command("nft").args(["flush", "ruleset"]))
                .context("cannot remove the rule that silences a namespace")?;
        }
        Ok(Self { lab, containers, world })
    }
}

fn container(host: &Namespace, number: u8) -> Result<Namespace> {
    let name = interface(number.into());
    let namespace = Namespace::new(&name)?;
    host.ip_batch(&format!(
        "link add {name} address 02:00:00:00:01:{number:02x} type veth peer name eth0 address 02:00:00:00:02:{number:02x} netns {}
         link set {name} up
         route add 10.1.0.{number}/32 dev {name}
         neighbour add 10.1.0.{number} lladdr 02:00:00:00:02:{number:02x} dev {name} nud permanent
         address add fd00:1:{number:x}::ffff/64 dev {name} nodad\n",
        namespace.name()
    ))?;
    namespace.ip_batch(&format!(
        "address add 10.1.0.{number}/32 dev eth0
         link set eth0 up
         neighbour add 10.0.0.1 lladdr 02:00:00:00:01:{number:02x} dev eth0 nud permanent
         route add default via 10.0.0.1 dev eth0 onlink
         address add fd00:1:{number:x}::1/64 dev eth0 nodad
         neighbour add fd00:1:{number:x}::ffff lladdr 02:00:00:00:01:{number:02x} dev eth0 nud permanent
         route add default via fd00:1:{number:x}::ffff dev eth0\n"
    ))?;
    Ok(namespace)
}
