//! Three temporary nodes that ship their ledgers to a PostgreSQL, which is stopped half way, while a container moves
//! from one node to another. At the end, the figures of the senders, the ledgers and the store are side by side.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use traffic_tests::{
    Amounts, Container, Daemon, Lab,
    check::{booked, eventually, hooks, reported},
    container::introduce,
    interrupt,
    postgres::Postgres,
    process::Process,
    traffic::{tcp_transfer, udp_send},
};

use crate::{print, step};

/// The prices of the networks: class 2 is a part of the world.
const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n2 203.0.113.0/24\n";

/// The nodes and their containers. The first container moves to the second node.
const NODES: [(&str, &[u32]); 3] =
    [("node1", &[101, 102, 103]), ("node2", &[201, 202]), ("node3", &[301, 302])];

/// The customer of the container that moves.
const TENANT: &str = "acme";

const MEGABYTE: u64 = 1 << 20;

/// The limit of the end of a process.
const PATIENCE: Duration = Duration::from_secs(20);

/// Shows the fleet. Whether all figures agree.
///
/// # Errors
///
/// When something cannot be created or sent, a row does not arrive, or the user wants the end.
pub(crate) fn run() -> Result<bool> {
    step("create three nodes, and a store in PostgreSQL")?;
    let office = Lab::new("office")?;
    let mut server = Postgres::start(office.host(), &[])?;
    let store = Store { office: &office, owner: server.url("postgres"), reader: server.url("bill") };
    store.owner(&["store", "init"], &[])?;
    server.query("create user bill in role trafctl_read")?;
    let mut nodes = Vec::new();
    for (number, (name, containers)) in (1..).zip(NODES) {
        server.query(&format!("create user {name} in role trafctl_ship"))?;
        nodes.push(Node::new(number, name, containers, &server.url(name))?);
    }
    step("trafctl run and trafctl ship on each node")?;
    let mut fleet = Vec::new();
    for node in &nodes {
        fleet.push(Services::start(node).with_context(|| node.name)?);
    }
    let mut sent = Sent::default();
    step("send TCP and UDP over IPv4 and IPv6")?;
    send_everywhere(&nodes, &mut sent)?;

    step("stop PostgreSQL, and send more")?;
    server.stop()?;
    send_everywhere(&nodes, &mut sent)?;
    step("move container 101 from node1 to node2, with its addresses, and send more")?;
    move_container(&mut nodes)?;
    send_everywhere(&nodes, &mut sent)?;

    step("start PostgreSQL, and wait for the rows")?;
    server.restart()?;
    for (node, services) in nodes.iter().zip(fleet) {
        services.end_when_shipped(node, &store, &sent).with_context(|| node.name)?;
    }
    for (name, _) in &NODES[..2] {
        store.owner(&["store", "assign"], &[TENANT, "--container", "101", "--node", name])?;
    }
    compare(&nodes, &store, &sent)
}

/// Prints the figures side by side. Whether all agree.
fn compare(nodes: &[Node], store: &Store<'_>, sent: &Sent) -> Result<bool> {
    print(&format!("\n$ trafctl store nodes $STORE\n{}", store.reader(&["store", "nodes"], &[])?))?;
    let by_tenant = ["--by-tenant", "--by", "total"];
    let shown = store.reader(&["report", "--store"], &by_tenant)?;
    print(&format!("\n$ trafctl report --store $STORE {}\n{shown}", by_tenant.join(" ")))?;
    let mut rows = Vec::new();
    for node in nodes {
        let of_node = store.report(&["--node", node.name])?;
        for (container, &counted) in sent.on(node.name) {
            rows.push(Row {
                of: node.name.to_owned(),
                container,
                figures: [counted, booked(&node.lab, container)?, reported(&of_node, container)?],
            });
        }
    }
    let total = |which: &dyn Fn(&Row) -> bool| {
        let add = |a: [Amounts; 3], row: &Row| [0, 1, 2].map(|at| a[at].plus(row.figures[at]));
        rows.iter().filter(|row| which(row)).fold([Amounts::default(); 3], add)
    };
    let tenants = store.report(&by_tenant)?;
    // The customer's own figure in the store, beside the sum of what both nodes counted.
    let [counted, ledgers, _] = total(&|row| row.container == "101");
    let of_tenant = Row {
        of: TENANT.to_owned(),
        container: "101",
        figures: [counted, ledgers, reported(&tenants, TENANT)?],
    };
    let all = Row { of: "all".to_owned(), container: "", figures: total(&|_| true) };
    rows.extend([of_tenant, all]);
    print(&format!("\nBytes by the senders, in the ledgers, and in the store:\n\n{}", table(&rows)))?;
    let is_exact = rows.iter().all(Row::is_exact);
    print(if is_exact {
        "\nevery packet and byte agrees; container 101 moved, and acme has the sum of both nodes\n"
    } else {
        "\nSOME FIGURES DIFFER\n"
    })?;
    Ok(is_exact)
}

/// The store, from a machine that is no node.
struct Store<'l> {
    office: &'l Lab,
    owner: String,
    reader: String,
}

impl Store<'_> {
    /// Runs a command as the owner of the store, whose URL comes between the arguments.
    fn owner(&self, command: &[&str], more: &[&str]) -> Result<String> {
        self.office.run_ok(&[command, &[&self.owner], more].concat())
    }

    /// Runs a command as a user who may read.
    fn reader(&self, command: &[&str], more: &[&str]) -> Result<String> {
        self.office.run_ok(&[command, &[&self.reader], more].concat())
    }

    /// A report as JSON.
    fn report(&self, options: &[&str]) -> Result<Value> {
        let options = [options, &["--format", "json"]].concat();
        serde_json::from_str(&self.reader(&["report", "--store"], &options)?)
            .context("the report is not JSON")
    }
}

/// A node, and its containers, which know each other.
struct Node {
    name: &'static str,
    // Their interfaces go before the node.
    containers: Vec<Container>,
    lab: Lab,
}

impl Node {
    fn new(number: u8, name: &'static str, ids: &[u32], url: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let classes = lab.write("networks_classes", CLASSES)?;
        lab.configure(&format!(
            "node = {name:?}\nclass_file = {classes:?}\n[drain]\ninterval = '100ms'\n[ship]\nto = [{url:?}]\ninterval = '1s'\n"
        ))?;
        let mut containers = Vec::new();
        for (host, &id) in (1..).zip(ids) {
            // Every second container is in networks that are not free.
            let (v4, v6) = if host % 2 == 0 {
                ([203, 0, 113, 16 * number + host], format!("2001:db8:{number}::{host}"))
            } else {
                ([10, number, 0, host], format!("fd00:{number}::{host}"))
            };
            containers.push(lab.bridged(id, 0, v4.into(), v6.parse()?)?);
        }
        introduce(&containers.iter().collect::<Vec<_>>())?;
        Ok(Self { name, containers, lab })
    }
}

/// The processes of a node.
struct Services(Option<(Daemon, Process)>);

impl Services {
    fn start(node: &Node) -> Result<Self> {
        let daemon = Daemon::start(&node.lab)?;
        let mut ship = node.lab.trafctl(&["ship"])?;
        ship.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(node.lab.path("ship.log"))?);
        Ok(Self(Some((daemon, Process::spawn(&mut ship)?))))
    }

    /// Waits until the store has what was sent, and ends both. Ships what the last drain wrote, and compares all rows.
    fn end_when_shipped(mut self, node: &Node, store: &Store<'_>, sent: &Sent) -> Result<()> {
        let log = node.lab.path("ship.log");
        eventually("the rows are in the store", || {
            // One whose first rows came after the store was stopped is not known there.
            if !store.reader(&["store", "nodes"], &[])?.contains(node.name) {
                return Ok(false);
            }
            let stored = store.report(&["--node", node.name])?;
            for (container, counted) in sent.on(node.name) {
                if reported(&stored, container)? != *counted {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .with_context(|| fs::read_to_string(log).unwrap_or_default())?;
        let (daemon, shipper) = self.0.take().context("nothing runs")?;
        daemon.stop()?;
        ensure!(shipper.terminate(PATIENCE)?.success(), "trafctl ship failed");
        node.lab.run_ok(&["ship", "--once"])?;
        // Fails if a row differs.
        node.lab.run_ok(&["ship", "verify"])?;
        print(&format!("{}: trafctl ship verify finds all rows equal\n", node.name))
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some((daemon, shipper)) = self.0.take() {
            // Both first, so that neither waits for the other. A drop cannot report an error.
            let _ = shipper.signal(Signal::TERM);
            let _ = daemon.stop_after_errors();
            let _ = shipper.terminate(PATIENCE);
        }
    }
}

/// Sends between each container and its neighbour, both ways.
fn send_everywhere(nodes: &[Node], sent: &mut Sent) -> Result<()> {
    for (number, node) in (1..).zip(nodes) {
        for pair in node.containers.windows(2) {
            interrupt::check()?;
            let [a, b] = pair else { continue };
            for (from, to) in [(a, b), (b, a)] {
                let count = udp_send(from.namespace(), to.namespace(), at(to.v6()), 100 * number, 700)?;
                ensure!(count.packets_received == count.packets, "a datagram was lost between containers");
                sent.add(node.name, [from, to], (count.packets, count.l3_bytes));
            }
            let tcp = tcp_transfer(a.namespace(), b.namespace(), at(b.v4()), number * MEGABYTE)?;
            sent.add(node.name, [a, b], (tcp.client.segments, tcp.client.l3_bytes));
            sent.add(node.name, [b, a], (tcp.server.segments, tcp.server.l3_bytes));
        }
    }
    Ok(())
}

/// Stops the first container of the first node, and starts it on the second one with the name of its interface, its
/// hardware address and its addresses.
fn move_container(nodes: &mut [Node]) -> Result<()> {
    let [from, to, ..] = nodes else { anyhow::bail!("there is no second node") };
    let mut moved = from.containers.remove(0);
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (moved.v4(), moved.v6()) else {
        anyhow::bail!("the container has no address of a family");
    };
    moved.stop()?;
    let started = to.lab.bridged_as(moved.interface(), v4, v6)?;
    ensure!(started.mac() == moved.mac(), "the container has another hardware address");
    eventually("its interface is counted", || Ok(hooks(&to.lab, started.interface())?.len() == 2))?;
    to.containers.push(started);
    introduce(&to.containers.iter().collect::<Vec<_>>())
}

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

/// What the senders counted, by node and container.
#[derive(Default)]
struct Sent(BTreeMap<(&'static str, String), Amounts>);

impl Sent {
    /// Adds packets and bytes from one container to another. All arrive: the network has no place to lose them.
    fn add(&mut self, node: &'static str, [from, to]: [&Container; 2], (packets, bytes): (u64, u64)) {
        for (container, amounts) in
            [(from, Amounts::outgoing(packets, bytes)), (to, Amounts::incoming(packets, bytes))]
        {
            let id = container.interface().trim_start_matches("veth").trim_end_matches(".0").to_owned();
            let sum = self.0.entry((node, id)).or_default();
            *sum = sum.plus(amounts);
        }
    }

    /// The containers of a node with their sums.
    fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (&'a str, &'a Amounts)> {
        self.0.iter().filter(move |((of, _), _)| *of == node).map(|((_, id), sum)| (id.as_str(), sum))
    }
}

/// What the senders, the ledger and the store have of a container.
struct Row<'a> {
    of: String,
    container: &'a str,
    figures: [Amounts; 3],
}

impl Row<'_> {
    fn is_exact(&self) -> bool {
        self.figures.iter().all(|amounts| *amounts == self.figures[0] && amounts.out_packets > 0)
    }
}

fn table(rows: &[Row<'_>]) -> String {
    let pair = |a: &str, b: &str| format!("  {a:>10} {b:>10}");
    let mut text = format!(
        "{:<6} {:>9}{}{}{}  DIFFERENCE\n",
        "NODE",
        "CONTAINER",
        pair("SENT IN", "OUT"),
        pair("LEDGER IN", "OUT"),
        pair("STORE IN", "OUT")
    );
    for row in rows {
        let shown = row.figures.map(|of| pair(&of.in_bytes.to_string(), &of.out_bytes.to_string())).concat();
        let [sent, ledger, store] = row.figures;
        let difference = distance(sent, ledger) + distance(sent, store);
        // A write to a string cannot fail.
        let _infallible = writeln!(text, "{:<6} {:>9}{shown}  {difference}", row.of, row.container);
    }
    text
}

/// By how many packets and bytes two figures differ.
fn distance(a: Amounts, b: Amounts) -> u64 {
    let packets = a.in_packets.abs_diff(b.in_packets) + a.out_packets.abs_diff(b.out_packets);
    packets + a.in_bytes.abs_diff(b.in_bytes) + a.out_bytes.abs_diff(b.out_bytes)
}
