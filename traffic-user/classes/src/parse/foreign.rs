//! Files of other formats that are taken for class files, recognised by their lines.

use super::network::quote;

/// A format that is not the class file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    Ipset,
    Nft,
    Mikrotik,
    Delegated,
    Pmacct,
    Bgp,
    GeoIp,
    Html,
    Xml,
    Json,
    Rpsl,
}

impl Format {
    const ALL: [Self; 11] = [
        Self::Ipset,
        Self::Nft,
        Self::Mikrotik,
        Self::Delegated,
        Self::Bgp,
        Self::GeoIp,
        Self::Pmacct,
        Self::Html,
        Self::Xml,
        Self::Json,
        Self::Rpsl,
    ];

    /// The format of a line that is not the class file's, if it is known by this line alone.
    pub(super) fn of_line(line: &str) -> Option<Self> {
        let line = line.trim();
        Self::ALL.into_iter().find(|format| format.matches(line))
    }

    fn matches(self, line: &str) -> bool {
        let begins = |words: &[&str]| {
            words
                .iter()
                .any(|word| line.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)))
        };
        let fields = |separator| line.split(separator).count();
        match self {
            Self::Ipset => begins(&["add ", "create ", "-A ", "-N "]) && !line.contains("address="),
            Self::Nft => {
                begins(&["table ", "set ", "chain ", "elements ", "elements=", "flush ", "type ip", "flags "])
                    || begins(&["add element "])
            }
            Self::Mikrotik => begins(&["/ip ", "/ipv6 "]) || begins(&["add "]) && line.contains("address="),
            Self::Delegated => {
                fields('|') >= 6
                    && (line.contains("|ipv4|") || line.contains("|ipv6|") || line.contains("|asn|"))
                    || begins(&["2|", "2.3|", "2.1|"]) && fields('|') >= 6
            }
            Self::Bgp => {
                begins(&["TABLE_DUMP", "BGP4MP", "BIRD "]) || begins(&["Table "]) && line.ends_with(':')
            }
            Self::GeoIp => begins(&["network,", "geoname_id,", "start_ip,", "ip_start,"]),
            Self::Pmacct => {
                let (number, rest) = line.split_once(',').unwrap_or((line, ""));
                number.parse::<u32>().is_ok_and(|number| number > 254)
                    && rest.split(',').next_back().is_some_and(|last| last.parse::<ipnet::IpNet>().is_ok())
            }
            Self::Html => begins(&["<!doctype html", "<html", "<head", "<body"]),
            Self::Xml => begins(&["<?xml", "<data>", "<traffclass>"]),
            Self::Json => line == "{" || line == "[" || begins(&["{\"", "[{", "[\""]),
            Self::Rpsl => begins(&["inetnum:", "inet6num:", "route:", "route6:"]),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ipset => "`ipset save`",
            Self::Nft => "an nft set",
            Self::Mikrotik => "a MikroTik export",
            Self::Delegated => "a registry's delegated list",
            Self::Pmacct => "pmacct's networks_file",
            Self::Bgp => "a BGP table",
            Self::GeoIp => "a GeoIP table",
            Self::Html => "an HTML page",
            Self::Xml => "XML",
            Self::Json => "JSON",
            Self::Rpsl => "a registry's database",
        }
    }

    /// What to do with such a file.
    fn advice(self) -> String {
        let convert = |from: &str| {
            format!("convert it with `trafctl classes convert --class CLASS --from {from} FILE`")
        };
        match self {
            Self::Ipset => convert("ipset"),
            Self::Nft => convert("nft"),
            Self::Mikrotik => convert("mikrotik"),
            Self::Delegated => convert("ripe:COUNTRY"),
            Self::Pmacct => convert("pmacct"),
            Self::Bgp => convert("bgp"),
            Self::GeoIp => convert("geoip:COUNTRY"),
            Self::Html => "a server sent it instead of the file; get the file again".to_owned(),
            Self::Xml => {
                "if it holds the traffic classes of PBA-S, convert it with `trafctl classes convert --from \
                 pbas FILE`"
                    .to_owned()
            }
            Self::Json | Self::Rpsl => {
                "write its networks as `CLASS ADDRESS/PREFIX`, one on each line, or as a list to convert"
                    .to_owned()
            }
        }
    }

    /// The message of one line in an otherwise good file.
    pub(super) fn of_one_line(self, line: &str) -> String {
        let start: String = line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        format!("{} looks like a line of {}; {}", quote(&start), self.name(), self.advice())
    }

    /// The message of a whole file with this many lines of the format.
    pub(super) fn of_file(self, lines: usize) -> String {
        let (count, verb) = (grouped(lines), if lines == 1 { "line begins" } else { "lines begin" });
        match self {
            Self::Ipset => {
                format!(
                    "{count} {verb} with `add` or `create`: this looks like `ipset save`; {}",
                    self.advice()
                )
            }
            _ => format!("this looks like {}; {}", self.name(), self.advice()),
        }
    }
}

/// The message of a file with networks, but no classes.
pub(super) fn plain_list(lines: usize) -> String {
    format!(
        "{} lines are networks without a class: this looks like a plain list; convert it with `trafctl \
         classes convert --class CLASS --from plain FILE`",
        grouped(lines)
    )
}

/// Why the bytes are not a text file that could be parsed; `None` if they look like text.
pub(crate) fn not_text(bytes: &[u8]) -> Option<String> {
    // Without a byte order mark, every other byte of Latin text is zero.
    let (units, _) = bytes[..bytes.len().min(32)].as_chunks::<2>();
    let half_zero =
        |zero: usize| units.len() > 1 && units.iter().all(|unit| unit[zero] == 0 && unit[1 - zero] != 0);
    let has_mark = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let packed: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gunzip"),
        (b"BZh", "bunzip2"),
        (b"\xfd7zXZ\0", "unxz"),
        (b"\x28\xb5\x2f\xfd", "unzstd"),
        (b"PK\x03\x04", "unzip"),
    ];
    let is_utf32 = bytes.starts_with(&[0xff, 0xfe, 0, 0]) || bytes.starts_with(&[0, 0, 0xfe, 0xff]);
    if is_utf32 || has_mark || half_zero(0) || half_zero(1) {
        let encoding = if is_utf32 { "UTF-32" } else { "UTF-16" };
        return Some(format!(
            "the file is {encoding} text; convert it, for example with `iconv -f {encoding} -t UTF-8`"
        ));
    }
    if let Some((_, program)) = packed.into_iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(format!("the file is compressed; unpack it with `{program}`"));
    }
    bytes
        .contains(&0)
        .then(|| "the file looks binary; name a text file with lines such as `1 192.0.2.0/24`".to_owned())
}

/// A number with commas between its thousands: `300,001`.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
