//! The ledger in a cluster of ClickHouse servers: every row once, on one shard, on all replicas of it.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use traffic_ledger::{Ledger, LedgerConfig, testing::Node as Simulated};
use traffic_store::{AnyStore, Node, Shipper, Target};
use traffic_tests::{
    Amounts, Container, Counters, Daemon, Lab,
    check::{eventually, stderr},
    clickhouse_cluster::{CLUSTER, ClickHouseCluster, Shape},
    process::Process,
    traffic::udp_send,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn node(name: &str) -> Result<(Lab, Container, Container)> {
    Lab::with_two(
        name,
        "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.2/32\n",
        "node = 'n7'\n[drain]\ninterval = '100ms'\n[ship]\ninterval = '1s'\n",
    )
}

fn store<'l>(lab: &'l Lab, shape: Shape) -> Result<ClickHouseCluster<'l>> {
    let cluster = ClickHouseCluster::start(lab.host(), shape)?;
    lab.run_ok(&["store", "init", &cluster.url(0, "default"), "--cluster", CLUSTER])?;
    Ok(cluster)
}

fn ship(lab: &Lab, cluster: &ClickHouseCluster<'_>, at: usize) -> Result<Output> {
    Ok(lab.trafctl(&["ship", "--once", "--to", &cluster.url(at, "default")])?.output()?)
}

fn ship_ok(lab: &Lab, cluster: &ClickHouseCluster<'_>, at: usize) -> Result<()> {
    let output = ship(lab, cluster, at)?;
    ensure!(output.status.success(), "{}", stderr(&output));
    Ok(())
}

/// The sums of a container, by a view at a server.
fn stored((cluster, at): (&ClickHouseCluster<'_>, usize), view: &str, container: &str) -> Result<Amounts> {
    let row = cluster.query(
        at,
        &format!(
            "SELECT sum(in_packets), sum(in_bytes), sum(out_packets), sum(out_bytes) FROM traffic.{view} WHERE node = 'n7' \
             AND container = '{container}'"
        ),
    )?;
    let numbers: Vec<u64> = row.split('\t').map(str::parse).collect::<Result<_, _>>()?;
    let [in_packets, in_bytes, out_packets, out_bytes] = numbers[..] else { anyhow::bail!("{row}") };
    Ok(Amounts { in_packets, in_bytes, out_packets, out_bytes })
}

fn verify(
    lab: &Lab,
    (cluster, at): (&ClickHouseCluster<'_>, usize),
    more: &[&str],
) -> Result<serde_json::Value> {
    let url = cluster.url(at, "default");
    let arguments = [&["ship", "verify", "--to", &url, "--format", "json"][..], more].concat();
    let output = lab.trafctl(&arguments)?.output()?;
    let verified: serde_json::Value =
        serde_json::from_slice(&output.stdout).with_context(|| stderr(&output))?;
    Ok(verified["stores"][0].clone())
}

fn is_equal(lab: &Lab, of: (&ClickHouseCluster<'_>, usize)) -> Result<()> {
    let verified = verify(lab, of, &[])?;
    ensure!(verified["differences"].as_array().is_some_and(Vec::is_empty), "{verified}");
    ensure!(verified["parts"].as_u64() > Some(5), "{verified}");
    Ok(())
}

#[test]
fn rows_arrive_once_on_one_shard_while_servers_are_killed_and_two_ship() -> Result<()> {
    let (lab, a, b) = node("ch-shards")?;
    let mut cluster = store(&lab, Shape { shards: 2, replicas: 1 })?;
    let check = lab.run_ok(&["store", "check", &cluster.url(1, "default")])?;
    ensure!(check.contains("ClickHouse ") && !check.contains("PostgreSQL"), "{check}");
    let daemon = Daemon::start(&lab)?;
    let mut shippers = Vec::new();
    for at in [0, 1] {
        let mut command = lab.trafctl(&["ship", "--to", &cluster.url(at, "default")])?;
        let log = fs::File::create(lab.path(&at.to_string()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        shippers.push(Process::spawn(&mut command)?);
    }
    for at in [0, 1] {
        udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 300, 333)?;
        udp_send(b.namespace(), a.namespace(), SocketAddr::new(a.v6(), 0), 200, 700)?;
        let sent = Counters::at_rest(&lab)?.container("101");
        cluster.kill(at)?;
        cluster.restart(at)?;
        eventually("the rows are in the store", || {
            Ok(stored((&cluster, 1 - at), "traffic_5min", "101")? == sent)
        })
        .with_context(|| fs::read_to_string(lab.path("0")).unwrap_or_default())?;
    }
    for shipper in shippers {
        ensure!(shipper.terminate(PATIENCE)?.success());
    }
    daemon.stop()?;
    ship_ok(&lab, &cluster, 1)?;
    let counters = Counters::at_rest(&lab)?;
    for at in [0, 1] {
        for container in ["101", "102"] {
            let counted = counters.container(container);
            ensure!(counted.out_packets > 0);
            for view in ["traffic_5min", "traffic_day", "bill_month"] {
                let found = stored((&cluster, at), view, container)?;
                ensure!(found == counted, "{view} of {container} at {at}: {found:?} is not {counted:?}");
            }
        }
        is_equal(&lab, (&cluster, at))?;
        let nodes = lab.run_json(&["store", "nodes", &cluster.url(at, "default"), "--format", "json"])?;
        ensure!(nodes["nodes"][0]["node"] == "n7" && nodes["nodes"][0]["last_bucket"].is_string(), "{nodes}");
    }
    // A row that somebody altered on its shard is found and repaired through the other server.
    let holder = usize::from(cluster.query(0, "SELECT count() FROM traffic.units_local")? == "0");
    let columns = "place, entity, part, part_number, version, container, class, family, series, in_packets";
    cluster.query(
        holder,
        &format!(
            "INSERT INTO traffic.units_local ({columns}, in_bytes) SELECT {columns}, in_bytes + 1 FROM traffic.units_local \
             FINAL WHERE entity = 'traffic' AND in_bytes > 0 LIMIT 1"
        ),
    )?;
    let found = verify(&lab, (&cluster, 1 - holder), &["--repair"])?;
    ensure!(found["differences"][0]["table"] == "traffic" && found["repaired"] == 1, "{found}");
    is_equal(&lab, (&cluster, holder))
}

/// Ships ledgers of their own, until both shards have some.
fn ship_ledgers(directory: &std::path::Path, target: &Target) -> Result<usize> {
    for number in 0..8 {
        let path = directory.join(format!("{number}.sqlite"));
        let mut ledger = Ledger::open(&path, LedgerConfig::default())?;
        let mut node = Simulated::balanced(1_790_424_000);
        node.name = format!("n{number}");
        for bytes in 0..10 {
            node.traffic("101", 1, [1, 100 + bytes, 2, 300 + bytes]).pass(600).drain(&mut ledger);
        }
        let about = Node { name: node.name.clone(), ..Node::default() };
        let shipper = Shipper { ledger: &ledger, machine: None, node: &about, size: Arc::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut store = AnyStore::connect(target).await?;
            shipper.ship(&mut store, &mut |_, _| {}).await?;
            anyhow::Ok(())
        })?;
    }
    Ok(8)
}

#[test]
fn all_rows_of_a_ledger_are_on_one_shard() -> Result<()> {
    let lab = Lab::new("ch-places")?;
    let cluster = store(&lab, Shape { shards: 2, replicas: 1 })?;
    let target = Target::parse(&cluster.url(0, "default")).map_err(anyhow::Error::msg)?;
    let directory = tempfile::tempdir_in("/dev/shm")?;
    let ledgers = lab.host().enter(|| ship_ledgers(directory.path(), &target))?;
    let mut all = BTreeSet::new();
    for at in [0, 1] {
        let places = |table: &str| -> Result<BTreeSet<String>> {
            let rows = cluster.query(at, &format!("SELECT DISTINCT place FROM traffic.{table}_local"))?;
            Ok(rows.lines().map(str::to_owned).collect())
        };
        let here = places("units")?;
        ensure!(!here.is_empty(), "shard {at} has no ledger");
        ensure!(places("records")? == here && places("progress")? == here);
        for place in here {
            ensure!(all.insert(place), "a ledger is on both shards");
        }
    }
    ensure!(all.len() == ledgers);
    // Both answer for all.
    for at in [0, 1] {
        ensure!(cluster.query(at, "SELECT count(), uniqExact(node) FROM traffic.nodes")? == "8\t8");
        let sums = cluster
            .query(at, "SELECT node, sum(in_bytes) FROM traffic.traffic_day GROUP BY node ORDER BY node")?;
        let expected: Vec<String> = (0..ledgers).map(|number| format!("n{number}\t1045")).collect();
        ensure!(sums == expected.join("\n"), "{sums}");
    }
    Ok(())
}

#[test]
fn an_acknowledged_row_is_on_all_replicas() -> Result<()> {
    let (lab, a, b) = node("ch-replicas")?;
    let mut cluster = store(&lab, Shape { shards: 1, replicas: 2 })?;
    let daemon = Daemon::start(&lab)?;
    let send = || udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 300, 333);
    send()?;
    eventually("a drain", || Ok(lab.state_dir().join("ledger.sqlite").exists()))?;
    ship_ok(&lab, &cluster, 0)?;
    let rows = |cluster: &ClickHouseCluster<'_>, at: usize| {
        cluster.query(at, "SELECT count(), sum(in_bytes) FROM traffic.units_local FINAL")
    };
    // Without waiting.
    let there = rows(&cluster, 0)?;
    ensure!(there != "0\t0" && rows(&cluster, 1)? == there, "{there}");
    // While one is down, nothing is acknowledged that it would not have.
    send()?;
    cluster.kill(1)?;
    let refused = ship(&lab, &cluster, 0)?;
    ensure!(!refused.status.success(), "it was acknowledged by one replica alone");
    cluster.restart(1)?;
    daemon.stop()?;
    eventually("it ships again", || Ok(ship(&lab, &cluster, 0)?.status.success()))?;
    let counted = Counters::at_rest(&lab)?.container("101");
    for at in [0, 1] {
        ensure!(stored((&cluster, at), "traffic_5min", "101")? == counted, "replica {at}");
        is_equal(&lab, (&cluster, at))?;
    }
    Ok(())
}

#[test]
fn a_store_is_made_where_it_is_wanted() -> Result<()> {
    let lab = Lab::new("ch-init")?;
    let cluster = ClickHouseCluster::start(lab.host(), Shape { shards: 2, replicas: 1 })?;
    let url = cluster.url(0, "default");
    let refused = lab.trafctl(&["store", "init", &url, "--cluster", "nowhere"])?.output()?;
    ensure!(
        !refused.status.success() && stderr(&refused).contains("knows no cluster nowhere"),
        "{refused:?}"
    );
    let printed = lab.run_ok(&["store", "init", &url, "--cluster", CLUSTER, "--print"])?;
    ensure!(cluster.query(0, "SHOW DATABASES")?.lines().all(|name| name != "traffic"), "it was created");
    // What is printed is what makes a store.
    for sql in printed.split(";\n").filter(|sql| !sql.is_empty()) {
        cluster.query(1, sql)?;
    }
    // What is inserted by hand reaches the other shard a moment later.
    eventually("the version is on both servers", || {
        Ok(cluster.query(0, "SELECT count() FROM traffic.store_version")?.trim() != "0")
    })?;
    for _ in 0..2 {
        let again = lab.run_json(&["store", "init", &url, "--cluster", CLUSTER, "--format", "json"])?;
        ensure!(again["created"] == false && again["problems"] == serde_json::json!([]), "{again}");
    }
    let migrated = lab.run_ok(&["store", "migrate", &url])?;
    ensure!(migrated.contains("already"), "{migrated}");
    let elsewhere = lab.trafctl(&["store", "migrate", &url, "--cluster", "other"])?.output()?;
    ensure!(stderr(&elsewhere).contains("on the cluster fleet"), "{elsewhere:?}");
    Ok(())
}

#[test]
fn assignments_are_on_all_replicas() -> Result<()> {
    let lab = Lab::new("ch-assigned")?;
    let cluster = store(&lab, Shape { shards: 1, replicas: 2 })?;
    let (one, two) = (cluster.url(0, "default"), cluster.url(1, "default"));
    // A store from before there were tenants.
    for sql in [
        format!("DROP TABLE traffic.assignment ON CLUSTER {CLUSTER}"),
        format!("DROP TABLE traffic.assignment_local ON CLUSTER {CLUSTER}"),
        format!("TRUNCATE TABLE traffic.store_version_local ON CLUSTER {CLUSTER}"),
        "INSERT INTO traffic.store_version_local (version) VALUES (1)".to_owned(),
    ] {
        cluster.query(0, &sql)?;
    }
    eventually("the version is on both servers", || {
        Ok(cluster.query(1, "SELECT count() FROM traffic.store_version_local")?.trim() != "0")
    })?;
    let migrated = lab.run_ok(&["store", "migrate", &two, "--cluster", CLUSTER])?;
    ensure!(migrated.ends_with(": schema version 1 became 3\n"), "{migrated}");
    // What one server was told, the other one knows without waiting.
    lab.run_ok(&["store", "assign", &one, "acme", "--container", "101"])?;
    let refused = lab.trafctl(&["store", "assign", &two, "beta", "--container", "101"])?.output()?;
    ensure!(stderr(&refused).contains("beta would have container 101 while acme has it"));
    lab.run_ok(&["store", "unassign", &two, "1", "--until", "2026-01-01"])?;
    let listed = lab.run_ok(&["store", "tenants", &one, "--format", "csv"])?;
    ensure!(listed.ends_with("\n1,acme,101,,,2026-01-01T00:00:00Z\n"), "{listed}");
    // Of those who ask different servers at the same moment, at most one has a container.
    let all = [(&one, "a"), (&two, "b")].map(|(url, tenant)| {
        let mut command = lab.trafctl(&["store", "assign", url, tenant, "--container", "55"])?;
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        anyhow::Ok(command.spawn()?)
    });
    let mut made = 0;
    for child in all {
        made += usize::from(child?.wait_with_output()?.status.success());
    }
    for url in [&one, &two] {
        let listed = lab.run_ok(&["store", "tenants", url, "--format", "csv"])?;
        let live = listed.lines().filter(|line| line.contains(",55,")).count();
        ensure!(made <= 1 && live == made, "{listed}");
    }
    Ok(())
}
