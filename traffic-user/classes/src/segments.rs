//! A table as the addresses it decides: adjacent spans, each with one class. Sums and differences of tables
//! are computed from these.

use ipnet::IpNet;

use crate::parse::UNCLASSIFIED;

/// The class of a prefix, and the line that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) prefix: IpNet,
    pub(crate) class: u8,
    pub(crate) line: u32,
}

/// Addresses with one class, which one line decides, or none. Addresses are numbers of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u128,
    pub(crate) last: u128,
    pub(crate) class: u8,
    pub(crate) line: Option<u32>,
}

impl Span {
    /// The number of its addresses. The whole of IPv6 is one more than fits, which no figure shows.
    pub(crate) const fn addresses(self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }
}

/// The spans of all addresses of a family, in their order. Rows are sorted by (network, prefix length), and
/// the longest matching one decides.
pub(crate) fn spans(rows: impl IntoIterator<Item = Row>, is_v4: bool) -> Vec<Span> {
    let mut spans = Vec::new();
    each_span(rows, is_v4, |span| spans.push(span));
    spans
}

/// Calls a function with each span, without a list of them, which a table of a million rows makes long.
pub(crate) fn each_span(rows: impl IntoIterator<Item = Row>, is_v4: bool, found: impl FnMut(Span)) {
    let end = if is_v4 { u128::from(u32::MAX) } else { u128::MAX };
    let mut walk = Walk { found, next: Some(0) };
    let mut around: Vec<(u128, Row)> = Vec::new();
    for row in rows {
        let (first, last) = bounds(row.prefix);
        while let Some(&(until, inner)) = around.last().filter(|(until, _)| *until < first) {
            walk.until(until, Some(inner));
            around.pop();
        }
        if let Some(before) = first.checked_sub(1) {
            walk.until(before, around.last().map(|(_, row)| *row));
        }
        around.push((last, row));
    }
    while let Some((until, row)) = around.pop() {
        walk.until(until, Some(row));
    }
    walk.until(end, None);
}

struct Walk<F> {
    found: F,
    /// The first address without a span.
    next: Option<u128>,
}

impl<F: FnMut(Span)> Walk<F> {
    /// What this row decides ends at this address, unless it ended before.
    fn until(&mut self, last: u128, row: Option<Row>) {
        if let Some(first) = self.next.filter(|&first| first <= last) {
            let class = row.map_or(UNCLASSIFIED, |row| row.class);
            (self.found)(Span { first, last, class, line: row.map(|row| row.line) });
            self.next = last.checked_add(1);
        }
    }
}

/// The first and last address of a network, as numbers.
pub(crate) fn bounds(prefix: IpNet) -> (u128, u128) {
    match prefix {
        IpNet::V4(net) => (net.network().to_bits().into(), net.broadcast().to_bits().into()),
        IpNet::V6(net) => (net.network().to_bits(), net.broadcast().to_bits()),
    }
}

/// Each stretch of addresses with its span in two tables.
pub(crate) fn both<'a>(before: &'a [Span], after: &'a [Span]) -> impl Iterator<Item = (u128, Span, Span)> {
    let (mut at_before, mut at_after) = (0, 0);
    std::iter::from_fn(move || {
        let (old, new) = (*before.get(at_before)?, *after.get(at_after)?);
        let (first, last) = (old.first.max(new.first), old.last.min(new.last));
        at_before += usize::from(old.last == last);
        at_after += usize::from(new.last == last);
        Some(((last - first).saturating_add(1), old, new))
    })
}
