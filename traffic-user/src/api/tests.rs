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
    api::{server::router_for_port, *},
    drain::Drained,
    health::Part,
    render::ClassNames,
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
    }
}

fn drains() -> Drains {
    Drains {
        last_success: Timestamp::from_millisecond(1_699_999_999_042).ok(),
        failures: 5,
        gaps: 6,
        excess_skbs: 8,
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

#[test]
fn every_counter_is_in_its_metric() {
    // Bytes in faults: (50 + 60 + 70) * 2000 + 3 * 7; in classes: (1 + 20 + 300 + 4000) * 2000 + 5 * 7.
    let unaccounted = 10_000_203 - (360_021 + 8_642_035);
    let expected = format!(
        "\
# TYPE trafctl_network_receive_bytes counter
# UNIT trafctl_network_receive_bytes bytes
# HELP trafctl_network_receive_bytes Layer-3 bytes to the container, as on the wire.
trafctl_network_receive_bytes_total{{container=\"101\",class=\"0\"}} 300000
trafctl_network_receive_bytes_created{{container=\"101\",class=\"0\"}} 0.000
trafctl_network_receive_bytes_total{{container=\"101\",class=\"2\"}} 4000000
trafctl_network_receive_bytes_created{{container=\"101\",class=\"2\"}} 0.000
trafctl_network_receive_bytes_total{{container=\"101\",class=\"3\"}} 0
trafctl_network_receive_bytes_created{{container=\"101\",class=\"3\"}} 0.000
trafctl_network_receive_bytes_total{{container=\"20\",class=\"1\"}} 21000
trafctl_network_receive_bytes_created{{container=\"20\",class=\"1\"}} 0.000
# TYPE trafctl_network_transmit_bytes counter
# UNIT trafctl_network_transmit_bytes bytes
# HELP trafctl_network_transmit_bytes Layer-3 bytes from the container, as on the wire.
trafctl_network_transmit_bytes_total{{container=\"101\",class=\"0\"}} 300007
trafctl_network_transmit_bytes_created{{container=\"101\",class=\"0\"}} 0.000
trafctl_network_transmit_bytes_total{{container=\"101\",class=\"2\"}} 4000007
trafctl_network_transmit_bytes_created{{container=\"101\",class=\"2\"}} 0.000
trafctl_network_transmit_bytes_total{{container=\"101\",class=\"3\"}} 7
trafctl_network_transmit_bytes_created{{container=\"101\",class=\"3\"}} 0.000
trafctl_network_transmit_bytes_total{{container=\"20\",class=\"1\"}} 21014
trafctl_network_transmit_bytes_created{{container=\"20\",class=\"1\"}} 0.000
# TYPE trafctl_network_receive_packets counter
# UNIT trafctl_network_receive_packets packets
# HELP trafctl_network_receive_packets Packets on the wire to the container.
trafctl_network_receive_packets_total{{container=\"101\",class=\"0\"}} 300
trafctl_network_receive_packets_created{{container=\"101\",class=\"0\"}} 0.000
trafctl_network_receive_packets_total{{container=\"101\",class=\"2\"}} 4000
trafctl_network_receive_packets_created{{container=\"101\",class=\"2\"}} 0.000
trafctl_network_receive_packets_total{{container=\"101\",class=\"3\"}} 0
trafctl_network_receive_packets_created{{container=\"101\",class=\"3\"}} 0.000
trafctl_network_receive_packets_total{{container=\"20\",class=\"1\"}} 21
trafctl_network_receive_packets_created{{container=\"20\",class=\"1\"}} 0.000
# TYPE trafctl_network_transmit_packets counter
# UNIT trafctl_network_transmit_packets packets
# HELP trafctl_network_transmit_packets Packets on the wire from the container.
trafctl_network_transmit_packets_total{{container=\"101\",class=\"0\"}} 301
trafctl_network_transmit_packets_created{{container=\"101\",class=\"0\"}} 0.000
trafctl_network_transmit_packets_total{{container=\"101\",class=\"2\"}} 4001
trafctl_network_transmit_packets_created{{container=\"101\",class=\"2\"}} 0.000
trafctl_network_transmit_packets_total{{container=\"101\",class=\"3\"}} 1
trafctl_network_transmit_packets_created{{container=\"101\",class=\"3\"}} 0.000
trafctl_network_transmit_packets_total{{container=\"20\",class=\"1\"}} 23
trafctl_network_transmit_packets_created{{container=\"20\",class=\"1\"}} 0.000
# TYPE trafctl_class_table info
# HELP trafctl_class_table Class table in force.
trafctl_class_table_info{{hash=\"abababababababababababababababababababababababababababababababab\"}} 1
# TYPE trafctl_faults counter
# HELP trafctl_faults Packets that are in no class, by reason.
trafctl_faults_total{{fault=\"not_ip\"}} 222
trafctl_faults_total{{fault=\"truncated\"}} 0
trafctl_faults_total{{fault=\"malformed\"}} 141
trafctl_faults_total{{fault=\"vlan_depth\"}} 0
trafctl_faults_total{{fault=\"no_container\"}} 0
trafctl_faults_total{{fault=\"container_table_full\"}} 0
trafctl_faults_total{{fault=\"unknown_interface\"}} 0
trafctl_faults_total{{fault=\"no_class_table\"}} 0
trafctl_faults_total{{fault=\"no_counter\"}} 0
trafctl_faults_total{{fault=\"not_the_nodes\"}} 0
# TYPE trafctl_unaccounted_bytes gauge
# UNIT trafctl_unaccounted_bytes bytes
# HELP trafctl_unaccounted_bytes Bytes that passed interfaces less those in classes less those in faults; zero when traffic rests.
trafctl_unaccounted_bytes {unaccounted}
# TYPE trafctl_estimated_packets counter
# UNIT trafctl_estimated_packets packets
# HELP trafctl_estimated_packets Packets of super-packets whose size came from the plain segmentation rule.
trafctl_estimated_packets_total 72
# TYPE trafctl_small_segment_packets counter
# UNIT trafctl_small_segment_packets packets
# HELP trafctl_small_segment_packets Packets in segments below 48 bytes, a size that only the sender claims; they are in their class too.
trafctl_small_segment_packets_total 192
# TYPE trafctl_small_segment_bytes counter
# UNIT trafctl_small_segment_bytes bytes
# HELP trafctl_small_segment_bytes Layer-3 bytes of these packets, headers included.
trafctl_small_segment_bytes_total 252
# TYPE trafctl_copied_buffers counter
# UNIT trafctl_copied_buffers buffers
# HELP trafctl_copied_buffers Copies that no wire carried, such as what an ifb sends again; in no other figure.
trafctl_copied_buffers_total 312
# TYPE trafctl_last_drain_timestamp_seconds gauge
# UNIT trafctl_last_drain_timestamp_seconds seconds
# HELP trafctl_last_drain_timestamp_seconds When the counters were last recorded in the ledger; zero if not since the daemon started.
trafctl_last_drain_timestamp_seconds 1699999999.042
# TYPE trafctl_drain_failures counter
# HELP trafctl_drain_failures Drains that failed since the daemon started.
trafctl_drain_failures_total 5
# TYPE trafctl_excess_buffers gauge
# UNIT trafctl_excess_buffers buffers
# HELP trafctl_excess_buffers Buffers counted beyond what the kernel's interface statistics show, as of the last drain.
trafctl_excess_buffers 8
# TYPE trafctl_uncounted_interfaces gauge
# HELP trafctl_uncounted_interfaces Interfaces that look like those of containers and are not counted; `trafctl host` lists them.
trafctl_uncounted_interfaces 0
# TYPE trafctl_component_works gauge
# HELP trafctl_component_works Whether an optional part of the daemon works: 1 if so, 0 while it fails and is retried.
trafctl_component_works{{component=\"file_watch\"}} 1
trafctl_component_works{{component=\"ledger\"}} 0
# TYPE trafctl_component_failures gauge
# HELP trafctl_component_failures Failed attempts since an optional part of the daemon last worked.
trafctl_component_failures{{component=\"file_watch\"}} 0
trafctl_component_failures{{component=\"ledger\"}} 3
# EOF
"
    );
    assert_eq!(metrics::render(&snapshot(), &health(), metrics::Format::OpenMetrics), expected);
}

#[test]
fn names_of_classes_are_a_metric_of_their_own() {
    let names = [(2, "UA-IX".to_owned()), (3, "a \"b\"".to_owned())].into();
    let health = DaemonHealth { class_names: names, ..health() };
    let named = metrics::render(&snapshot(), &health, metrics::Format::OpenMetrics);
    let added = "# TYPE trafctl_class info\n\
        # HELP trafctl_class Names of classes.\n\
        trafctl_class_info{class=\"2\",name=\"UA-IX\"} 1\n\
        trafctl_class_info{class=\"3\",name=\"a \\\"b\\\"\"} 1\n";
    // Nothing else changes, so that no series ends when a class gets a name.
    assert!(named.contains(added), "{named}");
    assert_eq!(
        named.replace(added, ""),
        metrics::render(&snapshot(), &self::health(), metrics::Format::OpenMetrics)
    );
}

#[test]
fn counters_of_former_owners_neither_fall_nor_go_to_others() {
    let line = |snapshot: &Snapshot, name: &str| {
        let page = metrics::render(snapshot, &DaemonHealth::default(), metrics::Format::OpenMetrics);
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned)
    };
    let mut later = snapshot();
    // The slot of veth20.0 goes to another interface.
    later.faults.retain(|fault| fault.interface != "veth20.0");
    let gone = later.interfaces.remove(1).passed;
    later.former_faults[Fault::NotIp as usize].packets = 121;
    later.former_faults[Fault::Malformed as usize].packets = 141;
    later.former_estimated.packets = gone.incoming.estimated.packets + gone.outgoing.estimated.packets;
    later.former_small_segments = gone.incoming.small_segments;
    later.former_small_segments += gone.outgoing.small_segments;
    later.former_copies.packets = gone.incoming.copies.packets + gone.outgoing.copies.packets;
    for name in [
        "trafctl_faults_total{fault=\"not_ip\"}",
        "trafctl_faults_total{fault=\"malformed\"}",
        "trafctl_estimated_packets_total",
        "trafctl_small_segment_packets_total",
        "trafctl_small_segment_bytes_total",
        "trafctl_copied_buffers_total",
    ] {
        assert_eq!(line(&later, name), line(&snapshot(), name), "{name}");
    }

    // The id 20 has a new owner; the figures of the old one are still in its slot.
    let mut later = snapshot();
    let new = ClassCounter { generation: 2, tally: tallies(9), ..later.counters[0].clone() };
    later.counters.insert(1, new);
    let name = "trafctl_network_receive_packets_total{container=\"20\",class=\"1\"}";
    assert_eq!(line(&snapshot(), name).as_deref(), Some("21"));
    assert_eq!(line(&later, name).as_deref(), Some("9"));
}

#[tokio::test]
async fn a_new_life_is_shown_as_zero_before_its_value() {
    let generation = Arc::new(std::sync::atomic::AtomicU32::new(1));
    let read = Arc::clone(&generation);
    let source = Source::new(
        move || {
            let generation = read.load(std::sync::atomic::Ordering::Relaxed);
            let mut snapshot = snapshot();
            snapshot.counters.retain(|counter| counter.container.as_str() == "20");
            snapshot.counters.iter_mut().for_each(|counter| counter.generation = generation);
            Ok(snapshot)
        },
        None,
    );
    let value = |body: &str, suffix: &str| {
        let name = format!("trafctl_network_receive_packets{suffix}{{container=\"20\",class=\"1\"}} ");
        body.lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned)
    };
    let (_, first) = ask(source.clone(), "GET /metrics").await;
    assert_ne!(value(&first, "_total").unwrap(), "0");
    let created = value(&first, "_created").unwrap();
    generation.store(2, std::sync::atomic::Ordering::Relaxed);
    let (_, second) = ask(source, "GET /metrics").await;
    assert_eq!(value(&second, "_total").unwrap(), "0");
    assert_ne!(value(&second, "_created").unwrap(), created);
}

#[test]
fn the_text_format_has_the_same_samples_under_other_headings() {
    let samples = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let [new, old] = [metrics::Format::OpenMetrics, metrics::Format::Text]
        .map(|format| metrics::render(&snapshot(), &health(), format));
    // The text format has no place for when a counter began.
    let new: Vec<String> = samples(&new).into_iter().filter(|line| !line.contains("_created{")).collect();
    assert_eq!(samples(&old), new);
    assert!(!old.contains("# EOF") && !old.contains("# UNIT"), "{old}");
    for line in [
        "# TYPE trafctl_faults_total counter\n# HELP trafctl_faults_total Packets ",
        "# TYPE trafctl_class_table_info gauge\n",
        "# TYPE trafctl_unaccounted_bytes gauge\n",
    ] {
        assert!(old.contains(line), "{line:?} is not in {old}");
    }
}

#[test]
fn without_a_ledger_there_are_no_metrics_of_drains() {
    let text = metrics::render(&snapshot(), &DaemonHealth::default(), metrics::Format::OpenMetrics);
    assert!(!text.contains("drain") && text.ends_with("\n# EOF\n"), "{text}");
    let text = metrics::render(
        &snapshot(),
        &DaemonHealth { drains: Some(Drains::default()), ..DaemonHealth::default() },
        metrics::Format::OpenMetrics,
    );
    assert!(text.contains("\ntrafctl_last_drain_timestamp_seconds 0.000\n"), "{text}");
}

#[test]
fn the_accept_header_selects_the_format() {
    use metrics::Format::{OpenMetrics, Text};
    for (accept, expected) in [
        (None, OpenMetrics),
        (Some("*/*"), OpenMetrics),
        (
            Some("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
            OpenMetrics,
        ),
        (Some("text/plain;version=0.0.4,*/*;q=0.1"), Text),
    ] {
        assert_eq!(metrics::Format::for_accept(accept), expected, "{accept:?}");
    }
}

/// Sends a request to a server on a new port, under a host name; returns head and body of the answer.
async fn ask(source: Source, request: &'static str) -> (String, String) {
    ask_as(source, request, "localhost").await
}

async fn ask_as(source: Source, request: &'static str, host: &'static str) -> (String, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, router_for_port(source), async move { drop(stopped.await) }));
    let answer = task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
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
    let health = Arc::new(DrainHealth::default());
    health.succeeded(
        Timestamp::from_millisecond(1_699_999_999_042).unwrap(),
        Drained { gaps: 6, excess_skbs: 8 },
    );
    (0..5).for_each(|_| health.failed());
    Source::new(|| Ok(snapshot()), Some(health))
}

#[tokio::test]
async fn metrics_and_documents_are_served() {
    let with_parts = || good_source().with_components(components());
    let (head, body) = ask(with_parts(), "GET /metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let content_type = "\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(head.contains(content_type), "{head}");
    assert_eq!(body, metrics::render(&snapshot(), &health(), metrics::Format::OpenMetrics));

    let (head, body) = ask(good_source(), "GET /api/v1/counters").await;
    assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
    let shown = dump::Filter::default().apply(snapshot());
    assert_eq!(body, dump::json(&shown, &ClassNames::new()).unwrap());
    insta::assert_snapshot!("counters", body);
    let names = ClassNames::from([(2, "UA-IX".to_owned())]);
    let named = names.clone();
    let (_, body) = ask(good_source().naming(move || named.clone()), "GET /api/v1/counters").await;
    assert_eq!(body, dump::json(&shown, &names).unwrap());

    let (_, body) = ask(with_parts(), "GET /api/v1/status").await;
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    let parts = status["components"].as_array().unwrap();
    let parts: Vec<_> = parts.iter().map(|part| (&part["name"], &part["state"], &part["failures"])).collect();
    let expected = serde_json::json!([
        ["file_watch", "ok", 0],
        ["identity_command", "disabled", 0],
        ["ledger", "failing", 3]
    ]);
    assert_eq!(serde_json::to_value(parts).unwrap(), expected);
    assert_eq!(status["components"][2]["last_error"], "the disk is full");

    let (_, body) = ask(good_source(), "GET /api/v1/status").await;
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        status["ledger"],
        serde_json::json!({ "last_drain": "2023-11-14T22:13:19.042Z", "drain_failures": 5, "gaps": 6 })
    );
    assert_eq!(status["unaccounted"]["in_bytes"], 5_000_100 - 4_321_000 - 180_000);
    let body = body.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!("status", body);
}

#[tokio::test]
async fn nothing_can_be_changed_and_failures_are_reported() {
    let (head, _) = ask(good_source(), "DELETE /api/v1/counters").await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    for path in ["GET /", "GET /metric", "GET /api/v1"] {
        let (head, body) = ask(good_source(), path).await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        for known in ["/metrics ", "/api/v1/counters ", "/api/v1/status "] {
            assert!(body.contains(known), "{path}: {body}");
        }
    }
    let (head, body) = ask(Source::new(|| anyhow::bail!("no maps"), None), "GET /metrics").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "{\"version\":1,\"error\":\"no maps\"}\n");
}

/// The rows of an answer, as "container class family".
fn rows(body: &str) -> Vec<String> {
    let document: serde_json::Value = serde_json::from_str(body).unwrap();
    let text = |row: &serde_json::Value| {
        format!("{} {} {}", row["container"], row["class"], row["family"]).replace('"', "")
    };
    document["counters"].as_array().unwrap().iter().map(text).collect()
}

#[tokio::test]
async fn a_filter_selects_rows_as_dump_does() {
    for (query, expected) in [
        ("GET /api/v1/counters?container=20", &["20 1 ipv4", "20 1 ipv6"][..]),
        ("GET /api/v1/counters?container=20&family=ipv6", &["20 1 ipv6"]),
        ("GET /api/v1/counters?class=0&class=2", &["101 0 ipv4", "101 2 ipv6"]),
        ("GET /api/v1/counters?container=20&container=101&class=1", &["20 1 ipv4", "20 1 ipv6"]),
        ("GET /api/v1/counters?", &["20 1 ipv4", "20 1 ipv6", "101 0 ipv4", "101 2 ipv6", "101 3 ipv4"]),
    ] {
        let (head, body) = ask(good_source(), query).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{query}: {head}");
        assert_eq!(rows(&body), expected, "{query}");
    }
    let (_, body) = ask(good_source(), "GET /api/v1/counters?container=20").await;
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(document["interfaces"].as_array().map(Vec::len), Some(1), "only the interfaces of 20");
}

#[tokio::test]
async fn other_ids_of_a_container_find_it() {
    let source = good_source().resolving(|typed, _| {
        assert_eq!(typed, [ContainerId::new("twenty").unwrap()]);
        Ok(vec![ContainerId::new("20").unwrap()])
    });
    let (_, body) = ask(source, "GET /api/v1/counters?container=twenty").await;
    assert_eq!(rows(&body), ["20 1 ipv4", "20 1 ipv6"]);
}

#[tokio::test]
async fn unknown_parameters_and_containers_are_refused() {
    for (request, status, error) in [
        ("GET /api/v1/counters?contaner=101", 400, "parameter \"contaner\" is unknown"),
        ("GET /api/v1/counters?class=x", 400, "class \"x\" is not a number"),
        ("GET /api/v1/counters?family=4", 400, "family \"4\" is unknown"),
        ("GET /api/v1/counters?container=a%20b", 400, "\"a b\""),
        ("GET /api/v1/status?verbose=1", 400, "parameter \"verbose\" is unknown"),
        ("GET /api/v1/counters?container=777", 404, "no container 777 is known: "),
    ] {
        let (head, body) = ask(good_source(), request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
        assert!(head.contains("content-type: application/json"), "{request}: {head}");
        let document: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(document["version"], 1);
        assert!(document["error"].as_str().unwrap().contains(error), "{request}: {body}");
    }
}

#[tokio::test]
async fn a_foreign_host_name_is_refused_on_a_port() {
    for request in ["GET /metrics", "GET /api/v1/counters", "GET /"] {
        let (head, body) = ask_as(good_source(), request, "attacker.example").await;
        assert!(head.starts_with("HTTP/1.1 421 "), "{request}: {head}");
        assert!(body.contains("names another host"), "{body}");
    }
    let (head, _) = ask_as(good_source(), "GET /metrics", "127.0.0.1:9177").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}
