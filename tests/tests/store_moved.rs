//! A container that moves from one node to another while traffic flows, as in a live migration: its programs go on, and
//! its interface ends here and is created there, with the same hardware address and addresses. Both nodes give its number
//! to containers of other customers, before and afterwards. What each customer has in the stores is what nftables counted
//! at the interfaces of its containers.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Amounts, Container, Daemon, Lab, Resync,
    check::{booked, eventually, hooks, is_well, reported},
    clickhouse::ClickHouse,
    lab::trafctl_program,
    postgres::Postgres,
    process::{Process, run_ok},
    traffic::Load,
    wall_clock,
    witness::NftWitness,
};

const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n2 203.0.113.0/24\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// Noon of 10 November 2026, in Unix seconds, on all nodes when this begins.
const NOON: i64 = 1_794_312_000;
/// Where the flow out of the container goes, on every node.
const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const PORT: u16 = 9000;

/// A node that counts and ships by a clock of its own, with a host beyond it that has the same addresses everywhere.
struct Node<'l> {
    name: &'static str,
    lab: &'l Lab,
    beyond: Container,
    /// Keeps the port open, so that nothing answers that it is closed.
    _port: UdpSocket,
    daemon: Daemon,
    shipper: Process,
}

/// A `trafctl` with the state of one node in the network of the stores.
fn beside_stores(office: &Lab, node: &Lab, arguments: &[&str]) -> Result<Command> {
    let mut command = office.host().command(trafctl_program()?);
    command.arg("--state-dir").arg(node.state_dir()).arg("--config").arg(node.config()).args(arguments);
    Ok(command)
}

impl<'l> Node<'l> {
    fn start(
        (name, lab): (&'static str, &'l Lab),
        (office, stores): (&Lab, &[String; 2]),
        clock: &Path,
    ) -> Result<Self> {
        let classes = lab.write("networks_classes", CLASSES)?;
        lab.configure(&format!(
            "node = {name:?}\nclass_file = {classes:?}\n[drain]\ninterval = '100ms'\n[ship]\nto = {stores:?}\ninterval = '1s'\n\
             [[interfaces.rule]]\npattern = 'beyond'\nkind = 'ignore'\n"
        ))?;
        let beyond = lab.bridged_as("beyond", BEYOND, "2001:db8::9".parse()?)?;
        let port = beyond.namespace().enter(|| Ok(UdpSocket::bind((BEYOND, PORT))?))?;
        let mut daemon = Daemon::spawn(&mut wall_clock::of_file(lab.trafctl(&["run"])?, clock), Resync::Off)?;
        daemon.ready()?;
        let mut ship = beside_stores(office, lab, &["ship"])?;
        ship.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(lab.path("ship.log"))?);
        let shipper = Process::spawn(&mut ship)?;
        Ok(Self { name, lab, beyond, _port: port, daemon, shipper })
    }

    /// Creates container 101 of some customer, which this node counts before anything passes.
    fn container(&self, address: [u8; 4], v6: &str) -> Result<Container> {
        let container = self.lab.bridged(101, 0, address.into(), v6.parse()?)?;
        self.meets(&container)?;
        Ok(container)
    }

    /// Waits until a container's interface is counted, and witnesses it from now on.
    fn witness(&self, container: &Container) -> Result<NftWitness<'l>> {
        let interface = container.interface();
        eventually("its interface is counted", || Ok(hooks(self.lab, interface)?.len() == 2))?;
        NftWitness::attach(self.lab.host(), interface)
    }

    /// Lets a container and the host beyond know each other.
    fn meets(&self, container: &Container) -> Result<()> {
        self.beyond.knows(container)?;
        container.knows(&self.beyond)
    }

    /// A flow from beyond to a container.
    fn load_to(&self, container: &Container, address: IpAddr) -> Result<Load> {
        Load::start(self.beyond.namespace(), container.namespace(), SocketAddr::new(address, 0), 700)
    }

    /// Waits until the ledger has this of container 101, whose traffic has ended.
    fn has_booked(&self, sum: Amounts) -> Result<()> {
        eventually("the ledger has it", || Ok(booked(self.lab, "101")? == sum))
            .with_context(|| format!("{}: {:?} is not {sum:?}", self.name, booked(self.lab, "101")))
    }

    /// Ships what is left, and compares all rows of both stores.
    fn end(self, office: &Lab) -> Result<()> {
        is_well(self.lab)?;
        self.daemon.stop()?;
        ensure!(self.shipper.terminate(PATIENCE)?.success(), "trafctl ship failed");
        let said = fs::read_to_string(self.lab.path("ship.log"))?;
        ensure!(said.is_empty(), "{said}");
        for arguments in [&["ship", "--once"][..], &["ship", "verify"]] {
            run_ok(&mut beside_stores(office, self.lab, arguments)?)?;
        }
        Ok(())
    }
}

/// A flow out of a container to the host beyond, wherever it is.
fn load_from(container: &Container) -> Result<Load> {
    Load::send(container.namespace(), (BEYOND, PORT).into(), 500)
}

/// What passed an interface, as seen by its container.
fn passed(witness: &NftWitness<'_>) -> Result<Amounts> {
    let count = witness.read()?;
    let sum =
        |of: traffic_tests::witness::NftDirection| (of.v4.packets + of.v6.packets, of.v4.bytes + of.v6.bytes);
    // What the host receives on it, the container sent.
    Ok(Amounts::both(sum(count.egress), sum(count.ingress)))
}

/// Waits until this many more packets passed an interface in both directions.
fn passes(witness: &NftWitness<'_>, packets: u64) -> Result<()> {
    let begun = passed(witness)?;
    eventually("traffic flows both ways", || {
        let now = passed(witness)?.since(begun);
        Ok(now.in_packets >= packets && now.out_packets >= packets)
    })
}

#[test]
fn a_container_that_moves_under_load_stays_its_customers() -> Result<()> {
    let office = Lab::new("moved-office")?;
    let (postgres, clickhouse) =
        (Postgres::start(office.host(), &[])?, ClickHouse::start(office.host(), None)?);
    let stores = [postgres.url("postgres"), clickhouse.url("default")];
    for url in &stores {
        office.run_ok(&["store", "init", url])?;
    }
    let clock = office.path("clock");
    wall_clock::set(&clock, NOON + 30)?;
    let (lab1, lab2) = (Lab::new("moved-n1")?, Lab::new("moved-n2")?);
    let one = Node::start(("n1", &lab1), (&office, &stores), &clock)?;
    let two = Node::start(("n2", &lab2), (&office, &stores), &clock)?;

    // Until 12:05, node 2 has a container 101 of beta's.
    let former = two.container([10, 1, 0, 7], "fd00:1::7")?;
    let seen = two.witness(&former)?;
    let mut moving = one.container([10, 1, 0, 1], "fd00:1::1")?;
    let seen_here = one.witness(&moving)?;
    let out = load_from(&moving)?;
    let into = [one.load_to(&moving, moving.v4())?, one.load_to(&moving, moving.v6())?];
    let loads = [load_from(&former)?, two.load_to(&former, former.v6())?];
    passes(&seen, 1000)?;
    loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
    let beta = passed(&seen)?;
    two.has_booked(beta)?;
    drop((seen, former));

    // Then acme's moves there, while it sends and is sent to, from both sides.
    wall_clock::set(&clock, NOON + 330)?;
    let into_there = [two.load_to(&moving, moving.v4())?, two.load_to(&moving, moving.v6())?];
    passes(&seen_here, 2000)?;
    moving.unplug()?;
    let here = passed(&seen_here)?;
    drop(seen_here);
    moving.plug_into(lab2.host(), lab2.bridge()?)?;
    let seen_there = two.witness(&moving)?;
    moving.bring_up()?;
    two.meets(&moving)?;
    passes(&seen_there, 2000)?;
    one.has_booked(here)?;
    into.into_iter().try_for_each(|load| load.stop().map(drop))?;

    // From 12:10 on, node 1 has a container 101 of gamma's.
    wall_clock::set(&clock, NOON + 630)?;
    let later = one.container([10, 1, 0, 8], "fd00:1::8")?;
    let seen = one.witness(&later)?;
    let loads = [load_from(&later)?, one.load_to(&later, later.v4())?];
    passes(&seen, 1000)?;
    passes(&seen_there, 1000)?;
    loads.into_iter().chain(into_there).chain([out]).try_for_each(|load| load.stop().map(drop))?;
    let (gamma, there) = (passed(&seen)?, passed(&seen_there)?);
    one.has_booked(here.plus(gamma))?;
    two.has_booked(beta.plus(there))?;
    drop((seen, seen_there));
    one.end(&office)?;
    two.end(&office)?;

    let acme = here.plus(there);
    for url in &stores {
        let assign = |customer: &str, node: &str, times: &[&str]| {
            let container = ["--container", "101", "--node", node];
            office.run_ok(&[&["store", "assign", url, customer][..], &container, times].concat())
        };
        assign("beta", "n2", &["--until", "2026-11-10T12:05:00Z"])?;
        assign("acme", "n2", &["--from", "2026-11-10T12:05:00Z"])?;
        assign("gamma", "n1", &["--from", "2026-11-10T12:10:00Z"])?;
        assign("acme", "n1", &["--until", "2026-11-10T12:10:00Z"])?;
        let billed = || -> Result<[Amounts; 4]> {
            let report = office.run_json(&["report", "--store", url, "--by-tenant", "--format", "json"])?;
            let of = |customer| reported(&report, customer);
            Ok([of("acme")?, of("beta")?, of("gamma")?, of("(no tenant)")?])
        };
        let is = billed()?;
        ensure!(
            is == [acme, beta, gamma, Amounts::default()],
            "{url}: {is:?}, but passed: {acme:?} {beta:?} {gamma:?}"
        );
        // It was under load until it moved: with an end five minutes earlier, some of it is nobody's.
        office.run_ok(&["store", "unassign", url, "4", "--until", "2026-11-10T12:05:00Z"])?;
        let [of_acme, _, _, of_nobody] = billed()?;
        ensure!(of_acme.plus(of_nobody) == acme && of_nobody.in_packets > 0 && of_nobody.out_packets > 0);
    }
    Ok(())
}
