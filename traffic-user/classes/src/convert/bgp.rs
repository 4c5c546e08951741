//! Tables of BGP routes as text: `bgpdump -m` (or `-M`) of a table, and BIRD's `show route`.
//!
//! The default route is left out: it would put all traffic into the class.

use ipnet::IpNet;

use super::{collector::Collector, lists::lines};
use crate::{parse::network::quote, ranges::Range};

/// Reads the prefixes that have a route.
pub(super) fn read(text: &str, collector: &mut Collector) {
    // `lines` removes the blanks in front, by which BIRD marks what continues a route.
    let continued: Vec<bool> = text.lines().map(|line| line.starts_with([' ', '\t'])).collect();
    for (number, line) in lines(text) {
        if continued[number - 1] {
            continue;
        }
        if let Some(dumped) = line.strip_prefix("TABLE_DUMP") {
            match dumped.split('|').nth(5) {
                Some(prefix) => route(number, prefix, collector),
                None => collector.refuse(number, "the line of bgpdump has no prefix; get the file again"),
            }
        } else if line.starts_with("BGP4MP") {
            let message = "these are updates, which come and go; dump a table (RIB), such as bview or rib";
            collector.refuse(number, message);
        } else if line.starts_with("BIRD ") || line.starts_with("Table ") && line.ends_with(':') {
            // BIRD's greeting, and the name of a table.
        } else {
            let mut fields = line.split_whitespace();
            let (prefix, kind) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            match kind {
                "unreachable" | "blackhole" | "prohibit" => collector.leave_out("routes that lead nowhere"),
                _ => route(number, prefix, collector),
            }
        }
    }
}

fn route(number: usize, prefix: &str, collector: &mut Collector) {
    match prefix.parse::<IpNet>() {
        Ok(network) if network.prefix_len() == 0 => collector.leave_out("default routes"),
        Ok(network) if !collector.is_whole(number, network) => {}
        Ok(network) => {
            if let Some(range) = collector.unmapped(number, Range::of_network(network)) {
                collector.take(range);
            }
        }
        Err(_) => {
            let message = format!(
                "{} does not begin with a prefix; give another --from, or remove the line",
                quote(prefix)
            );
            collector.refuse(number, message);
        }
    }
}
