//! Converts the lists that people start from into lines of a class file.
//!
//! A list is read whole or not at all: what is not understood is refused with its line. Ranges and counts
//! become networks by exact arithmetic, and networks that touch are joined. One small module reads each
//! format; `collector` takes what they find.
//!
//! The result begins and ends with comments that announce its size, so that a copy that is cut short is
//! refused when it is loaded.

use std::{collections::BTreeMap, fmt, str::FromStr};

use ipnet::IpNet;

use crate::parse::{
    directives::{END_COMMENT, begin_comment},
    foreign,
};
use collector::Collector;

/// A file to convert.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its name in messages and in the comment about the source.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The format of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A network on each line, such as the lists of ipdeny or of an exchange.
    Plain,
    /// `ipset save`; of one set, if it is named.
    Ipset(Option<String>),
    /// `nft list set` or a file of nft commands; of one set, if it is named.
    Nft(Option<String>),
    /// `/ip firewall address-list export`; of one list, if it is named.
    Mikrotik(Option<String>),
    /// A registry's list of delegations; of one country.
    Delegated(String),
    /// pmacct's `networks_file`.
    Pmacct,
    /// `bgpdump -m` of a table, or BIRD's `show route`.
    Bgp,
    /// MaxMind's tables, DB-IP's, IP2Location's and those in their form; of one country.
    GeoIp(String),
    /// The networks in one column of a table, by its name or its number from 1.
    Csv(String),
    /// The traffic classes of PBA-S in XML. They bring their class numbers with them.
    Pbas,
}

/// The formats, as `--from` takes them.
pub const FORMATS: &str = "plain, ipset[:SET], nft[:SET], mikrotik[:LIST], ripe:COUNTRY, pmacct, bgp, \
                           geoip:COUNTRY, csv:COLUMN or pbas";

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (format, argument) = match text.split_once(':') {
            Some((format, argument)) => (format, Some(argument).filter(|argument| !argument.is_empty())),
            None => (text, None),
        };
        let owned = argument.map(str::to_owned);
        let country = || match argument {
            Some(code) if code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                Ok(code.to_ascii_uppercase())
            }
            _ => Err(format!("{format} needs a country of two letters; write {format}:UA")),
        };
        match (format, argument) {
            ("plain", None) => Ok(Self::Plain),
            ("ipset", _) => Ok(Self::Ipset(owned)),
            ("nft", _) => Ok(Self::Nft(owned)),
            ("mikrotik", _) => Ok(Self::Mikrotik(owned)),
            ("ripe", _) => country().map(Self::Delegated),
            ("pmacct", None) => Ok(Self::Pmacct),
            ("bgp", None) => Ok(Self::Bgp),
            ("geoip", _) => country().map(Self::GeoIp),
            ("csv", Some(column)) => Ok(Self::Csv(column.to_owned())),
            ("csv", None) => Err("csv needs a column; write csv:NAME or csv:NUMBER".to_owned()),
            ("pbas", None) => Ok(Self::Pbas),
            _ => Err(format!("{text} is not a format; write {FORMATS}")),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |f: &mut fmt::Formatter<'_>, format: &str, one: &Option<String>| match one {
            Some(one) => write!(f, "{format}:{one}"),
            None => f.write_str(format),
        };
        match self {
            Self::Plain => f.write_str("plain"),
            Self::Ipset(set) => of(f, "ipset", set),
            Self::Nft(set) => of(f, "nft", set),
            Self::Mikrotik(list) => of(f, "mikrotik", list),
            Self::Delegated(country) => write!(f, "ripe:{country}"),
            Self::Pmacct => f.write_str("pmacct"),
            Self::Bgp => f.write_str("bgp"),
            Self::GeoIp(country) => write!(f, "geoip:{country}"),
            Self::Csv(column) => write!(f, "csv:{column}"),
            Self::Pbas => f.write_str("pbas"),
        }
    }
}

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong; what to do.
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// Converted lists. Its `Display` is the lines of a class file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The networks of each class: as few as cover the addresses exactly, sorted, IPv4 first.
    pub classes: BTreeMap<u8, Vec<IpNet>>,
    /// Names of classes, where the format has them.
    pub names: BTreeMap<u8, String>,
    /// The format and the files, for the comment.
    pub source: String,
    /// What was read, and what was left out and why: lines for the operator.
    pub counts: Vec<String>,
}

impl fmt::Display for Converted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# converted by `trafctl classes convert`, from {}", self.source)?;
        for (class, name) in &self.names {
            writeln!(f, "# name {class} = \"{name}\"")?;
        }
        writeln!(f, "{}", begin_comment(self.classes.values().map(Vec::len).sum()))?;
        for (class, networks) in &self.classes {
            for network in networks {
                writeln!(f, "{class} {network}")?;
            }
        }
        writeln!(f, "{END_COMMENT}")
    }
}

/// Converts files of one format to lines of a class. `class` is not needed for a format with its own classes.
///
/// # Errors
/// The lines that are not understood, at most 20, and what else is wrong. Nothing is converted then.
pub fn convert(source: &Source, class: Option<u8>, inputs: &[Input<'_>]) -> Result<Converted, Vec<Refused>> {
    let mut collector = Collector::new(class);
    if class.is_none() && *source != Source::Pbas {
        collector.refuse_all("the lists have no classes; give --class CLASS");
    }
    if class.is_some() && *source == Source::Pbas {
        collector.refuse_all("the file has its own classes; leave out --class");
    }
    let texts: Vec<(&str, String)> = inputs
        .iter()
        .map(|input| {
            collector.begin(input.name);
            (input.name, text(input.bytes, &mut collector))
        })
        .collect();
    // Where one file is needed to read another.
    let countries = match source {
        Source::GeoIp(country) => tables::countries(&texts, country, &mut collector),
        _ => tables::Countries::default(),
    };
    for (name, text) in &texts {
        collector.begin(name);
        collector.begin_text(text);
        match source {
            Source::Plain => lists::plain(text, &mut collector),
            Source::Pmacct => lists::pmacct(text, &mut collector),
            Source::Ipset(set) => ipset::read(text, set.as_deref(), &mut collector),
            Source::Nft(set) => nft::read(text, set.as_deref(), &mut collector),
            Source::Mikrotik(list) => mikrotik::read(text, list.as_deref(), &mut collector),
            Source::Delegated(country) => delegated::read(text, country, &mut collector),
            Source::Bgp => bgp::read(text, &mut collector),
            Source::GeoIp(_) => tables::geoip(text, &countries, &mut collector),
            Source::Csv(column) => tables::csv(text, column, &mut collector),
            Source::Pbas => pbas::read(text, &mut collector),
        }
    }
    let names: Vec<&str> = inputs.iter().map(|input| input.name).collect();
    // A name with a line feed would become a line of the class file.
    let names = names.join(", ").replace(char::is_control, "?");
    collector.finish(format!("{source}: {names}"))
}

/// The text of a file. Comments may be in any encoding.
fn text(bytes: &[u8], collector: &mut Collector) -> String {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if let Some(message) = foreign::not_text(bytes) {
        collector.refuse(0, message);
        return String::new();
    }
    let text = String::from_utf8_lossy(bytes);
    let start: String = text.trim_start().chars().take(14).collect::<String>().to_ascii_lowercase();
    if start == "<!doctype html" || start.starts_with("<html") {
        collector
            .refuse(0, "this is an HTML page that a server sent instead of the list; get the list again");
        return String::new();
    }
    text.into_owned()
}

mod bgp;
mod collector;
mod delegated;
#[cfg(test)]
mod every_format;
mod ipset;
mod lists;
mod mikrotik;
mod nft;
mod pbas;
#[cfg(test)]
mod python;
mod tables;
#[cfg(test)]
mod tests;
