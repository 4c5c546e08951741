//! The edge cases of the grammar, one row each.

use crate::parse::*;

fn entry(line: u32, class: u8, prefix: &str) -> Entry {
    Entry { line, class, prefix: prefix.parse().unwrap() }
}

#[test]
fn accepted_without_a_diagnostic() {
    let one = || vec![entry(1, 1, "10.0.0.0/8")];
    let cases: &[(&str, &[u8], Vec<Entry>)] = &[
        ("plain", b"1 10.0.0.0/8\n", one()),
        ("no line feed at the end", b"1 10.0.0.0/8", one()),
        ("tab", b"1\t10.0.0.0/8\n", one()),
        ("many blanks", b"1 \t  10.0.0.0/8  \t\n", one()),
        ("leading blanks", b" \t 1 10.0.0.0/8\n", one()),
        ("vertical tab and form feed", b"\x0c1\x0b10.0.0.0/8\n", one()),
        ("CRLF", b"1 10.0.0.0/8\r\n\r\n2 ::/0\r\n", vec![entry(1, 1, "10.0.0.0/8"), entry(3, 2, "::/0")]),
        ("CR CR LF", b"1 10.0.0.0/8\r\r\n", one()),
        ("CR at the end of the file", b"1 10.0.0.0/8\r", one()),
        ("blank lines", b"\n \n\t\n1 10.0.0.0/8\n\n", vec![entry(4, 1, "10.0.0.0/8")]),
        ("whole-line comment", b"# 2 ::/0\n  # more\n1 10.0.0.0/8\n", vec![entry(3, 1, "10.0.0.0/8")]),
        ("trailing comment", b"1 10.0.0.0/8 # the office\n", one()),
        ("trailing comment without a blank", b"1 10.0.0.0/8#office\n", one()),
        ("comment without a line feed", b"1 10.0.0.0/8\n#", one()),
        ("trailing text", b"1 10.0.0.0/8 the office, 2nd floor\n", one()),
        ("leading zeros of a class", b"01 10.0.0.0/8\n", one()),
        ("many leading zeros", b"00000000000000000000000000001 10.0.0.0/08\n", one()),
        ("byte order mark", b"\xef\xbb\xbf1 10.0.0.0/8\n", one()),
        (
            "byte order mark before a comment",
            b"\xef\xbb\xbf# x\n1 10.0.0.0/8\n",
            vec![entry(2, 1, "10.0.0.0/8")],
        ),
        ("Latin-1 in a comment", b"1 10.0.0.0/8 # B\xfcro\n", one()),
        ("Latin-1 in trailing text", b"1 10.0.0.0/8 B\xfcro\n", one()),
        ("nothing", b"", vec![]),
        ("only a byte order mark", b"\xef\xbb\xbf", vec![]),
        ("class 0", b"0 0.0.0.0/0", vec![entry(1, 0, "0.0.0.0/0")]),
        ("class 254", b"254 ::/0", vec![entry(1, 254, "::/0")]),
        (
            "one address",
            b"1 192.0.2.1/32\n1 2001:DB8::1/128",
            vec![entry(1, 1, "192.0.2.1/32"), entry(2, 1, "2001:db8::1/128")],
        ),
        ("as Virtuozzo writes it", b"1 ::0/0", vec![entry(1, 1, "::/0")]),
    ];
    for (name, text, entries) in cases {
        let file = parse(text);
        assert_eq!(file.diagnostics, [], "{name}");
        assert_eq!(&file.entries, entries, "{name}");
    }
}

#[test]
fn wrong_lines_are_refused() {
    let cases: &[(&[u8], &str)] = &[
        (b"1", "no network follows class 1; write `1 ADDRESS/PREFIX`"),
        (b"1 # 10.0.0.0/8", "no network follows class 1"),
        (b"10.0.0.0/8", "no class precedes the network; write `CLASS 10.0.0.0/8`"),
        (b"10.0.0.0/8 1", "no class precedes the network; write `CLASS 10.0.0.0/8`"),
        (b"::1", "no class precedes the network; write `CLASS ::1`"),
        (b"x 10.0.0.0/8", "class x is not a number; write a number from 0 to 254"),
        (b"-1 10.0.0.0/8", "class \"-1\" is not a number"),
        (b"+1 10.0.0.0/8", "class \"+1\" is not a number"),
        (b"1.0 10.0.0.0/8", "class 1.0 is not a number"),
        (b"0x1 10.0.0.0/8", "class 0x1 is not a number"),
        (b"\x00\x00", "class \"\\0\\0\" is not a number"),
        (b"\xff\xfe1 10.0.0.0/8", "is not a number"),
        ("1\u{a0}10.0.0.0/8".as_bytes(), "the line has the blank U+00A0"),
        (b"255 10.0.0.0/8", "class 255 is out of range; write a number from 0 to 254"),
        (b"256 10.0.0.0/8", "class 256 is out of range"),
        (b"99999999999999999999 10.0.0.0/8", "class 99999999999999999999 is out of range"),
        (b"1 10.0.0.1", "10.0.0.1 has no prefix length; write 10.0.0.1/32 for this one address"),
        (b"1 10.0.0.0/", "10.0.0.0 has no prefix length"),
        (b"1 10.0.0.0 /8", "has a blank before the length; write 10.0.0.0/8"),
        (b"1 2001:db8::1", "2001:db8::1 has no prefix length; write 2001:db8::1/128"),
        (b"1 10.0.0.0 255.0.0.0", "10.0.0.0 has a mask instead of a prefix length; write 10.0.0.0/8"),
        (b"1 10.0.0.0/255.0.0.0", "255.0.0.0 is a mask, not a prefix length; write 10.0.0.0/8"),
        (b"1 0.0.0.0/0.0.0.0", "0.0.0.0 is a mask, not a prefix length; write 0.0.0.0/0"),
        (b"1 10.0.0.0/255.0.255.0", "255.0.255.0 is neither a prefix length nor a contiguous mask"),
        (b"1 10.0.0.0/0.255.255.255", "has a wildcard mask instead of a prefix length; write 10.0.0.0/8"),
        (
            b"1 2001:db8::/255.0.0.0",
            "prefix length 255.0.0.0 is not a number; write 2001:db8::/0 to 2001:db8::/128",
        ),
        (b"1 10.0.0.0/33", "prefix length 33 is too long for IPv4; write 10.0.0.0/32 or shorter"),
        (b"1 10.0.0.0/256", "prefix length 256 is too long for IPv4"),
        (b"1 10.0.0.0/99999999999", "prefix length 99999999999 is too long for IPv4"),
        (b"1 2001:db8::/129", "prefix length 129 is too long for IPv6; write 2001:db8::/128 or shorter"),
        (b"1 10.0.0.0/-8", "prefix length \"-8\" is not a number; write 10.0.0.0/0 to 10.0.0.0/32"),
        (b"1 10.0.0.0/8, 11.0.0.0/8", "10.0.0.0/8 and 11.0.0.0/8 are on one line"),
        (b"1 10.0.0.0/8/8", "prefix length 8/8 is not a number"),
        (b"1 10/8", "10/8 is abbreviated; write 10.0.0.0/8"),
        (b"1 010.0.0.0/8", "010.0.0.0 is not an address; write an IPv4 address of four decimal numbers"),
        (b"1 300.0.0.0/8", "300.0.0.0 is not an address"),
        (b"1 2001:db8/32", "2001:db8 is not an address"),
        (b"1 fe80::%eth0/64", "\"fe80::%eth0/64\" has a zone id"),
        (b"1 /8", "\"\" is not an address"),
        (b"1 10.0.0.\xfc/8", "is not an address"),
        (b"1 example.org/8", "example.org is not an address"),
        (b"1 10.0.0.0/8\r2 11.0.0.0/8\r", "a carriage return is inside the line"),
        (b"# old\r1 10.0.0.0/8", "a carriage return is inside the line"),
    ];
    for (text, fragment) in cases {
        // On the third line of a file that is otherwise right.
        let whole = [b"# classes\n1 ::/0\n", *text, b"\n2 10.0.0.0/9\n"].concat();
        let file = parse(&whole);
        let text = text.escape_ascii();
        let [diagnostic] = &file.diagnostics[..] else { panic!("{text}: {:?}", file.diagnostics) };
        assert_eq!((diagnostic.line, diagnostic.severity), (3, Severity::Refused), "{text}");
        assert!(diagnostic.message.contains(fragment), "{text}: {}", diagnostic.message);
        assert_eq!(file.entries, [entry(2, 1, "::/0"), entry(4, 2, "10.0.0.0/9")], "{text}");
        assert!(!file.is_acceptable(), "{text}");
        assert_eq!(file.refused().count(), 1, "{text}");
    }
}

#[test]
fn a_long_field_is_truncated_in_its_message() {
    let file = parse(&[b'x'; 100_000]);
    assert!(file.diagnostics[0].message.len() < 200);
}

#[test]
fn doubtful_lines_cause_warnings() {
    type Warnings = &'static [(u32, &'static str)];
    let cases: &[(&[u8], Warnings)] = &[
        (b"1 10.1.2.3/8", &[(1, "10.1.2.3/8 has host bits set; it is taken as 10.0.0.0/8")]),
        (b"1 2001:db8::1/32", &[(1, "2001:db8::1/32 has host bits set; it is taken as 2001:db8::/32")]),
        (
            b"1 10.0.0.0/8\n\n2 10.0.0.0/8",
            &[(1, "lines 1 and 3 give 10.0.0.0/8 class 1 and class 2; the last one, line 3, counts")],
        ),
        (b"1 ::/0\n1 ::/0", &[(1, "lines 1 and 2 both give ::/0 class 1; one is enough")]),
        (
            b"1 ::/0\n2 ::/0\n3 10.0.0.0/8\n1 ::/0",
            &[
                (1, "lines 1 and 4 both give ::/0 class 1"),
                (2, "lines 2 and 4 give ::/0 class 2 and class 1"),
            ],
        ),
        (
            b"1 10.0.0.0/8\n2 10.0.0.1/8",
            &[(1, "lines 1 and 2 give 10.0.0.0/8 class 1 and class 2"), (2, "taken as 10.0.0.0/8")],
        ),
    ];
    for (text, expected) in cases {
        let file = parse(text);
        let text = text.escape_ascii();
        assert!(file.is_acceptable(), "{text}");
        assert_eq!(file.warnings().count(), expected.len(), "{text}: {:?}", file.diagnostics);
        for (diagnostic, (line, fragment)) in file.warnings().zip(*expected) {
            assert_eq!(diagnostic.line, *line, "{text}");
            assert!(diagnostic.message.contains(fragment), "{text}: {}", diagnostic.message);
        }
    }
}

#[test]
fn the_manuals_example_is_parsed() {
    let text = b"\
        # host networks\n\
        0 192.168.0.0/16\n\
        0 fe80::/64\n\
        # all traffic\n\
        1 0.0.0.0/0\n\
        1 ::/0\n\
        # class 2, \"foreign\"\n\
        2 10.0.0.0/8\n\
        2 2001:db88::/64\n\
        # inside \"foreign\" a hole that is \"local\"\n\
        1 10.10.16.0/24\n\
        1 2001:db88:3333::/64\n";
    let file = parse(text);
    assert_eq!(file.diagnostics, []);
    assert_eq!(
        file.entries,
        [
            entry(2, 0, "192.168.0.0/16"),
            entry(3, 0, "fe80::/64"),
            entry(5, 1, "0.0.0.0/0"),
            entry(6, 1, "::/0"),
            entry(8, 2, "10.0.0.0/8"),
            entry(9, 2, "2001:db88::/64"),
            entry(11, 1, "10.10.16.0/24"),
            entry(12, 1, "2001:db88:3333::/64"),
        ]
    );
    let table = crate::compile(&file.entries, crate::ClassOrder::Virtuozzo);
    for (addr, class) in [
        ("192.168.7.7", 0),
        ("10.10.16.1", 1),
        ("10.10.17.1", 2),
        ("8.8.8.8", 1),
        ("fe80::1", 0),
        ("2001:db88::1", 2),
        ("2001:db88:3333::1", 1),
        ("2001:db8::1", 1),
    ] {
        assert_eq!(table.class_of(addr.parse().unwrap()), class, "{addr}");
    }
}

#[test]
fn the_shipped_file_puts_all_traffic_into_class_1() {
    let file = ClassFile::shipped();
    assert!(file.is_acceptable());
    assert_eq!(file.entries, [entry(1, 1, "0.0.0.0/0"), entry(2, 1, "::/0")]);
}

#[test]
fn a_file_that_is_not_text_gets_one_diagnostic() {
    let utf16 = |swap: bool, mark: bool| -> Vec<u8> {
        let text = "# classes\r\n1 10.0.0.0/8\r\n2 10.1.0.0/16\r\n";
        let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
        units.flat_map(|unit| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    };
    let binary: Vec<u8> = (0..4000_u32).flat_map(|n| [b'\n', (n % 251) as u8, 0x7f, 0]).collect();
    for (bytes, message) in [
        (utf16(false, true), "the file is UTF-16 text; convert it"),
        (utf16(true, true), "the file is UTF-16 text; convert it"),
        (utf16(false, false), "the file is UTF-16 text; convert it"),
        (utf16(true, false), "the file is UTF-16 text; convert it"),
        (binary, "the file looks binary; name a text file"),
    ] {
        let file = parse(&bytes);
        let [diagnostic] = &file.diagnostics[..] else { panic!("{:?}", file.diagnostics.len()) };
        assert_eq!((diagnostic.line, diagnostic.severity), (0, Severity::Refused));
        assert!(diagnostic.message.starts_with(message), "{diagnostic}");
        assert!(!file.is_acceptable());
    }
    // One wrong line does not make a text file binary.
    assert_eq!(parse(b"1 ::/0\n\0 10.0.0.0/8\n2 10.0.0.0/9\n").diagnostics[0].line, 2);
}

#[test]
fn a_large_file_of_something_else_does_not_fill_the_memory_with_messages() {
    let file = parse(&b"x\n".repeat(5_000_000));
    assert_eq!(file.diagnostics.len(), 1002);
    let [.., summary, last] = &file.diagnostics[..] else { panic!("{:?}", file.diagnostics.len()) };
    assert!(summary.message.starts_with("999,000 more lines"), "{summary}");
    assert_eq!(last.message, "1,000,000 lines are refused; the lines after this one are not checked");
    assert!(!file.is_acceptable());
}
