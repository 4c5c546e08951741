//! `trafctl reconcile`

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time,
};
use traffic_model::units::parse_duration;

use crate::{
    cli::{
        Done, Format, Global,
        output::{print, print_message},
    },
    kernel::{bpffs::Bpffs, counters, drops, load, paths::Paths},
    net::netlink::Netlink,
    reconcile::{Reading, reconcile, shown_as, unfit},
    render::reconcile as render,
};

/// What `--for` takes.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Compare what was counted for containers with what the uplinks carried, and name the rest
///
/// Follows the packets through the node for a while, with programs that are loaded for this time only, and shows where
/// what containers sent went (an uplink, another container, the node, a tunnel, dropped), where what they received
/// came from, and who else used the uplinks. `difference` is what no figure explains. The uplinks are those of
/// the configuration. Ctrl-C ends the measurement early and shows it. Status 1 if something could not be followed: a
/// note says what.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl reconcile\n  \
    trafctl reconcile --for 5m --human\n  \
    trafctl reconcile --format json | jq .from_containers.difference")]
pub struct Options {
    /// How long to follow the packets: 30s, 5m, 1h
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = parse_time)]
    time: Duration,
    /// Show bytes in KiB, MiB and GiB (tables only)
    #[arg(long)]
    human: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    if (SHORTEST..=LONGEST).contains(&time) {
        return Ok(time);
    }
    Err("a measurement takes from 1 s to 24 h".to_owned())
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    let (config, _) = global.config_to_show();
    ensure!(
        !config.uplinks.is_empty(),
        "no uplinks are known to compare with; set them in the configuration, such as `uplinks = [\"eth0\"]` under \
         [node]"
    );
    let (pinned, netlink) = (global.pinned(), Netlink::connect()?);
    let listed = netlink.interfaces()?;
    if let Some(reason) = config.uplinks.iter().find_map(|uplink| unfit(uplink, &listed)) {
        bail!(reason);
    }
    load::open(&pinned)?;
    let mut paths = Paths::load(&pinned)?;
    paths.show_as(shown_as(&listed))?;
    // From here on, both end the measurement and not the process.
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let before = read(&pinned, &netlink, &config.node)?;
    paths.count(true)?;
    print_message(&format!("following packets for {} s; Ctrl-C ends it early", options.time.as_secs_f64()));
    tokio::select! {
        () = time::sleep(options.time) => {}
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    // First what is counted behind the hooks: a packet that is on its way is then counted for its container at least.
    paths.count(false)?;
    let after = read(&pinned, &netlink, &config.node)?;
    ensure!(
        before.snapshot.epoch == after.snapshot.epoch,
        "the counters were made anew during the measurement; start it again"
    );
    let ways = paths.read()?;
    let mut reconciliation = reconcile(&before, &after, &ways, &config.uplinks);
    if let Some(reason) = paths.without_local.take() {
        reconciliation.lacks(format!("what is delivered to the node itself is in the difference: {reason}"));
    }
    print(&match options.format {
        Format::Table => render::table(&reconciliation, options.human),
        Format::Json => render::json(&reconciliation)?,
    })?;
    if !reconciliation.complete {
        print_message("the measurement is incomplete");
    }
    Ok(Done::success_if(reconciliation.complete))
}

/// Reads everything that counts. Drops before counters: what was dropped is then in them.
fn read(pinned: &Bpffs, netlink: &Netlink, node: &str) -> anyhow::Result<Reading> {
    let begin = Instant::now();
    let maps = load::open(pinned)?;
    let interfaces = netlink.interfaces()?;
    let drops = drops::read(pinned, &maps)?;
    let snapshot = counters::read(&maps, node)?;
    let took_ns = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(Reading { snapshot, drops, interfaces, took_ns })
}
