//! Requests to a server over a real socket, and the metrics as text.

mod described;
mod documents;
mod from_a_ledger;
mod metrics_text;
mod validator;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use jiff::Timestamp;
use traffic_common::{FAULTS, Family, Fault, Tally};
use traffic_model::{
    ByDirection, ClassCounter, ClassTableInfo, ContainerId, FaultCounter, InterfaceCounter, PassedCounter,
};

use tokio::sync::oneshot;

use crate::{
    api::{server::router_for_port, token::Access, *},
    drain::Drained,
    health::Part,
};

const fn tallies(start: u64) -> ByDirection<Tally> {
    ByDirection {
        incoming: Tally { packets: start, bytes: start * 1000 },
        outgoing: Tally { packets: start + 1, bytes: start * 1000 + 7 },
    }
}

/// A reading with a different value in every field that a metric comes from.
fn snapshot() -> Snapshot {
    let counter = |id: &str, class, family, start| ClassCounter {
        container: ContainerId::new(id).unwrap(),
        generation: 1,
        is_retired: false,
        class,
        family,
        tally: tallies(start),
    };
    let fault = |interface: &str, fault, start| FaultCounter {
        interface: interface.to_owned(),
        generation: 1,
        fault,
        tally: tallies(start),
    };
    let passed = |wire, estimated| PassedCounter {
        wire: Tally { packets: 1, bytes: wire },
        skbs: 2,
        skb_bytes: 3,
        estimated: Tally { packets: estimated, bytes: 4 },
        small_segments: Tally { packets: estimated + 20, bytes: estimated + 30 },
        copies: Tally { packets: estimated + 40, bytes: 7 },
        missed_skbs: 5,
        missed_skb_bytes: 6,
        bypassed: Tally::default(),
        excess: Tally::default(),
    };
    let interface = |name: &str, id: Option<&str>, start| InterfaceCounter {
        interface: name.to_owned(),
        generation: 1,
        container: id.map(|id| ContainerId::new(id).unwrap()),
        ifindex: Some(7),
        attached: Timestamp::UNIX_EPOCH,
        passed: ByDirection { incoming: passed(start, 11), outgoing: passed(start + 1, 13) },
        accounted: ByDirection::default(),
    };
    Snapshot {
        node: "node".to_owned(),
        boot_id: "boot".to_owned(),
        epoch: 1,
        epoch_created: Timestamp::UNIX_EPOCH,
        time: Timestamp::from_second(1_700_000_000).unwrap(),
        boottime_ns: 1,
        class_table: ClassTableInfo { hash: [0xab; 32], loaded: Timestamp::UNIX_EPOCH, prefixes: 3 },
        counters: vec![
            counter("20", 1, Family::Ipv4, 1),
            counter("20", 1, Family::Ipv6, 20),
            counter("101", 0, Family::Ipv4, 300),
            counter("101", 2, Family::Ipv6, 4000),
            counter("101", 3, Family::Ipv4, 0),
        ],
        faults: vec![
            fault("veth101.0", Fault::NotIp, 50),
            fault("veth20.0", Fault::NotIp, 60),
            fault("veth20.0", Fault::Malformed, 70),
        ],
        interfaces: vec![
            interface("veth101.0", Some("101"), 5_000_000),
            interface("veth20.0", Some("20"), 100),
            interface("venet0", None, 0),
        ],
        former: ByDirection::default(),
        former_faults: [Tally::default(); FAULTS],
        former_estimated: Tally::default(),
        former_small_segments: Tally::default(),
        former_copies: Tally::default(),
        drops: None,
    }
}

fn drains() -> Drains {
    Drains {
        since: Timestamp::from_second(1_699_990_000).ok(),
        last_success: Timestamp::from_millisecond(1_699_999_999_042).ok(),
        failures: 5,
        gaps: 6,
        excess_skbs: 8,
        held_since: None,
    }
}

/// A daemon with one part in each state.
fn components() -> Arc<Components> {
    let components = Arc::new(Components::default());
    components.works(Part::FileWatch);
    components.disabled(Part::IdentityCommand);
    for _ in 0..3 {
        components.failed_because(Part::Ledger, "the disk is full");
    }
    components
}

fn health() -> DaemonHealth {
    DaemonHealth { drains: Some(drains()), components: components().read(), ..DaemonHealth::default() }
}

/// Sends a request to a server on a new port, under a host name; returns head and body of the answer.
async fn ask(source: Source, request: &str) -> (String, String) {
    ask_as(source, request, "localhost").await
}

async fn ask_as(source: Source, request: &str, host: &'static str) -> (String, String) {
    ask_with(source, request, &format!("Host: {host}\r\n"), Access::default()).await
}

/// The same with other header lines.
async fn ask_with(source: Source, request: &str, header: &str, access: Access) -> (String, String) {
    let text = format!("{request} HTTP/1.1\r\n{header}Connection: close\r\n\r\n");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server =
        tokio::spawn(serve(listener, router_for_port(source, access), async move { drop(stopped.await) }));
    let answer = task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let answer = answer.await.unwrap();
    drop(stop);
    server.await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn good_source() -> Source {
    let health = Arc::new(DrainHealth::since(Timestamp::from_second(1_699_990_000).unwrap()));
    health.succeeded(
        Timestamp::from_millisecond(1_699_999_999_042).unwrap(),
        Drained { gaps: 6, excess_skbs: 8, checkpointed: true },
    );
    (0..5).for_each(|_| health.failed());
    Source::new(|| Ok(snapshot()), Some(health))
}
