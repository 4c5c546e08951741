//! A registry's list of delegations: `ripencc|UA|ipv4|203.0.113.0|256|20100101|allocated`. The number is a
//! count of addresses for IPv4 and a prefix length for IPv6.

use std::net::IpAddr;

use super::{collector::Collector, lists::lines};
use crate::{parse::foreign::grouped, parse::network::quote, ranges::Range};

/// Reads the networks of a country.
pub(super) fn read(text: &str, country: &str, collector: &mut Collector) {
    let (mut announced, mut records) = (None, 0_usize);
    for (number, line) in lines(text) {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        match fields[..] {
            [_, _, _, _, _, "summary"] => {}
            // version|registry|serial|records|first date|last date|offset from UTC
            [version, _, _, count, _, _, _] if version.starts_with(|c: char| c.is_ascii_digit()) => {
                announced = count.parse::<usize>().ok();
            }
            [_, code, kind, start, value, _, status, ..] => {
                records += 1;
                if code.eq_ignore_ascii_case(country) && kind != "asn" {
                    match status {
                        "allocated" | "assigned" => record(number, (kind, start, value), collector),
                        _ => collector.leave_out("neither allocated nor assigned"),
                    }
                }
            }
            _ => {
                let message =
                    format!("{} is not a delegation; give another --from, or remove the line", quote(line));
                collector.refuse(number, message);
            }
        }
    }
    // The first line counts the records, so that a download that was cut short is found.
    if let Some(announced) = announced.filter(|&announced| records < announced) {
        let message = format!(
            "the list announces {} records and has {}; get it again, it was cut short",
            grouped(announced),
            grouped(records)
        );
        collector.refuse(0, message);
    }
}

fn record(number: usize, (kind, start, value): (&str, &str, &str), collector: &mut Collector) {
    let range = match (kind, start.parse::<IpAddr>()) {
        ("ipv4", Ok(addr @ IpAddr::V4(_))) => {
            value.parse().ok().and_then(|count| Range::of_count(addr, count))
        }
        ("ipv6", Ok(addr @ IpAddr::V6(_))) => {
            let network = value.parse().ok().and_then(|length| ipnet::IpNet::new(addr, length).ok());
            network.filter(|network| *network == network.trunc()).map(Range::of_network)
        }
        _ => None,
    };
    match range {
        Some(range) => collector.take(range),
        None => {
            let message = format!(
                "{} is not a delegation of addresses; remove the line",
                quote(&[kind, start, value].join("|"))
            );
            collector.refuse(number, message);
        }
    }
}
