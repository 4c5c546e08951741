//! Class files: whatever they contain, the compiled table decides by the wording of the rule.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use traffic_classes::{
    CheckContext, CheckReport, ClassFile, ClassOrder, Entry, MAX_CLASS, compile, differences, explain,
    explain_prefix, index::CompiledTable, parse, stored_rows,
};

const ORDERS: [ClassOrder; 3] = [ClassOrder::Virtuozzo, ClassOrder::LongestPrefix, ClassOrder::LastLine];
/// A report is built for files whose length is a multiple of this.
const REPORTED_EACH: usize = 97;
/// Number of entries around whose borders addresses are checked.
const ASKED_ABOUT: usize = 16;

/// Checks one file.
pub fn check(data: &[u8]) {
    let file = parse(data);
    let lines = data.split(|&byte| byte == b'\n').count();
    well_formed(&file, lines);
    let again = parse(written(&file).as_bytes());
    assert!(again.is_acceptable(), "accepted lines are accepted again: {:?}", again.diagnostics);
    let essence =
        |file: &ClassFile| file.entries.iter().map(|entry| (entry.class, entry.prefix)).collect::<Vec<_>>();
    assert_eq!(essence(&again), essence(&file));
    // To compile a table for the kernel takes longer than everything else together.
    if data.len().is_multiple_of(REPORTED_EACH) {
        check_compiled(data);
        let report =
            CheckReport::new(&file, CheckContext { order: ClassOrder::LastLine, ..CheckContext::default() });
        assert_eq!(report.is_acceptable(), file.is_acceptable());
        assert!(report.to_string().ends_with('\n'));
    }
    for difference in differences(&file) {
        assert!(difference.entry.class != 0 && difference.covered_by.class == 0, "{difference}");
        assert!(difference.covered_by.prefix.contains(&difference.entry.prefix), "{difference}");
    }

    for order in ORDERS {
        let table = compile(&file.entries, order);
        assert_eq!(table.hash(), compile(&again.entries, order).hash());
        assert!(table.v4.is_sorted_by(|a, b| a.prefix < b.prefix), "each prefix once, sorted");
        assert!(table.v6.is_sorted_by(|a, b| a.prefix < b.prefix), "each prefix once, sorted");
        for addr in questions(&file, data) {
            let expected = scan(&file.entries, order, addr);
            assert_eq!(table.class_of(addr), expected, "{addr} under {order}");
            let explanation = explain(&file, order, addr);
            assert_eq!(explanation.class, expected, "{addr} explained under {order}");
            let (explained, decided) = (explanation.decided_by, table.lookup(addr));
            assert_eq!(
                explained.map(|entry| entry.line),
                decided.map(|entry| entry.line),
                "{addr} under {order}"
            );
            assert!(explanation.to_string().starts_with(&format!("{addr} is class {expected} ")));
            let whole = explain_prefix(&file, order, IpNet::from(addr));
            assert_eq!((whole.classes[0].class, whole.parts_total), (expected, 1), "{addr} under {order}");
        }
    }
}

/// The kernel's form of the table decides alike, and its prefixes can be read back.
pub fn check_compiled(data: &[u8]) {
    let file = parse(data);
    let table = compile(&file.entries, ClassOrder::LongestPrefix);
    let v4: Vec<_> = table.v4.iter().map(|row| (row.prefix, row.class)).collect();
    let v6: Vec<_> = table.v6.iter().map(|row| (row.prefix, row.class)).collect();
    let Ok(compiled) = CompiledTable::new(&v4, &v6) else { panic!("a file of this size fits") };
    for addr in questions(&file, data) {
        let found = match addr {
            IpAddr::V4(addr) => compiled.column_v4(addr),
            IpAddr::V6(addr) => compiled.column_v6(addr),
        };
        assert_eq!(found, Some(u32::from(table.class_of(addr))), "{addr}");
    }
    assert_eq!(stored_rows::decode(&stored_rows::encode(&v4, &v6)), Ok((v4, v6)));
    // Damaged rows are refused without a panic.
    let _ = stored_rows::decode(data);
}

fn well_formed(file: &ClassFile, lines: usize) {
    let within = |line: u32| line >= 1 && line as usize <= lines;
    assert!(file.entries.is_sorted_by(|a, b| a.line < b.line), "at most one entry per line");
    for Entry { line, class, prefix } in &file.entries {
        assert!(within(*line) && *class <= MAX_CLASS && *prefix == prefix.trunc(), "{file:?}");
    }
    for diagnostic in &file.diagnostics {
        let text = diagnostic.to_string();
        // Line 0 is the file as a whole, when it is not text.
        let is_whole_file = diagnostic.line == 0 && file.refused().count() == 1;
        assert!((within(diagnostic.line) || is_whole_file) && !text.contains('\n'), "{text:?}");
    }
    for refused in file.refused() {
        assert!(
            file.entries.iter().all(|entry| entry.line != refused.line),
            "accepted and refused: {refused}"
        );
    }
}

fn written(file: &ClassFile) -> String {
    let mut text = String::new();
    for entry in &file.entries {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{entry}");
    }
    text
}

/// Addresses on both sides of the borders of some networks, and one of each family derived from the file's
/// own bytes.
fn questions(file: &ClassFile, data: &[u8]) -> Vec<IpAddr> {
    let step = file.entries.len().div_ceil(ASKED_ABOUT).max(1);
    let mut asked = Vec::new();
    for entry in file.entries.iter().step_by(step) {
        let (is_v4, network, mask) = bits(&entry.prefix);
        let last = network | !mask;
        let one = if is_v4 { 1 << 96 } else { 1 };
        for high in [network, last, network.wrapping_sub(one), last.wrapping_add(one)] {
            asked.push(address(is_v4, high));
        }
    }
    let made = data.iter().fold(0_u128, |made, &byte| made.rotate_left(8) ^ u128::from(byte));
    asked.extend([address(true, made), address(false, made)]);
    asked
}

/// Scans all lines by the wording of the rule.
fn scan(entries: &[Entry], order: ClassOrder, addr: IpAddr) -> u8 {
    let (is_v4, asked) = match addr {
        IpAddr::V4(v4) => (true, u128::from(v4.to_bits()) << 96),
        IpAddr::V6(v6) => (false, v6.to_bits()),
    };
    let mut best: Option<(u8, u8)> = None;
    for (at, entry) in entries.iter().enumerate() {
        let (entry_is_v4, network, mask) = bits(&entry.prefix);
        let stands_again = entries[at + 1..].iter().any(|later| later.prefix == entry.prefix);
        if entry_is_v4 != is_v4 || (asked ^ network) & mask != 0 || stands_again {
            continue;
        }
        let length = entry.prefix.prefix_len();
        let wins = best.is_none_or(|(best_length, best_class)| match order {
            ClassOrder::LastLine => true,
            ClassOrder::LongestPrefix => length > best_length,
            ClassOrder::Virtuozzo => best_class != 0 && (entry.class == 0 || length > best_length),
        });
        if wins {
            best = Some((length, entry.class));
        }
    }
    best.map_or(0, |(_, class)| class)
}

/// Family, network and mask, with the address in the upper bits.
fn bits(prefix: &IpNet) -> (bool, u128, u128) {
    let (is_v4, network) = match prefix.network() {
        IpAddr::V4(v4) => (true, u128::from(v4.to_bits()) << 96),
        IpAddr::V6(v6) => (false, v6.to_bits()),
    };
    (is_v4, network, u128::MAX.checked_shl(128 - u32::from(prefix.prefix_len())).unwrap_or(0))
}

fn address(is_v4: bool, high: u128) -> IpAddr {
    if is_v4 {
        let [a, b, c, d, ..] = high.to_be_bytes();
        Ipv4Addr::new(a, b, c, d).into()
    } else {
        Ipv6Addr::from_bits(high).into()
    }
}
