//! Lists with one network on each line: plain ones, and pmacct's `networks_file`.

use std::net::IpAddr;

use super::collector::Collector;
use crate::{
    notation::{self, is_digits},
    parse::network::quote,
};

/// The numbered lines with their comments removed, without the empty ones.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let whole_line = |line: &str| ["#", ";", "//", "!", "%"].iter().any(|mark| line.starts_with(mark));
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line))
        .map(|(number, line)| (number, line.split('#').next().unwrap_or_default().trim()))
        .filter(move |(_, line)| !line.is_empty() && !whole_line(line))
}

/// One network on each line, in any clear notation.
pub(super) fn plain(text: &str, collector: &mut Collector) {
    // `!` begins comments, and takes networks out of other lists.
    for (at, line) in text.lines().enumerate() {
        let exception = line.trim_start().strip_prefix('!').and_then(|rest| rest.split_whitespace().next());
        if let Some(network) =
            exception.filter(|rest| !line.contains("! ") && notation::read(&[rest]).is_ok())
        {
            let message = format!(
                "{} is an exception; remove the line, and give it another class in the class file",
                quote(network)
            );
            collector.refuse(at + 1, message);
        }
    }
    for (number, line) in lines(text) {
        let fields: Vec<&str> = line.trim_end_matches([',', ';']).split_whitespace().collect();
        if let Some(range) = collector.read(number, &fields) {
            collector.take(range);
        }
    }
}

/// `[NEXT_HOP,][AS,]NETWORK`, with `!` for comments. The network is last.
pub(super) fn pmacct(text: &str, collector: &mut Collector) {
    for (number, line) in lines(text) {
        let mut fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let network = fields.pop().unwrap_or_default();
        // An AS may be a path, such as 65001_65002, or have its peer in front: 65001/65002.
        let is_as = |field: &str| field.split(['_', '/', ' ']).all(is_digits);
        match fields.iter().find(|field| !is_as(field) && field.parse::<IpAddr>().is_err()) {
            Some(field) => {
                let message = format!("{} is neither an AS nor a next hop; correct the line", quote(field));
                collector.refuse(number, message);
            }
            None => {
                if let Some(range) = collector.read(number, &[network]) {
                    collector.take(range);
                }
            }
        }
    }
}
