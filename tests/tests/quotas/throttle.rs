//! The examples that throttle a container: a real one crosses its limit, a real tree of `tc` throttles it, its rate is
//! measured, and the next period lifts the limit.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Output,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Container, Daemon, Lab, Resync,
    check::{eventually, stderr},
    container::introduce,
    lab::trafctl_program,
    namespace::Namespace,
    process::run_ok,
    traffic::{tcp_transfer, udp_send},
    wall_clock,
};

use super::{
    CLASSES, PATIENCE, crossings, lines, node, quotas_of, runner, runner_by, send, set_clock, shaper,
};

/// An example that is shipped.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/quota").join(name)
}

/// Sends so many bytes over TCP, and returns how many bits arrived in a second.
fn rate(from: &Container, to: &Container, bytes: u64) -> Result<f64> {
    let begun = Instant::now();
    tcp_transfer(from.namespace(), to.namespace(), SocketAddr::new(to.v4(), 0), bytes)?;
    Ok(bytes as f64 * 8.0 / begun.elapsed().as_secs_f64())
}

#[test]
fn a_container_over_its_quota_is_throttled_and_the_next_day_lifts_it() -> Result<()> {
    let (lab, mut a, b) = node("quota-tc")?;
    let (log, clock) = (lab.path("ran"), lab.path("clock"));
    let throttle = example("throttle.sh");
    let (throttle, log_to) = (throttle.display(), format!("cat >>{}; exec \"$0\" \"$1\"", log.display()));
    let words = |argument: &str| format!("['/bin/sh', '-c', '{log_to}', '{throttle}', '{argument}']");
    let action = format!("command = {}\nlift = {}\nagain = '1m'", words("2mbit"), words("off"));
    quotas_of(&lab, (100_000, "in"), "UTC", &action)?;
    set_clock(&clock, 0)?;
    let mut daemon = Daemon::spawn(&mut wall_clock::of_file(lab.trafctl(&["run"])?, &clock), Resync::Off)?;
    daemon.ready()?;
    let actions = runner_by(&lab, &clock)?;
    send(&a, &b, 60)?;
    let reached = |percent: u64, states: &[&str]| {
        (percent, "reached".to_owned(), states.iter().map(|state| (*state).to_owned()).collect::<Vec<_>>())
    };
    eventually("the half is reached", || Ok(crossings(&lab)? == [reached(50, &[])]))
        .with_context(|| daemon.log())?;
    ensure!(!shaper(&lab)?.contains("tbf"), "nothing is ordered at 50 %");
    send(&a, &b, 50)?;
    let both = [reached(50, &[]), reached(100, &["done"])];
    eventually("the action has run", || Ok(crossings(&lab)? == both)).with_context(|| daemon.log())?;
    ensure!(shaper(&lab)?.contains("rate 2Mbit"), "{}", shaper(&lab)?);
    // What arrives is not faster than the shaper, whatever else this machine does.
    let throttled = rate(&b, &a, 512 << 10)?;
    ensure!(throttled < 2_200_000.0, "{throttled} bit/s through a shaper of 2 Mbit/s");
    // A restart of the container takes its shaper along. While it is in force, it is put back.
    a.stop()?;
    a.start()?;
    introduce(&[&a, &b])?;
    ensure!(!shaper(&lab)?.contains("tbf"), "{}", shaper(&lab)?);
    set_clock(&clock, 61)?;
    eventually("the action has run again", || Ok(shaper(&lab)?.contains("rate 2Mbit")))?;
    ensure!(crossings(&lab)? == both, "{:?}", crossings(&lab)?);
    // It crosses nothing again, and the next day ends it.
    set_clock(&clock, 23 * 3600)?;
    send(&a, &b, 1)?;
    eventually("the day is over", || {
        let all = crossings(&lab)?;
        Ok(all.len() == 4 && all[2] == (100, "ended".to_owned(), vec!["done".to_owned()]))
    })
    .with_context(|| format!("{:?} {}", crossings(&lab), daemon.log()))?;
    ensure!(!shaper(&lab)?.contains("tbf"), "{}", shaper(&lab)?);
    let lifted = rate(&b, &a, 16 << 20)?;
    ensure!(lifted > 2_200_000.0, "{lifted} bit/s without a shaper");
    ensure!(actions.terminate(PATIENCE)?.success());
    let documents: Vec<serde_json::Value> =
        lines(&log).iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let first = &documents[0];
    ensure!(first["event"] == "reached" && first["node"] == "n7" && first["attempt"] == 1, "{first}");
    ensure!(first["period"]["start"] == "2026-11-10T00:00:00Z" && first["unit"] == "bytes", "{first}");
    ensure!(first["used"].as_u64() >= Some(100_000) && first["allowance"] == 100_000, "{first}");
    ensure!(documents[1]["event"] == "reached" && documents[1]["id"] == first["id"], "{documents:?}");
    ensure!(documents[2]["event"] == "ended" && documents.len() == 3, "{documents:?}");
    daemon.stop()?;
    Ok(())
}

/// The container sends over an uplink. The shaper is a tree at the uplink that selects it by its mark.
#[test]
fn a_container_is_throttled_by_its_mark_and_the_next_day_lifts_it() -> Result<()> {
    let lab = Lab::new("quota-mark")?;
    let classes = lab.write("networks_classes", &format!("{CLASSES}3 198.51.100.0/24\n"))?;
    lab.configure(&format!(
        "class_file = {classes:?}\n[shaping]\nenabled = false\n[drain]\ninterval = '100ms'\n"
    ))?;
    let foreign = IpAddr::from([198, 51, 100, 7]);
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    let mut world = lab.bridged_as("eth0", [10, 9, 0, 9].into(), "fd00:9::9".parse()?)?;
    world.add_address(foreign)?;
    introduce(&[&a, &b, &world])?;
    let program = trafctl_program()?;
    let bin = program.parent().context("a directory")?.display().to_string();
    let words = |rate: &str| {
        let state = format!("TRAFCTL_STATE_DIR={}", lab.state_dir().display());
        let config = format!("TRAFCTL_CONFIG={}", lab.config().display());
        let path = format!("PATH={bin}:/usr/sbin:/usr/bin:/sbin:/bin");
        let script = example("throttle-by-mark.sh").display().to_string();
        format!("{:?}", ["/usr/bin/env", &state, &config, &path, &script, "eth0", rate])
    };
    let action = format!("command = {}\nlift = {}", words("2mbit"), words("off"));
    quotas_of(&lab, (100_000, "out"), "UTC", &action)?;
    let clock = lab.path("clock");
    set_clock(&clock, 0)?;
    let mut daemon = Daemon::spawn(&mut wall_clock::of_file(lab.trafctl(&["run"])?, &clock), Resync::Off)?;
    daemon.ready()?;
    let actions = runner(&lab)?;
    let udp = |from: &Container, to: IpAddr, datagrams| {
        udp_send(from.namespace(), world.namespace(), SocketAddr::new(to, 0), datagrams, 972).map(drop)
    };
    udp(&a, world.v4(), 110)?;
    // Nothing has a mark to select by. That is no success.
    let states = || {
        let all = crossings(&lab)?.into_iter();
        anyhow::Ok(all.flat_map(|(.., states)| states).collect::<Vec<_>>())
    };
    eventually("the action fails", || Ok(states()? == ["failed"])).with_context(|| daemon.log())?;
    let text = lab.trafctl(&["quota", "crossings", "--failed"])?.output()?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(text.contains("packets have no mark to throttle by"), "{text}");
    let tree = || run_ok(lab.host().command("tc").args(["qdisc", "show", "dev", "eth0", "root"]));
    ensure!(!tree()?.contains("htb"), "{}", tree()?);
    let marked = fs::read_to_string(lab.config())?.replace("enabled = false", "enabled = true");
    lab.configure(&marked)?;
    daemon.signal(rustix::process::Signal::HUP)?;
    eventually("the action succeeds", || Ok(states()? == ["done"])).with_context(|| daemon.log())?;
    eventually("packets are marked", || {
        let output = lab.trafctl(&["status", "--format", "json"])?.output()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(status["shaping_mark"]["in_force"] == true)
    })?;
    ensure!(tree()?.contains("qdisc htb 7fd: root"), "{}", tree()?);
    // What the tree has sent, by its own count: everything of the container, in each class, and nothing else.
    let sent = || {
        let text = run_ok(lab.host().command("tc").args(["-s", "class", "show", "dev", "eth0"]))?;
        let numbers = text.split("Sent ").nth(1).context("one class")?.split_whitespace();
        let mut numbers = numbers.filter_map(|word| word.parse::<u64>().ok());
        anyhow::Ok((numbers.next().context("bytes")?, numbers.next().context("packets")?))
    };
    let before = sent()?;
    udp(&a, world.v4(), 21)?;
    udp(&a, foreign, 22)?;
    let after = sent()?;
    ensure!(after.1 - before.1 == 43 && after.0 - before.0 == 43 * 1014, "{before:?} {after:?}");
    udp(&b, world.v4(), 23)?;
    let free = rate(&b, &world, 16 << 20)?;
    ensure!(sent()? == after, "another container passes beside it: {:?}", sent()?);
    let throttled = rate(&a, &world, 512 << 10)?;
    ensure!(throttled < 2_200_000.0 && free > 2_200_000.0, "{throttled} and {free} bit/s");
    ensure!(sent()?.0 - after.0 > 512 << 10, "{after:?} {:?}", sent()?);
    set_clock(&clock, 23 * 3600)?;
    udp(&a, world.v4(), 1)?;
    eventually("the day is over", || {
        Ok(crossings(&lab)?.contains(&(100, "ended".to_owned(), vec!["done".to_owned()])))
    })
    .with_context(|| format!("{:?} {}", crossings(&lab), daemon.log()))?;
    ensure!(!tree()?.contains("htb"), "{}", tree()?);
    let lifted = rate(&a, &world, 16 << 20)?;
    ensure!(lifted > 2_200_000.0, "{lifted} bit/s without a shaper");
    ensure!(actions.terminate(PATIENCE)?.success());
    daemon.stop()?;
    Ok(())
}

/// Runs the example by mark on a device of a namespace.
fn by_mark(host: &Namespace, state: &Path, container: &str, rate: &str) -> Result<Output> {
    let mut command = host.command("sh");
    command.arg(example("throttle-by-mark.sh")).args(["up0", rate]);
    command.env("TRAFCTL_CONTAINER", container).env("TRAFCTL_STATE_DIR", state);
    // Whatever is installed on this machine has another configuration.
    command.env("TRAFCTL_CONFIG", "/dev/null/none");
    Ok(command.output()?)
}

#[test]
fn the_tree_by_marks_comes_with_the_first_and_goes_with_the_last() -> Result<()> {
    let host = Namespace::new("marks")?;
    let state = tempfile::tempdir()?;
    host.ip("link add up0 type veth peer name up1")?;
    let tc = |words: &str| run_ok(host.command("tc").args(words.split_whitespace()));
    let on = |container: &str, rate: &str| {
        let output = by_mark(&host, state.path(), container, rate)?;
        ensure!(output.status.success(), "{container} {rate}: {}", stderr(&output));
        anyhow::Ok(())
    };
    let refused = |container: &str, why: &str| {
        let output = by_mark(&host, state.path(), container, "1mbit")?;
        ensure!(
            !output.status.success() && stderr(&output).contains(why),
            "{container}: {}",
            stderr(&output)
        );
        anyhow::Ok(())
    };
    let rates = || {
        let text = tc("class show dev up0")?;
        let rates = text.lines().filter_map(|line| line.split(" rate ").nth(1)?.split(' ').next());
        let mut rates: Vec<_> = rates.map(str::to_owned).collect();
        rates.sort();
        anyhow::Ok(rates)
    };
    for container in ["web", "0", "0101", "", "-1", "134217728", "99999999999999999999", "101;reboot"] {
        refused(container, "has no mark")?;
    }
    let untouched = tc("qdisc show dev up0")?;
    on("101", "off")?;
    on("101", "2mbit")?;
    on("101", "2mbit")?;
    on("134217727", "3mbit")?;
    ensure!(rates()? == ["2Mbit", "3Mbit"], "{:?}", rates()?);
    on("101", "4mbit")?;
    ensure!(rates()? == ["3Mbit", "4Mbit"], "{:?}", rates()?);
    on("101", "off")?;
    on("101", "off")?;
    ensure!(rates()? == ["3Mbit"], "{:?}", rates()?);
    // What a killed script has left goes with the next one.
    tc("class add dev up0 parent 7fd: classid 7fd:9000 htb rate 9mbit")?;
    on("134217727", "off")?;
    ensure!(tc("qdisc show dev up0")? == untouched, "{}", tc("qdisc show dev up0")?);
    // A rate that `tc` does not know leaves nothing.
    let output = by_mark(&host, state.path(), "101", "fast")?;
    ensure!(!output.status.success() && tc("qdisc show dev up0")? == untouched, "{}", stderr(&output));
    // Many at once.
    let all = |rate: &str| -> Result<()> {
        let (host, state) = (&host, state.path());
        std::thread::scope(|scope| {
            let one = |id: u32| scope.spawn(move || by_mark(host, state, &id.to_string(), rate));
            let runs: Vec<_> = (1..=8).map(one).collect();
            for run in runs {
                let output = run.join().map_err(|_panic| anyhow::anyhow!("it panicked"))??;
                ensure!(output.status.success(), "{}", stderr(&output));
            }
            Ok(())
        })
    };
    all("5mbit")?;
    ensure!(rates()? == ["5Mbit"; 8], "{:?}", rates()?);
    all("off")?;
    ensure!(tc("qdisc show dev up0")? == untouched, "{}", tc("qdisc show dev up0")?);
    // Somebody else's shaper stays, and so does their tree. One whose filters come first is told.
    tc("qdisc add dev up0 root tbf rate 7mbit burst 10kb latency 20ms")?;
    refused("101", "a shaper of somebody else: qdisc tbf")?;
    on("101", "off")?;
    ensure!(tc("qdisc show dev up0 root")?.contains("tbf"));
    tc("qdisc del dev up0 root")?;
    tc("qdisc add dev up0 root handle 1: htb default ffe")?;
    tc("class add dev up0 parent 1: classid 1:ffe htb rate 7mbit")?;
    tc("filter add dev up0 parent 1: protocol all prio 2 u32 match u32 0 0 flowid 1:ffe")?;
    let theirs = (tc("class show dev up0")?, tc("filter show dev up0")?);
    on("101", "2mbit")?;
    on("101", "3mbit")?;
    ensure!(rates()? == ["3Mbit", "7Mbit"], "{:?}", rates()?);
    on("101", "off")?;
    ensure!((tc("class show dev up0")?, tc("filter show dev up0")?) == theirs);
    tc("filter del dev up0")?;
    tc("filter add dev up0 parent 1: protocol all prio 1 u32 match u32 0 0 flowid 1:ffe")?;
    refused("101", "give them a pref above 1")?;
    ensure!(tc("class show dev up0")? == theirs.0);
    Ok(())
}
