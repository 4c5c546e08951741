//! The output of `ipset save`.

use super::{collector::Collector, lists::lines};

/// Reads the members of the sets, or of the named one.
pub(super) fn read(text: &str, wanted: Option<&str>, collector: &mut Collector) {
    for (number, line) in lines(text) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            ["create" | "-N", _, kind, ..] => {
                // A set of networks and ports matches only some of the networks' packets.
                let of_networks = ["hash:net", "hash:ip", "bitmap:ip", "nethash", "iphash", "ipmap"];
                if !of_networks.contains(&kind) {
                    collector.refuse(
                        number,
                        format!("a set of type {kind} is not a list of networks; leave it out"),
                    );
                }
            }
            ["add" | "-A", set, member, ref rest @ ..] => {
                if rest.contains(&"nomatch") {
                    let message = format!(
                        "{member} is an exception (nomatch); remove the line, and give {member} another class \
                         in the class file"
                    );
                    collector.refuse(number, message);
                } else if let Some(range) = collector.read(number, &[member]) {
                    collector.take_of_set(set, wanted, range);
                }
            }
            ["COMMIT" | "flush" | "destroy" | "-F" | "-X" | "swap", ..] => collector.leave_out("commands"),
            _ => {
                collector
                    .refuse(number, "the line is not of `ipset save`; give another --from, or remove it");
            }
        }
    }
}
