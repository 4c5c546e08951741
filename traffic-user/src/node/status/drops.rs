//! Whether drops behind the hooks are counted.

use traffic_common::DropFault;

use super::{Daemon, DaemonState, report::DropsStatus};
use crate::{
    kernel::{
        bpffs::Bpffs,
        drops::{self, DropState, lacks_text},
        maps::Maps,
    },
    time,
};

/// Why the figures of new interfaces may lack drops.
const OUTDATED: &str = "the counters moved to other maps, and the drop program still reads the former ones; the \
                        daemon replaces it within seconds";
/// While the verifier has the program.
const LOADING: &str = "the daemon is loading the program";
/// Only the daemon loads the program.
const NO_DAEMON: &str = "no program is attached; the daemon loads it (`trafctl run`)";

/// The state of the drop program, and what is wrong with it. A kernel that cannot count drops is not wrong.
pub(super) fn gather(
    bpffs: &Bpffs,
    maps: &Maps,
    configured: bool,
    daemon: &Daemon,
) -> (DropsStatus, Option<String>) {
    let mut status = DropsStatus {
        configured,
        in_force: false,
        loading: false,
        since: None,
        reason: None,
        lacks: Vec::new(),
        not_attributed_packets: 0,
    };
    let found = drops::state(bpffs).and_then(|state| Ok((state, drops::read(bpffs, maps)?)));
    let mut problem = None;
    match found {
        Ok((DropState::Counting(control), read)) => {
            status.in_force = true;
            status.since = Some(time::timestamp(control.created_unix_s).to_string());
            status.lacks = lacks_text(control.lacks);
            if drops::is_outdated(bpffs, &control) {
                status.reason = Some(OUTDATED.to_owned());
            }
            if let Some(read) = read {
                // Estimated ones are in a counter as well.
                let all = DropFault::ALL.into_iter().filter(|fault| *fault != DropFault::Estimated);
                status.not_attributed_packets = all.map(|fault| read.fault(fault).packets).sum();
                let full = read.fault(DropFault::TableFull);
                if !full.is_zero() {
                    problem = Some(format!(
                        "{} dropped packets found no room in the table of drop counters, and count as delivered",
                        full.packets
                    ));
                }
            }
        }
        Ok((DropState::Refused(reason), _)) => status.reason = Some(reason),
        Ok((DropState::OtherVersion(_), _)) => {
            status.reason = Some("another version of trafctl counts them; restart the daemon".to_owned());
        }
        Ok((DropState::Off, _)) if configured => {
            status.loading = daemon.state == DaemonState::Running;
            status.reason = Some(if status.loading { LOADING } else { NO_DAEMON }.to_owned());
        }
        Ok((DropState::Off, _)) => {}
        Err(error) => status.reason = Some(format!("{error:#}")),
    }
    (status, problem)
}
