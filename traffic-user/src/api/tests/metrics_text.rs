//! The metrics of a reading with another value in every field.

use super::*;

#[test]
fn every_counter_is_in_its_metric() {
    // Bytes in faults: (50 + 60 + 70) * 2000 + 3 * 7; in classes: (1 + 20 + 300 + 4000) * 2000 + 5 * 7.
    let unaccounted = 10_000_203 - (360_021 + 8_642_035);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "\
# TYPE trafctl_build info
# HELP trafctl_build The running trafctl.
trafctl_build_info{{version=\"{version}\"}} 1
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
# TYPE trafctl_class_table_loaded_timestamp_seconds gauge
# UNIT trafctl_class_table_loaded_timestamp_seconds seconds
# HELP trafctl_class_table_loaded_timestamp_seconds When the class table in force was loaded.
trafctl_class_table_loaded_timestamp_seconds 0.000
# TYPE trafctl_class_table_prefixes gauge
# HELP trafctl_class_table_prefixes Prefixes in the class table in force.
trafctl_class_table_prefixes 3
# TYPE trafctl_faults counter
# HELP trafctl_faults Packets that are in no class, by reason.
trafctl_faults_total{{fault=\"not_ip\"}} 222
trafctl_faults_created{{fault=\"not_ip\"}} 0.000
trafctl_faults_total{{fault=\"truncated\"}} 0
trafctl_faults_created{{fault=\"truncated\"}} 0.000
trafctl_faults_total{{fault=\"malformed\"}} 141
trafctl_faults_created{{fault=\"malformed\"}} 0.000
trafctl_faults_total{{fault=\"vlan_depth\"}} 0
trafctl_faults_created{{fault=\"vlan_depth\"}} 0.000
trafctl_faults_total{{fault=\"no_container\"}} 0
trafctl_faults_created{{fault=\"no_container\"}} 0.000
trafctl_faults_total{{fault=\"container_table_full\"}} 0
trafctl_faults_created{{fault=\"container_table_full\"}} 0.000
trafctl_faults_total{{fault=\"unknown_interface\"}} 0
trafctl_faults_created{{fault=\"unknown_interface\"}} 0.000
trafctl_faults_total{{fault=\"no_class_table\"}} 0
trafctl_faults_created{{fault=\"no_class_table\"}} 0.000
trafctl_faults_total{{fault=\"no_counter\"}} 0
trafctl_faults_created{{fault=\"no_counter\"}} 0.000
trafctl_faults_total{{fault=\"not_the_nodes\"}} 0
trafctl_faults_created{{fault=\"not_the_nodes\"}} 0.000
# TYPE trafctl_interface_fault_packets counter
# UNIT trafctl_interface_fault_packets packets
# HELP trafctl_interface_fault_packets Packets of an interface that are in no class, by reason.
trafctl_interface_fault_packets_total{{interface=\"veth101.0\",fault=\"not_ip\",direction=\"in\"}} 50
trafctl_interface_fault_packets_created{{interface=\"veth101.0\",fault=\"not_ip\",direction=\"in\"}} 0.000
trafctl_interface_fault_packets_total{{interface=\"veth101.0\",fault=\"not_ip\",direction=\"out\"}} 51
trafctl_interface_fault_packets_created{{interface=\"veth101.0\",fault=\"not_ip\",direction=\"out\"}} 0.000
trafctl_interface_fault_packets_total{{interface=\"veth20.0\",fault=\"not_ip\",direction=\"in\"}} 60
trafctl_interface_fault_packets_created{{interface=\"veth20.0\",fault=\"not_ip\",direction=\"in\"}} 0.000
trafctl_interface_fault_packets_total{{interface=\"veth20.0\",fault=\"not_ip\",direction=\"out\"}} 61
trafctl_interface_fault_packets_created{{interface=\"veth20.0\",fault=\"not_ip\",direction=\"out\"}} 0.000
trafctl_interface_fault_packets_total{{interface=\"veth20.0\",fault=\"malformed\",direction=\"in\"}} 70
trafctl_interface_fault_packets_created{{interface=\"veth20.0\",fault=\"malformed\",direction=\"in\"}} 0.000
trafctl_interface_fault_packets_total{{interface=\"veth20.0\",fault=\"malformed\",direction=\"out\"}} 71
trafctl_interface_fault_packets_created{{interface=\"veth20.0\",fault=\"malformed\",direction=\"out\"}} 0.000
# TYPE trafctl_interface_fault_bytes counter
# UNIT trafctl_interface_fault_bytes bytes
# HELP trafctl_interface_fault_bytes Layer-3 bytes of these packets; of a packet that is not IP, its bytes behind the link layer.
trafctl_interface_fault_bytes_total{{interface=\"veth101.0\",fault=\"not_ip\",direction=\"in\"}} 50000
trafctl_interface_fault_bytes_created{{interface=\"veth101.0\",fault=\"not_ip\",direction=\"in\"}} 0.000
trafctl_interface_fault_bytes_total{{interface=\"veth101.0\",fault=\"not_ip\",direction=\"out\"}} 50007
trafctl_interface_fault_bytes_created{{interface=\"veth101.0\",fault=\"not_ip\",direction=\"out\"}} 0.000
trafctl_interface_fault_bytes_total{{interface=\"veth20.0\",fault=\"not_ip\",direction=\"in\"}} 60000
trafctl_interface_fault_bytes_created{{interface=\"veth20.0\",fault=\"not_ip\",direction=\"in\"}} 0.000
trafctl_interface_fault_bytes_total{{interface=\"veth20.0\",fault=\"not_ip\",direction=\"out\"}} 60007
trafctl_interface_fault_bytes_created{{interface=\"veth20.0\",fault=\"not_ip\",direction=\"out\"}} 0.000
trafctl_interface_fault_bytes_total{{interface=\"veth20.0\",fault=\"malformed\",direction=\"in\"}} 70000
trafctl_interface_fault_bytes_created{{interface=\"veth20.0\",fault=\"malformed\",direction=\"in\"}} 0.000
trafctl_interface_fault_bytes_total{{interface=\"veth20.0\",fault=\"malformed\",direction=\"out\"}} 70007
trafctl_interface_fault_bytes_created{{interface=\"veth20.0\",fault=\"malformed\",direction=\"out\"}} 0.000
# TYPE trafctl_unaccounted_bytes gauge
# UNIT trafctl_unaccounted_bytes bytes
# HELP trafctl_unaccounted_bytes Bytes that passed interfaces less those in classes less those in faults; zero when traffic rests.
trafctl_unaccounted_bytes {unaccounted}
# TYPE trafctl_pending_interfaces gauge
# UNIT trafctl_pending_interfaces interfaces
# HELP trafctl_pending_interfaces Interfaces that are counted for an owner who is not known yet (container pending:...).
trafctl_pending_interfaces 0
# TYPE trafctl_estimated_packets counter
# UNIT trafctl_estimated_packets packets
# HELP trafctl_estimated_packets Packets of super-packets whose size came from the plain segmentation rule.
trafctl_estimated_packets_total 72
trafctl_estimated_packets_created 0.000
# TYPE trafctl_small_segment_packets counter
# UNIT trafctl_small_segment_packets packets
# HELP trafctl_small_segment_packets Packets in segments below 48 bytes, a size that only the sender claims; they are in their class too.
trafctl_small_segment_packets_total 192
trafctl_small_segment_packets_created 0.000
# TYPE trafctl_small_segment_bytes counter
# UNIT trafctl_small_segment_bytes bytes
# HELP trafctl_small_segment_bytes Layer-3 bytes of these packets, headers included.
trafctl_small_segment_bytes_total 252
trafctl_small_segment_bytes_created 0.000
# TYPE trafctl_copied_buffers counter
# UNIT trafctl_copied_buffers buffers
# HELP trafctl_copied_buffers Copies that no wire carried, such as what an ifb sends again; in no other figure.
trafctl_copied_buffers_total 312
trafctl_copied_buffers_created 0.000
# TYPE trafctl_last_drain_timestamp_seconds gauge
# UNIT trafctl_last_drain_timestamp_seconds seconds
# HELP trafctl_last_drain_timestamp_seconds When the counters were last recorded in the ledger; zero if not since the daemon started.
trafctl_last_drain_timestamp_seconds 1699999999.042
# TYPE trafctl_gaps counter
# HELP trafctl_gaps Gaps that drains recorded since the daemon started.
trafctl_gaps_total 6
trafctl_gaps_created 1699990000.000
# TYPE trafctl_drain_failures counter
# HELP trafctl_drain_failures Drains that failed since the daemon started.
trafctl_drain_failures_total 5
trafctl_drain_failures_created 1699990000.000
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
    let of_old = later.counters.iter_mut().filter(|counter| counter.container.as_str() == "20");
    of_old.for_each(|counter| counter.is_retired = true);
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
    let new: Vec<String> = samples(&new).into_iter().filter(|line| !line.contains("_created")).collect();
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

#[test]
fn a_ledger_that_keeps_rows_for_a_store_says_since_when() {
    let of = |held_since| {
        let health = DaemonHealth { drains: Some(Drains { held_since, ..drains() }), ..health() };
        let text = metrics::render(&snapshot(), &health, metrics::Format::OpenMetrics);
        let line = text.lines().find(|line| line.starts_with("trafctl_retention_held"));
        line.map(str::to_owned)
    };
    assert_eq!(of(None), None);
    let line = |value| Some(format!("trafctl_retention_held_since_timestamp_seconds {value}"));
    assert_eq!(of(Some(None)), line(0));
    assert_eq!(of(Some(Timestamp::from_second(1_700_000_000).ok())), line(1_700_000_000));
}
