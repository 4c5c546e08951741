//! Random lists, written in each format: what is read against Python's `ipaddress`, and what is read of a list
//! that is cut short.

use ipnet::IpNet;

use super::{
    python::{address, number, python},
    *,
};
use crate::ranges::{Range, aggregate};

/// A network of a list, perhaps with host bits.
#[derive(Clone, Copy, Debug)]
struct Member {
    written: IpNet,
    /// Chooses among the notations of a format.
    style: u128,
}

impl Member {
    fn random(random: &mut u64) -> Self {
        let is_v4 = !number(random, 32).is_multiple_of(3);
        let bits = if is_v4 { 32 } else { 128 };
        // Addresses at the very end would be mapped IPv4.
        let addr = address(number(random, bits) | u128::from(!is_v4) << 127, is_v4);
        let length = u8::try_from(number(random, 32) % (u128::from(bits) + 1)).unwrap();
        Self { written: IpNet::new(addr, length).unwrap(), style: number(random, 32) }
    }

    fn range(self) -> String {
        format!("{}-{}", self.written.network(), self.written.broadcast())
    }

    fn clean(self) -> IpNet {
        self.written.trunc()
    }
}

/// A format, and how it writes a list.
type Writer = (&'static str, fn(&[Member]) -> String);

fn lines(members: &[Member], line: impl Fn(&Member) -> String) -> String {
    members.iter().map(|member| line(member) + "\n").collect()
}

const FORMATS: [Writer; 11] = [
    ("plain", |members| {
        lines(members, |member| match (member.written, member.style % 5) {
            (IpNet::V4(net), 0) if net.prefix_len() > 0 && net.prefix_len() < 32 => {
                format!("{} {}", net.network(), net.netmask())
            }
            (IpNet::V4(net), 1) if net.prefix_len() > 0 && net.prefix_len() < 32 => {
                format!("{} {}", net.network(), net.hostmask())
            }
            (_, 2) => member.range(),
            (net, 3) => format!("{net}  # 10.0.0.0/8"),
            (net, _) => net.to_string(),
        })
    }),
    ("ipset:ua", |members| {
        "create ua hash:net family inet\ncreate eu hash:net family inet\nadd eu 10.0.0.0/7\n".to_owned()
            + &lines(members, |member| match member.style % 3 {
                0 => format!("add ua {}", member.range()),
                1 => format!("add ua {} timeout 300", member.written),
                _ => format!("add ua {}", member.written),
            })
    }),
    ("nft", |members| {
        let elements: Vec<String> = members
            .iter()
            .map(|member| if member.style % 2 == 0 { member.range() } else { member.clean().to_string() })
            .collect();
        format!("table inet t {{\n set ua {{\n elements = {{ {} }}\n }}\n}}\n", elements.join(",\n  "))
    }),
    ("mikrotik:UA", |members| {
        "/ip firewall address-list\nadd address=10.0.0.0/7 list=EU\n".to_owned()
            + &lines(members, |member| match member.style % 3 {
                0 => format!("add address={} comment=\"10.0.0.0/8\" list=UA", member.range()),
                1 => format!("add list=UA address={}", member.written),
                _ => format!("add address={} list=UA", member.written),
            })
    }),
    ("ripe:UA", |members| {
        "ripencc|DE|ipv4|10.0.0.0|512|20100101|allocated\n".to_owned()
            + &lines(members, |member| match member.clean() {
                IpNet::V4(net) => {
                    let count = 1_u64 << (32 - net.prefix_len());
                    format!("ripencc|UA|ipv4|{}|{count}|20100101|assigned", net.network())
                }
                IpNet::V6(net) => {
                    format!("ripencc|UA|ipv6|{}|{}|20100101|allocated", net.network(), net.prefix_len())
                }
            })
    }),
    ("pmacct", |members| {
        lines(members, |member| match member.style % 2 {
            0 => format!("192.0.2.1,65001_65002,{}", member.written),
            _ => format!("65001,{}", member.written),
        })
    }),
    ("bgp", |members| {
        lines(members, |member| match member.style % 2 {
            0 => format!("TABLE_DUMP2|1|B|192.0.2.1|65001|{}|65001|IGP|192.0.2.1|0|0||NAG||", member.clean()),
            _ => format!("{} via 192.0.2.1 on eth0 [ix 2026-01-31] * (100)", member.clean()),
        })
    }),
    ("geoip:UA", |members| {
        "10.0.0.0,10.0.1.255,DE\n".to_owned()
            + &lines(members, |member| {
                format!("{},{},UA", member.written.network(), member.written.broadcast())
            })
    }),
    // MaxMind's blocks; the test gives the countries' file as well.
    ("geoip:ua", |members| {
        "network,geoname_id,registered_country_geoname_id\n10.0.0.0/7,2,2\n".to_owned()
            + &lines(members, |member| format!("{},1,2", member.clean()))
    }),
    ("csv:net", |members| {
        "name;net;note\n".to_owned()
            + &lines(members, |member| match member.style % 2 {
                0 => format!("\"a;b\";{};x", member.range()),
                _ => format!("c;{};10.0.0.0/8", member.written),
            })
    }),
    ("pbas", |members| {
        let ranges = lines(members, |member| {
            let net = member.clean();
            format!("<range><ip>{}</ip><prefix>{}</prefix></range>", net.network(), net.prefix_len())
        });
        format!("<data><traffclass><id>3</id><name>UA</name>\n{ranges}</traffclass></data>\n")
    }),
];

const COUNTRIES: &str = "geoname_id,country_iso_code\n1,UA\n2,DE\n";

fn read((format, _): Writer, text: &str) -> Result<Vec<IpNet>, Vec<Refused>> {
    let source: Source = format.parse().unwrap();
    let mut inputs = vec![Input { name: "list", bytes: text.as_bytes() }];
    if format == "geoip:ua" {
        inputs.push(Input { name: "countries", bytes: COUNTRIES.as_bytes() });
    }
    let class = (source != Source::Pbas).then_some(2);
    Ok(convert(&source, class, &inputs)?.classes.remove(&2).unwrap_or_default())
}

/// Lists of up to 25 networks. The default route is not one of a table of routes.
fn members(random: &mut u64, (format, _): Writer) -> Vec<Member> {
    let count = 1 + number(random, 32) % 25;
    let members = (0..count).map(|_| Member::random(random));
    members.filter(|member| format != "bgp" || member.written.prefix_len() > 0).collect()
}

#[test]
fn every_format_becomes_what_python_makes_of_its_networks() {
    let mut random = 0xf0f0;
    let (mut questions, mut found) = (Vec::new(), Vec::new());
    for writer in FORMATS {
        for _ in 0..150 {
            let members = members(&mut random, writer);
            if members.is_empty() {
                continue;
            }
            let text = writer.1(&members);
            let networks = read(writer, &text).unwrap_or_else(|refused| panic!("{text}: {refused:?}"));
            let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
            let written: Vec<String> = members.iter().map(|member| member.written.to_string()).collect();
            questions.push(written.join(" "));
            found.push((writer.0, text, networks.join(" ")));
        }
    }
    let answers = python(&questions);
    assert_eq!(answers.len(), found.len());
    for ((format, text, networks), answer) in found.into_iter().zip(answers) {
        assert_eq!(networks, answer, "{format}: {text}");
    }
}

/// How many addresses networks have that do not overlap.
fn size(networks: &[IpNet]) -> u128 {
    let of = |net: &IpNet| match net {
        IpNet::V4(net) => 1_u128 << (net.max_prefix_len() - net.prefix_len()),
        IpNet::V6(net) => 1_u128.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len())).unwrap_or(0),
    };
    networks.iter().map(of).fold(0, u128::wrapping_add)
}

/// Whoever downloads half a list must not bill more addresses to its class than the whole list has. One
/// address may be another one: the end of it may be missing.
#[test]
fn a_list_that_is_cut_anywhere_is_refused_or_adds_at_most_one_address() {
    let mut random = 0xc07;
    let (mut refused, mut accepted) = (0, 0);
    for writer in FORMATS {
        for _ in 0..12 {
            let members = members(&mut random, writer);
            if members.is_empty() {
                continue;
            }
            let text = writer.1(&members);
            let whole = read(writer, &text).unwrap();
            for end in 0..text.len() {
                let Ok(cut) = read(writer, &text[..end]) else {
                    refused += 1;
                    continue;
                };
                accepted += 1;
                let ranges = whole.iter().chain(&cut).map(|net| Range::of_network(*net));
                let both: Vec<IpNet> = aggregate(ranges.collect());
                let added = size(&both).wrapping_sub(size(&whole));
                assert!(added <= 1, "{}: {added} addresses by {:?}", writer.0, &text[..end]);
            }
        }
    }
    assert!(refused > 1000 && accepted > 1000, "{refused} {accepted}");
}
