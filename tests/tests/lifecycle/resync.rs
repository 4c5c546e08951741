//! What only the periodic listing of `trafctl run` can repair, because no event announces it.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Counters};

use crate::daemon::{Daemon, Resync};
use crate::node::{at, eventually, hooks, is_well, node, pair};

const SHORT: Resync = Resync::Every(Duration::from_millis(100));

#[test]
fn a_resync_attaches_what_another_command_detached() -> Result<()> {
    let lab = node("resync-detached")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start_with(&lab, SHORT)?;
    daemon.settled()?;
    lab.run_ok(&["detach", a.interface()])?;
    eventually("the interface is attached again", || Ok(hooks(&lab, a.interface())?.len() == 2))?;
    eventually("status reports no problem", || Ok(is_well(&lab).is_ok()))?;
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 30, 100)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), Amounts::outgoing(sent.packets, sent.l3_bytes));
    daemon.stop()
}

#[test]
fn a_resync_reads_a_container_file_that_its_writer_keeps_open() -> Result<()> {
    let lab = node("resync-file")?;
    let directory = lab.path("conf");
    fs::create_dir(&directory)?;
    lab.configure(&format!("class_file = {:?}\nvz_conf_dir = {directory:?}\n", lab.path("classes")))?;
    let container = lab.bridged_as("veth42001122", [10, 1, 0, 7].into(), "fd00:1::7".parse()?)?;
    let mut file = fs::File::create(directory.join("777.conf"))?;
    let mut daemon = Daemon::start_with(&lab, SHORT)?;
    daemon.settled()?;
    daemon.logs("veth42001122: counted as pending:")?;
    // Inotify reports a file when its writer closes it. This one stays open until the end of the test.
    file.write_all(b"NETIF=\"host_ifname=veth42001122\"\n")?;
    daemon.logs("veth42001122: pending:")?;
    assert_eq!(hooks(&lab, container.interface())?.len(), 2);
    daemon.stop()
}

#[test]
fn a_resync_asks_the_identity_command_again() -> Result<()> {
    let lab = node("resync-command")?;
    let answer = lab.write("answer", "# no container yet\n")?;
    lab.configure(&format!(
        "class_file = {:?}\n[host]\npreset = 'libvirt'\n[identities]\ncommand = ['/bin/cat', {answer:?}]\n",
        lab.path("classes")
    ))?;
    let container = lab.bridged_as("vnet1", [10, 1, 0, 7].into(), "fd00:1::7".parse()?)?;
    let mut daemon = Daemon::start_with(&lab, SHORT)?;
    daemon.logs("vnet1: counted as pending:")?;
    fs::write(&answer, "vnet1 web\n")?;
    daemon.logs(" is web, with everything since its first packet")?;
    assert_eq!(hooks(&lab, container.interface())?.len(), 2);
    daemon.stop()
}
