//! `vztactl`: loads and lists classes, and resets counters.
//!
//! Exit statuses and texts are Virtuozzo's. Errors go to stderr, and `class_load` does not print the table.

use std::{ffi::OsString, fmt::Write as _, path::PathBuf};

use ipnet::{IpNet, Ipv6Net};
use traffic_classes::ClassOrder;
use traffic_model::ContainerId;

/// Exit statuses of `vztactl`.
pub mod status {
    /// The class file is unusable.
    pub const FILE: u8 = 2;
    /// The kernel refused, or the container does not exist.
    pub const REFUSED: u8 = 4;
    /// Wrong option or value.
    pub const OPTION: u8 = 6;
    /// No counters are loaded.
    pub const NO_COUNTERS: u8 = 7;
    /// Unknown command.
    pub const COMMAND: u8 = 10;
}

/// Events by which Virtuozzo notifies its own services that settings of its shaper or its accounting changed.
/// They have no effect here.
const EVENTS: [&str; 2] = ["shaperrestart", "accrestart"];

/// Virtuozzo's usage text, with the `event` command that it omits.
pub const USAGE: &str = "Usage: vztactl <command> [<options>]\n\
    \tclass_load [-s] <net_classes_file>\n\
    \tclass_unload\n\
    \tclass_list\n\
    \treset_ve_stat <ctid>\n\
    \treset_all_stat\n\
    \tevent <name>\n";

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Load the classes of a file under this order.
    ClassLoad(PathBuf, ClassOrder),
    /// Load an empty table, under which everything is class 0.
    ClassUnload,
    /// List the classes in force.
    ClassList,
    /// Reset one container's counters.
    ResetOne(ContainerId),
    /// Reset all counters.
    ResetAll,
    /// Do nothing; an event that Virtuozzo does not know either comes with its name, for a warning.
    Event(Option<String>),
}

/// Why a command line is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misuse {
    /// What is wrong; `None` if the usage is printed instead.
    pub message: Option<String>,
    /// The exit status.
    pub status: u8,
}

/// Parses a command with its options.
///
/// # Errors
/// [`Misuse`]; without a message, the caller prints the usage.
pub fn parse(arguments: &[OsString]) -> Result<Asked, Misuse> {
    let usage = |status| Misuse { message: None, status };
    let option = |message: String| Misuse { message: Some(message), status: status::OPTION };
    let (command, rest) = arguments.split_first().ok_or(usage(status::COMMAND))?;
    match (command.to_str().unwrap_or(""), rest) {
        // Without -s, the last matching line of the file decides.
        ("class_load", [file]) => Ok(Asked::ClassLoad(file.into(), ClassOrder::LastLine)),
        ("class_load", [sorted, file]) if sorted == "-s" => {
            Ok(Asked::ClassLoad(file.into(), ClassOrder::Virtuozzo))
        }
        ("class_load", [unknown, _]) => Err(option(format!("Unknown option {}", unknown.to_string_lossy()))),
        ("class_load" | "reset_ve_stat" | "event", _) if rest.len() != 1 => Err(usage(status::OPTION)),
        ("class_unload", _) => Ok(Asked::ClassUnload),
        ("class_list", _) => Ok(Asked::ClassList),
        ("reset_all_stat", _) => Ok(Asked::ResetAll),
        ("reset_ve_stat", [id, ..]) => {
            let id = id.to_string_lossy();
            ContainerId::new(id.trim())
                .map(Asked::ResetOne)
                .map_err(|_| option(format!("Invalid veid: {id}")))
        }
        ("event", [name, ..]) => {
            let name = name.to_string_lossy();
            Ok(Asked::Event((!EVENTS.contains(&&*name)).then(|| name.into_owned())))
        }
        ("get_ve_stat", _) => Err(option("vznetstat utility should be used to get CT statistic".to_owned())),
        _ => Err(usage(status::COMMAND)),
    }
}

/// The prefixes in force as `class_list` prints them: IPv4 before IPv6, each from the shortest prefix to the
/// longest, and class 0 last, where the lookup of Virtuozzo's kernel starts. IPv6 masks are in network order
/// and right for every length; Virtuozzo's are right only for multiples of 16.
pub fn class_list(prefixes: &[(IpNet, u8)]) -> String {
    let mut rows = prefixes.to_vec();
    rows.sort_by_key(|(prefix, class)| {
        (matches!(prefix, IpNet::V6(_)), *class == 0, prefix.prefix_len(), *prefix)
    });
    let mut text = "class addr             mask\n".to_owned();
    for (prefix, class) in rows {
        let mask = match prefix {
            IpNet::V4(prefix) => prefix.netmask().to_string(),
            IpNet::V6(prefix) => hexadecimal_mask(prefix),
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{class:<5} {:<40} {mask}", prefix.network());
    }
    text
}

fn hexadecimal_mask(prefix: Ipv6Net) -> String {
    format!("{:032x}", prefix.netmask().to_bits())
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, str::FromStr as _};

    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    fn parsed(line: &str) -> Result<Asked, Misuse> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_command_is_parsed() {
        let id = |text: &str| ContainerId::new(text).unwrap();
        assert_eq!(parsed("class_load f"), Ok(Asked::ClassLoad("f".into(), ClassOrder::LastLine)));
        assert_eq!(parsed("class_load -s f"), Ok(Asked::ClassLoad("f".into(), ClassOrder::Virtuozzo)));
        assert_eq!(
            parsed("class_load -s"),
            Ok(Asked::ClassLoad("-s".into(), ClassOrder::LastLine)),
            "as in Virtuozzo's"
        );
        assert_eq!(parsed("class_unload"), Ok(Asked::ClassUnload));
        assert_eq!(parsed("class_list"), Ok(Asked::ClassList));
        assert_eq!(parsed("reset_ve_stat 101"), Ok(Asked::ResetOne(id("101"))));
        assert_eq!(
            parsed("reset_ve_stat {6D1E1C39-63E6-4A2B-8EF4-1B7A1D2F3C4D}"),
            Ok(Asked::ResetOne(id("6d1e1c39-63e6-4a2b-8ef4-1b7a1d2f3c4d")))
        );
        assert_eq!(parsed("reset_all_stat"), Ok(Asked::ResetAll));
        assert_eq!(parsed("event accrestart"), Ok(Asked::Event(None)));
        assert_eq!(parsed("event shaperrestart"), Ok(Asked::Event(None)));
        assert_eq!(parsed("event other"), Ok(Asked::Event(Some("other".to_owned()))));
    }

    #[test]
    fn misuse_has_the_statuses_of_virtuozzo() {
        let cases = [
            ("", None, 10),
            ("help", None, 10),
            ("-h", None, 10),
            ("class_load", None, 6),
            ("class_load -s f g", None, 6),
            ("class_load -x f", Some("Unknown option -x"), 6),
            ("reset_ve_stat", None, 6),
            ("reset_ve_stat 1 2", None, 6),
            ("reset_ve_stat a/b", Some("Invalid veid: a/b"), 6),
            ("get_ve_stat 101", Some("vznetstat utility should be used to get CT statistic"), 6),
            ("event", None, 6),
        ];
        for (line, message, status) in cases {
            let message = message.map(str::to_owned);
            assert_eq!(parsed(line), Err(Misuse { message, status }), "{line:?}");
        }
    }

    #[test]
    fn golden_usage() {
        assert_snapshot!("usage_vztactl", USAGE);
    }

    #[test]
    fn golden_class_list() {
        let prefix = |text: &str| text.parse::<IpNet>().unwrap();
        let prefixes = [
            (prefix("0.0.0.0/0"), 1),
            (prefix("192.168.0.0/16"), 0),
            (prefix("10.10.16.0/20"), 1),
            (prefix("10.0.0.0/8"), 2),
            (prefix("10.0.0.7/32"), 254),
            (prefix("fe80::/64"), 0),
            (prefix("2001:db8:3333::/61"), 1),
            (prefix("::/0"), 1),
            (prefix("2001:db8::1/128"), 2),
        ];
        assert_snapshot!(class_list(&prefixes));
        assert_eq!(class_list(&[]), "class addr             mask\n");
    }

    /// The class of an address by a scan of the file's text from its end, without any of the code under test.
    fn last_line(text: &str, address: Ipv4Addr) -> u8 {
        for line in text.lines().rev() {
            let Some((class, network)) = line.split_once(' ') else { continue };
            let Some((network, length)) = network.split_once('/') else { continue };
            let (network, length) = (Ipv4Addr::from_str(network).unwrap(), length.parse::<u32>().unwrap());
            let bits = |address: Ipv4Addr| (0..length).map(move |bit| address.to_bits() >> (31 - bit) & 1);
            if bits(network).eq(bits(address)) {
                return class.parse().unwrap();
            }
        }
        0
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn without_s_the_last_matching_line_decides(
            lines in prop::collection::vec((0_u8..4, any::<u8>(), any::<u8>(), 0_u32..=24), 0..30),
            peers in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..20),
        ) {
            // Few different networks and peers, so that they match often.
            let address = |a: u8, b: u8, c: u8| Ipv4Addr::new(10, a % 4, b & 0xc1, c % 3);
            let text: String = lines
                .iter()
                .map(|(class, a, b, length)| format!("{class} {}/{length}\n", address(*a, *b, 0)))
                .collect();
            let Ok(Asked::ClassLoad(_, order)) = parsed("class_load file") else { panic!("it is a valid command") };
            let file = traffic_classes::parse(text.as_bytes());
            prop_assert!(file.is_acceptable());
            let table = traffic_classes::compile(&file.entries, order);
            for (a, b, c) in peers {
                let peer = address(a, b, c);
                prop_assert_eq!(table.class_of(peer.into()), last_line(&text, peer), "{} in\n{}", peer, text);
            }
        }
    }
}
