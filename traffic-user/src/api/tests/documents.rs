//! Documents from live counters, and what is refused.

use traffic_common::{DROP_FAULTS, DropGroup};
use traffic_model::DropCounter;

use super::*;
use crate::render::dump;

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
    for request in ["DELETE /api/v1/counters", "POST /", "PUT /api/v1/report"] {
        let (head, body) = ask(good_source(), request).await;
        assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("\r\nallow: GET,HEAD\r\n"), "{head}");
        assert!(body.contains("nothing can be changed here"), "{body}");
    }
    for path in
        ["GET /metric", "GET /api/v1", "GET /api/v1/", "GET /api/v2/report", "GET /a/b.html", "GET //"]
    {
        let (head, body) = ask(good_source(), path).await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
        assert!(body.contains("\"version\":1") && body.contains("/api/v1/openapi.json"), "{path}: {body}");
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
        ("GET /api/v1/rates?sort=rx", 400, "write one of total, in, out, packets"),
        ("GET /api/v1/rates?container=777", 404, "no container 777 is known: "),
        ("GET /api/v1/report", 404, "keeps no ledger"),
        ("GET /api/v1/interfaces", 404, "the state of the node is not known here"),
        ("GET /api/v1/classes", 404, "no class table is known here"),
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

#[tokio::test]
async fn every_answer_tells_the_browser_to_run_nothing_foreign() {
    for (request, host, status) in [
        ("GET /", "localhost", "200"),
        ("GET /metrics", "localhost", "200"),
        ("GET /nothing", "localhost", "404"),
        ("GET /api/v1/counters?x=1", "localhost", "400"),
        ("GET /", "attacker.example", "421"),
        ("DELETE /", "localhost", "405"),
    ] {
        let (head, _) = ask_as(good_source(), request, host).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
        for line in [
            "content-security-policy: default-src 'none'; script-src 'self'; ",
            "; frame-ancestors 'none'\r\n",
            "x-content-type-options: nosniff\r\n",
            "referrer-policy: no-referrer\r\n",
            "cache-control: private, no-cache\r\n",
        ] {
            assert!(format!("{head}\r\n").contains(line), "{request}: {line:?} is not in {head}");
        }
        assert!(!head.contains("set-cookie"), "{head}");
    }
}

#[tokio::test]
async fn the_page_is_served_compressed_and_only_when_it_changed() {
    let (head, body) = ask(good_source(), "GET /").await;
    assert!(head.contains("content-type: text/html; charset=utf-8") && body.contains("<html"), "{head}");
    assert_eq!(ask(good_source(), "GET /index.html").await.1, body);
    let tag =
        |head: &str| head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim().to_owned();
    let header = format!("Host: localhost\r\nIf-None-Match: {}\r\n", tag(&head));
    let (head, body) = ask_with(good_source(), "GET /", &header, Access::default()).await;
    assert!(head.starts_with("HTTP/1.1 304 ") && body.is_empty(), "{head}");
}

#[tokio::test]
async fn figures_need_the_token_and_the_page_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "0123456789abcdef").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let access = Access::default();
    access.follow(Some(&file)).unwrap();
    for (path, header, status) in [
        ("/", "", "200"),
        ("/metrics", "", "401"),
        ("/api/v1/counters", "", "401"),
        ("/api/v1/counters", "Authorization: Bearer 0123456789abcdeg\r\n", "401"),
        ("/api/v1/counters", "Authorization: Bearer 0123456789abcdef\r\n", "200"),
        ("/api/v1/openapi.json", "", "401"),
        ("/api/v1/nothing", "", "401"),
    ] {
        let header = format!("Host: localhost\r\n{header}");
        let (head, body) = ask_with(good_source(), &format!("GET {path}"), &header, access.clone()).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
        if status == "401" {
            assert!(head.contains("www-authenticate: Bearer realm=\"trafctl\""), "{head}");
            assert!(body.contains("[api] token_file") && !body.contains("veth"), "{body}");
        }
    }
}

#[tokio::test]
async fn live_rates_are_events_of_two_readings() {
    let rising = || {
        let count = std::sync::atomic::AtomicU64::new(0);
        move || count.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    };
    let (count, dropped) = (rising(), rising());
    let source = Source::new(
        move || {
            let number = count();
            let mut snapshot = snapshot();
            snapshot.boottime_ns += number * 1_000_000_000;
            for (at, counter) in (1..).zip(&mut snapshot.counters) {
                counter.tally.incoming.bytes += number * at * 10;
            }
            Ok(snapshot)
        },
        None,
    )
    .with_drops(move || {
        let (snapshot, number) = (snapshot(), dropped());
        let counter = snapshot.counters.iter().find(|one| one.class == 3)?.clone();
        let row = DropCounter {
            container: counter.container,
            generation: counter.generation,
            class: 3,
            family: counter.family,
            group: DropGroup::Shaper,
            tally: ByDirection {
                incoming: Tally { packets: number * 7, bytes: number * 700 },
                outgoing: Tally { packets: number * 5, bytes: number * 600 },
            },
        };
        Some(Drops {
            set: 1,
            since: snapshot.epoch_created,
            lacks: 0,
            is_outdated: false,
            rows: vec![row],
            former: ByDirection::default(),
            faults: [Tally::default(); DROP_FAULTS],
        })
    })
    .naming(|| [(3, "world".to_owned())].into())
    .naming_containers(|| Ok([(ContainerId::new("101")?, "shop".to_owned())].into()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let router = router_for_port(source, Access::default());
    let server = tokio::spawn(serve(listener, router, async move { drop(stopped.await) }));
    let listened = task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /api/v1/rates?by_class=true&count=2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while !text.contains("\n\n") {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the stream ended: {text}");
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        text
    });
    let text = listened.await.unwrap();
    assert!(text.contains("\r\ncontent-type: text/event-stream; charset=utf-8\r\n"), "{text}");
    assert!(text.contains("\r\nx-accel-buffering: no\r\n"), "{text}");
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let rates: serde_json::Value = serde_json::from_str(data).unwrap();
    described::check(&described::description(), "/components/schemas/RatesEvent", &rates);
    let was_dropped = |times: u64| {
        let [in_packets, in_bytes, out_packets, out_bytes] = [7, 700, 5, 600].map(|one| times * one);
        serde_json::json!({"in_packets": in_packets, "in_bytes": in_bytes, "out_packets": out_packets, "out_bytes": out_bytes})
    };
    assert_eq!(rates["dropped"], was_dropped(1));
    let row = |id, class, bytes, dropped| {
        let none = serde_json::json!({"in_packets": 0, "out_bytes": 0, "out_packets": 0});
        let mut row = serde_json::json!({"container": id, "name": "shop", "class": class, "in_bytes": bytes});
        row["dropped"] = was_dropped(dropped);
        row.as_object_mut().unwrap().extend(none.as_object().unwrap().clone());
        row
    };
    assert_eq!(rates["rows"], serde_json::json!([row("101", 3, 50, 1), row("101", 2, 40, 0)]));
    assert_eq!((&rates["row_count"], &rates["all"]["in_bytes"]), (&4.into(), &150.into()));
    assert_eq!(rates["class_names"], serde_json::json!({"3": "world"}));
    let sums: Vec<_> =
        rates["classes"].as_array().unwrap().iter().map(|row| (&row["class"], &row["in_bytes"])).collect();
    let expected = serde_json::json!([[0, 30], [1, 30], [2, 40], [3, 50]]);
    assert_eq!(serde_json::to_value(sums).unwrap(), expected);
    drop(stop);
    server.await.unwrap().unwrap();
}
