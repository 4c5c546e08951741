//! Shared by these tests: a node with traffic in several classes, and the binary under another name.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use traffic_tests::container::introduce;
use traffic_tests::lab::trafctl_program;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Container, Counters, Lab};

/// The names; each is a symbolic link to the binary in the lab's directory.
pub const NAMES: [&str; 3] = ["vznetstat", "pnetstat", "vztactl"];

/// Class 3 is configured for IPv6 only and has no traffic.
pub const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n2 10.2.0.0/16\n3 2001:db8::/32\n0 192.0.2.0/24\n";

/// A counted container 101, and a remote host that has the peers' addresses.
#[derive(Debug)]
pub struct World {
    pub lab: Lab,
    pub container: Container,
    pub beyond: Container,
}

/// An address with a port that the kernel chooses.
pub fn at(address: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse::<IpAddr>()?, 0))
}

impl World {
    /// Creates a node whose container 101 is attached.
    pub fn new(name: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let classes = lab.write("classes", CLASSES)?;
        let vz = lab.path("vz");
        std::fs::create_dir(&vz)?;
        // These tests load whole other tables, one after another.
        lab.configure(&format!(
            "class_file = {classes:?}\nvz_conf_dir = {vz:?}\n[classes]\nhold_if_removed = \"100%\"\n\
             [[interfaces.rule]]\npattern = \"uplink\"\nkind = \"ignore\"\n"
        ))?;
        for name in NAMES {
            symlink(trafctl_program()?, lab.path(name))?;
        }
        let container = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
        let mut beyond = lab.bridged_as("uplink", [10, 99, 0, 1].into(), "fd00:99::1".parse()?)?;
        for address in ["8.8.8.8", "10.2.0.9", "192.0.2.9"] {
            beyond.add_address(address.parse()?)?;
        }
        introduce(&[&container, &beyond])?;
        lab.run_ok(&["attach"])?;
        Ok(Self { lab, container, beyond })
    }

    /// Sends datagrams out of the container; returns packets and bytes as the sender counted them.
    pub fn send(&self, to: &str, packets: u64, payload: usize) -> Result<(u64, u64)> {
        let count = udp_send(self.container.namespace(), self.beyond.namespace(), at(to)?, packets, payload)?;
        ensure!(count.packets_received == count.packets, "{count:?}");
        Ok((count.packets, count.l3_bytes))
    }

    /// Sends datagrams in to the container.
    pub fn receive(&self, from_family_of: &str, packets: u64, payload: usize) -> Result<(u64, u64)> {
        let count = udp_send(
            self.beyond.namespace(),
            self.container.namespace(),
            at(from_family_of)?,
            packets,
            payload,
        )?;
        ensure!(count.packets_received == count.packets, "{count:?}");
        Ok((count.packets, count.l3_bytes))
    }

    /// The binary under one of the names, as on a node: without global options.
    pub fn called(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = self.lab.host().command(self.lab.path(name));
        self.set_paths(command.args(arguments));
        command
    }

    /// Sets this node's paths in the environment.
    pub fn set_paths(&self, command: &mut Command) {
        command.env("TRAFCTL_BPFFS", self.lab.bpffs());
        command.env("TRAFCTL_STATE_DIR", self.lab.state_dir());
        command.env("TRAFCTL_CONFIG", self.lab.config());
    }

    /// The output of a command that must succeed and write nothing to stderr.
    pub fn printed(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let output = output(&mut self.called(name, arguments))?;
        ensure!(
            output.status.code() == Some(0) && output.stderr.is_empty(),
            "{name} {arguments:?}: {} {}",
            output.status,
            stderr(&output)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The rows of `vznetstat` with these options.
    pub fn rows(&self, arguments: &[&str]) -> Result<Vec<Row>> {
        // Wait for packets that are still on their way.
        Counters::at_rest(&self.lab)?;
        rows(&self.printed("vznetstat", arguments)?)
    }

    /// One row of `vznetstat`.
    pub fn row(&self, id: &str, class: u8) -> Result<Amounts> {
        let rows = self.rows(&["-v", id])?;
        let row = rows.iter().find(|row| row.class == class);
        Ok(row.with_context(|| format!("no class {class} of {id} in {rows:?}"))?.amounts)
    }
}

/// A row, parsed by the strictest rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    pub class: u8,
    pub amounts: Amounts,
}

/// Parses an output: skips the first line; every other line has six blank-separated fields and no blank at
/// its end.
pub fn rows(text: &str) -> Result<Vec<Row>> {
    ensure!(text.ends_with('\n') && text.is_ascii(), "{text:?}");
    text.lines().skip(1).map(|line| row(line).with_context(|| format!("{line:?}"))).collect()
}

fn row(line: &str) -> Result<Row> {
    ensure!(line == line.trim(), "blanks at an end of the line");
    let fields: Vec<&str> = line.split(' ').filter(|field| !field.is_empty()).collect();
    let [id, class, in_bytes, in_packets, out_bytes, out_packets] = fields[..] else {
        bail!("{} fields", fields.len());
    };
    let amounts = Amounts {
        in_bytes: in_bytes.parse()?,
        in_packets: in_packets.parse()?,
        out_bytes: out_bytes.parse()?,
        out_packets: out_packets.parse()?,
    };
    Ok(Row { id: id.to_owned(), class: class.parse()?, amounts })
}

/// Runs a command to its end, whatever that is.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))
}

/// What a command said on stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
