//! What the readers found: addresses by class, what was left out, and what was refused.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Converted, Refused};
use crate::{
    SHOWN_PROBLEMS,
    notation::{self, Form, Unreadable},
    parse::{foreign::grouped, network::quote},
    ranges::{Range, aggregate},
};

/// Takes what the readers find.
#[derive(Debug)]
pub(super) struct Collector {
    class: u8,
    file: String,
    /// The last line of the file, if it has no line feed.
    unfinished: Option<usize>,
    ranges: BTreeMap<u8, Vec<Range>>,
    names: BTreeMap<u8, String>,
    /// Sets or lists that addresses came from.
    sets: BTreeSet<String>,
    left_out: BTreeMap<&'static str, usize>,
    with_host_bits: usize,
    refused: Vec<Refused>,
    refused_more: usize,
}

impl Collector {
    pub(super) fn new(class: Option<u8>) -> Self {
        Self {
            class: class.unwrap_or_default(),
            file: String::new(),
            unfinished: None,
            ranges: BTreeMap::new(),
            names: BTreeMap::new(),
            sets: BTreeSet::new(),
            left_out: BTreeMap::new(),
            with_host_bits: 0,
            refused: Vec::new(),
            refused_more: 0,
        }
    }

    /// What follows is about this file.
    pub(super) fn begin(&mut self, file: &str) {
        file.clone_into(&mut self.file);
    }

    /// What is read next is this text of the file.
    pub(super) fn begin_text(&mut self, text: &str) {
        let is_unfinished = !text.is_empty() && !text.ends_with('\n');
        self.unfinished = is_unfinished.then(|| text.lines().count());
    }

    /// Refuses a network that may have lost a digit of its length at the end of the file: `10.100.0.0/1`, cut
    /// from `/16`, is half of all addresses.
    pub(super) fn is_whole(&mut self, line: usize, written: IpNet) -> bool {
        let shortest_of_two_digits = if written.addr().is_ipv4() { 4 } else { 13 };
        let is_short = (1..shortest_of_two_digits).contains(&written.prefix_len());
        let is_cut = self.unfinished == Some(line) && (is_short || written != written.trunc());
        if is_cut {
            self.refuse_cut(line, &written.to_string());
        }
        !is_cut
    }

    fn refuse_cut(&mut self, line: usize, written: &str) {
        let message = format!(
            "the last line has no line feed and ends with {}, as if the file was cut short; get it again, or end \
             the line",
            quote(written)
        );
        self.refuse(line, message);
    }

    /// Takes addresses for the class that was asked for.
    pub(super) fn take(&mut self, range: Range) {
        self.take_for(self.class, range);
    }

    /// Takes addresses for a class of the list's own.
    pub(super) fn take_for(&mut self, class: u8, range: Range) {
        self.ranges.entry(class).or_default().push(range);
    }

    /// Notes the name of a class.
    pub(super) fn name(&mut self, class: u8, name: &str) {
        self.names.insert(class, name.to_owned());
    }

    /// Takes addresses of a set, if it is the wanted one.
    pub(super) fn take_of_set(&mut self, set: &str, wanted: Option<&str>, range: Range) {
        if wanted.is_none_or(|wanted| wanted == set) {
            self.sets.insert(set.to_owned());
            self.take(range);
        } else {
            self.leave_out("of other lists");
        }
    }

    /// Reads addresses as people write them.
    pub(super) fn read(&mut self, line: usize, fields: &[&str]) -> Option<Range> {
        match notation::read(fields) {
            Ok(reading) => {
                let rest = &fields[reading.fields..];
                let is_comment =
                    |field: &&str| ["#", ";", "//", "!"].iter().any(|mark| field.starts_with(mark));
                if !rest.is_empty() && !rest.first().is_some_and(is_comment) {
                    self.refuse(line, format!("{} follows the network; remove it", quote(&rest.join(" "))));
                    return None;
                }
                if reading.form == Form::TwoAddresses {
                    let written = quote(&fields.join(" "));
                    self.refuse(line, format!("{written} are two addresses; write a range as FIRST-LAST"));
                    return None;
                }
                // `255.0.0.0 0`: the wildcard mask 0.0.0.1 lost its end. `10.0.0.1-10`: so did 10.0.0.5.
                let may_be_cut = match reading.form {
                    Form::BlankBeforeLength => true,
                    Form::Range => {
                        let written = fields[..reading.fields].concat();
                        written.rsplit(['-', '\u{2013}']).next().is_some_and(notation::is_digits)
                    }
                    _ => false,
                };
                if may_be_cut && self.unfinished == Some(line) {
                    self.refuse_cut(line, &fields.join(" "));
                    return None;
                }
                if reading.form == Form::Prefix
                    && let Ok(written) = fields[0].parse::<IpNet>()
                {
                    if !self.is_whole(line, written) {
                        return None;
                    }
                    self.with_host_bits += usize::from(written != written.trunc());
                }
                self.unmapped(line, reading.range)
            }
            Err(error) => {
                let why = match error {
                    Unreadable::Backwards => "ends before it begins",
                    Unreadable::AmbiguousMask => "has a mask that can mean one address or all",
                    Unreadable::MaskWithGaps => "has a mask with gaps",
                    Unreadable::Unknown => "is not a network",
                };
                let written = quote(&fields.join(" "));
                self.refuse(line, format!("{written} {why}; correct or remove the line"));
                None
            }
        }
    }

    /// IPv4 addresses in IPv6 notation as IPv4. A range that is partly IPv4 is refused.
    pub(super) fn unmapped(&mut self, line: usize, range: Range) -> Option<Range> {
        let unmapped = range.unmapped();
        if unmapped.is_none() {
            self.refuse(line, "the range is partly IPv4 in IPv6 notation; write it as two ranges");
        }
        unmapped
    }

    /// Counts what is understood and not wanted.
    pub(super) fn leave_out(&mut self, what: &'static str) {
        *self.left_out.entry(what).or_default() += 1;
    }

    /// Refuses a line; 0 for the file as a whole.
    pub(super) fn refuse(&mut self, line: usize, message: impl Into<String>) {
        if self.refused.len() < SHOWN_PROBLEMS {
            self.refused.push(Refused { file: self.file.clone(), line, message: message.into() });
        } else {
            self.refused_more += 1;
        }
    }

    /// Refuses the request.
    pub(super) fn refuse_all(&mut self, message: &str) {
        "convert".clone_into(&mut self.file);
        self.refuse(0, message);
    }

    /// The result, if nothing was refused.
    pub(super) fn finish(mut self, source: String) -> Result<Converted, Vec<Refused>> {
        if self.sets.len() > 1 {
            let sets: Vec<&str> = self.sets.iter().map(String::as_str).collect();
            let message = format!(
                "there are {} lists: {}; choose one, as --from FORMAT:LIST",
                sets.len(),
                sets.join(", ")
            );
            self.refuse(0, message);
        }
        let read: usize = self.ranges.values().map(Vec::len).sum();
        if read == 0 && self.refused.is_empty() {
            self.refuse(
                0,
                "no network of the wanted kind was found; check the file, the format and its argument",
            );
        }
        if !self.refused.is_empty() {
            if self.refused_more > 0 {
                let message = format!("... and {} more lines are refused", grouped(self.refused_more));
                self.refused.push(Refused { file: self.file, line: 0, message });
            }
            return Err(self.refused);
        }
        let classes: BTreeMap<u8, _> =
            self.ranges.into_iter().map(|(class, ranges)| (class, aggregate(ranges))).collect();
        let written: usize = classes.values().map(Vec::len).sum();
        let mut counts = vec![format!(
            "{} networks and ranges read, {} networks written",
            grouped(read),
            grouped(written)
        )];
        if self.with_host_bits > 0 {
            counts.push(format!("{} had host bits set, which were cleared", grouped(self.with_host_bits)));
        }
        counts.extend(
            self.left_out.iter().map(|(what, number)| format!("{} left out: {what}", grouped(*number))),
        );
        Ok(Converted { classes, names: self.names, source, counts })
    }
}
