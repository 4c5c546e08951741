//! What a real Prometheus computes from the metrics, over a container's id that goes to a new customer.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::Lab;
use traffic_tests::check::{eventually, is_well};
use traffic_tests::container::introduce;
use traffic_tests::process::Process;
use traffic_tests::prometheus::Prometheus;
use traffic_tests::traffic::udp_send;

/// Longer than a new customer's counters are shown as zero.
const ZERO_FOR: Duration = Duration::from_secs(130);
const SENT: &str = "trafctl_network_transmit_packets_total{container=\"101\",class=\"1\"}";

#[test]
fn increase_has_all_traffic_of_an_ids_new_customer() -> Result<()> {
    let lab = Lab::new("prometheus")?;
    let classes = lab.write("classes", "1 0.0.0.0/0\n1 ::/0\n")?;
    lab.configure(&format!("class_file = {classes:?}\n[api]\nlisten = \"127.0.0.1:9177\"\n"))?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let _daemon = Process::spawn(lab.trafctl(&["run"])?.stdin(Stdio::null()))?;
    let prometheus = Prometheus::start(
        &lab,
        "global: {scrape_interval: 5s}\nscrape_configs:\n- job_name: trafctl\n  static_configs:\n  - targets: ['127.0.0.1:9177']\n",
    )?;
    let send = |datagrams| -> Result<f64> {
        let sent = udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), datagrams, 100)?;
        Ok(f64::from(u32::try_from(sent.packets)?))
    };

    eventually("everything is attached", || Ok(is_well(&lab).is_ok()))?;
    let old = send(100)?;
    let seen = |value: f64| prometheus.value(SENT).ok().flatten().is_some_and(|seen| seen >= value);
    eventually("Prometheus has the old customer's traffic", || Ok(seen(old)))?;
    let begin = prometheus.value(SENT)?.context("no value")?;
    let start = Instant::now();
    lab.run_ok(&["container", "retire", "101", "--yes"])?;
    let new = send(400)?;
    ensure!(new > begin, "it must not look like a restart by itself");
    // Until it is shown, Prometheus sees zero.
    let deadline = start + ZERO_FOR;
    while !(prometheus.value(SENT)? == Some(new) || Instant::now() > deadline) {
        std::thread::sleep(Duration::from_secs(1));
    }
    ensure!(prometheus.value(SENT)? == Some(new), "{:?} is not {new}", prometheus.value(SENT)?);
    // increase() extrapolates to its range, by less than two scrape intervals of it.
    let range = u32::try_from(start.elapsed().as_secs())? + 2;
    let increase = prometheus.value(&format!("increase({SENT}[{range}s])"))?.context("no increase")?;
    let most = new * (1.0 + 15.0 / f64::from(range));
    ensure!(increase >= new && increase <= most, "increase() is {increase} for {new}, at most {most}");
    // The exact growth, as Prometheus finds it from restarts.
    ensure!(prometheus.value(&format!("resets({SENT}[{range}s])"))? == Some(1.0), "no restart was seen");
    Ok(())
}
