//! A shaper as a witness of marks: a tree of HTB classes at the egress of an interface, filled by the mark of
//! each packet.
//!
//! Kernels with `cls_fw` do this with `tc ... fw`. For others, a classic BPF program of three instructions
//! under `cls_bpf` makes the same decision, with one filter for each mark. [`Filter`] states which was used.

use anyhow::{Context, Result, bail};

use super::qdisc::QdiscCount;
use crate::namespace::Namespace;
use crate::process::run_ok;

/// The filter that puts packets into classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// `cls_fw`
    Fw,
    /// `cls_bpf` with a classic program that compares the mark.
    ClassicBpf,
}

/// The class of packets without a filter.
const REST: u32 = 0xffe;

/// The tree. Its class `1:N` belongs to the N-th of the given marks.
#[derive(Debug)]
pub struct HtbWitness<'a> {
    namespace: &'a Namespace,
    interface: String,
    marks: Vec<u32>,
    filter: Filter,
}

impl<'a> HtbWitness<'a> {
    /// Creates the tree. Its classes are wide enough not to delay packets for long.
    ///
    /// # Errors
    ///
    /// When the interface has a root qdisc, or the kernel lacks HTB.
    pub fn attach(namespace: &'a Namespace, interface: &str, marks: &[u32]) -> Result<Self> {
        let tc = |text: &str| run_ok(namespace.command("tc").args(text.split_whitespace())).map(drop);
        tc(&format!("qdisc add dev {interface} root handle 1: htb default {REST:x}"))?;
        tc(&format!("class add dev {interface} parent 1: classid 1:fff htb rate 1gbit burst 10m"))?;
        for class in (1..).take(marks.len()).chain([REST]) {
            let rate = "htb rate 1mbit ceil 1gbit burst 10m cburst 10m";
            tc(&format!("class add dev {interface} parent 1:fff classid 1:{class:x} {rate}"))?;
            tc(&format!("qdisc add dev {interface} parent 1:{class:x} pfifo limit 10000"))?;
        }
        let mut filter = Filter::Fw;
        for (class, mark) in (1..).zip(marks) {
            let add = format!("filter add dev {interface} parent 1: protocol all prio {class}");
            if filter == Filter::Fw {
                match tc(&format!("{add} handle {mark} fw flowid 1:{class:x}")) {
                    Ok(()) => continue,
                    // A kernel without cls_fw refuses the first filter.
                    Err(error) if class == 1 && format!("{error:#}").contains("not found") => {
                        filter = Filter::ClassicBpf;
                    }
                    Err(error) => return Err(error),
                }
            }
            let program = format!("4,32 0 0 {SKF_AD_MARK},21 0 1 {mark},6 0 0 4294967295,6 0 0 0");
            let words = format!("{add} bpf bytecode");
            let rest = ["flowid".to_owned(), format!("1:{class:x}")];
            run_ok(namespace.command("tc").args(words.split_whitespace()).arg(program).args(rest))?;
        }
        Ok(Self { namespace, interface: interface.to_owned(), marks: marks.to_vec(), filter })
    }

    /// The filter that is used here.
    #[must_use]
    pub fn filter(&self) -> Filter {
        self.filter
    }

    /// The packets sent so far: by mark in the given order, and those with other marks.
    ///
    /// # Errors
    ///
    /// When the interface is gone.
    pub fn read(&self) -> Result<(Vec<QdiscCount>, QdiscCount)> {
        // iproute2 before 6.2 has no JSON for classes.
        let text =
            run_ok(self.namespace.command("tc").args(["-s", "class", "show", "dev", &self.interface]))?;
        let count = |class: u32| {
            let head = format!("class htb 1:{class:x} ");
            let sent = text.lines().skip_while(|line| !line.starts_with(&head)).nth(1);
            let numbers: Vec<u64> = sent
                .with_context(|| format!("no class {class:x} in {text}"))?
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|number| number.parse().ok())
                .collect();
            // Sent 1 bytes 2 pkt (dropped 3, overlimits 4 requeues 5)
            let [bytes, packets, drops, ..] = numbers[..] else { bail!("no statistics in {text}") };
            Ok(QdiscCount { packets, bytes, drops })
        };
        let marked = (1..).take(self.marks.len()).map(count).collect::<Result<_>>()?;
        Ok((marked, count(REST)?))
    }
}

/// The offset of the mark for a classic program: `SKF_AD_OFF + SKF_AD_MARK`.
const SKF_AD_MARK: u32 = (-0x1000_i32 + 20).cast_unsigned();

impl Drop for HtbWitness<'_> {
    fn drop(&mut self) {
        // The interface may be gone, and the tree with it.
        let _ = run_ok(self.namespace.command("tc").args(["qdisc", "del", "dev", &self.interface, "root"]));
    }
}
