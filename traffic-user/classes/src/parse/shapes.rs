//! Shapes of lines and files that people have: each is named for what it is, with the right advice.

use crate::parse::*;

/// The only diagnostic of a line inside a file that is otherwise right.
fn refusal(text: &str) -> String {
    let whole = format!("# classes\n1 ::/0\n{text}\n2 10.0.0.0/9\n3 10.0.0.0/10\n");
    let file = parse(whole.as_bytes());
    let [diagnostic] = &file.diagnostics[..] else { panic!("{text}: {:?}", file.diagnostics) };
    assert_eq!((diagnostic.line, diagnostic.severity), (3, Severity::Refused), "{text}");
    assert_eq!(file.entries.len(), 3, "{text}");
    diagnostic.message.clone()
}

#[test]
fn each_shape_is_named_for_what_it_is() {
    for (text, expected) in [
        // A second network is never dropped.
        ("2 203.0.113.0/24 198.51.100.0/24", "198.51.100.0/24 follows 203.0.113.0/24 on the line"),
        ("2 203.0.113.0/24 and 198.51.100.0/24", "198.51.100.0/24 follows"),
        ("2 203.0.113.0/24 (was 198.51.100.0/24)", "198.51.100.0/24 follows"),
        ("2 203.0.113.0/24 2 198.51.100.0/24", "198.51.100.0/24 follows"),
        ("2 203.0.113.0/24 198.51.100.7", "198.51.100.7 follows"),
        ("2 203.0.113.0/24 - 198.51.100.7", "198.51.100.7 follows"),
        ("2 203.0.113.0/24 2001:db8::/32", "2001:db8::/32 follows"),
        ("2 203.0.113.0/24 -198.51.100.7", "198.51.100.7 follows"),
        ("2 203.0.113.0/24 198.51.100.0-198.51.100.9", "\"198.51.100.0-198.51.100.9\" follows"),
        ("2 203.0.113.0/24 and 198.51.100.0-9", "\"198.51.100.0-9\" follows"),
        ("2 203.0.113.0/24 and 198.51.100.0/255.255.255.0", "198.51.100.0/255.255.255.0 follows"),
        ("2 203.0.113.0/24 except 203.0.113.7", "203.0.113.7 follows"),
        ("2 203.0.113.0/24 without 203.0.113.7", "203.0.113.7 follows"),
        ("2 203.0.113.0/24 !203.0.113.7", "203.0.113.7 follows"),
        ("2 any", "any is not an address; write 0.0.0.0/0 for all of IPv4 and ::/0 for all of IPv6"),
        ("2 Default", "Default is not an address; write 0.0.0.0/0"),
        ("2 *", "\"*\" is not an address; write 0.0.0.0/0"),
        ("2 203.0.113.0/24,198.51.100.0/24", "names more than one network"),
        ("2 203.0.113.0/24;198.51.100.0/24", "names more than one network"),
        ("2 203.0.113.0/24, 198.51.100.0/24", "203.0.113.0/24 and 198.51.100.0/24 are on one line"),
        // IPv4 in IPv6 notation matches nothing.
        ("2 ::ffff:203.0.113.0/120", "which no packet matches; write 203.0.113.0/24"),
        ("2 ::ffff:cb00:7100/120", "which no packet matches; write 203.0.113.0/24"),
        ("2 ::ffff:203.0.113.7/120", "which no packet matches; write 203.0.113.0/24"),
        ("2 ::ffff:0:0/96", "which no packet matches; write 0.0.0.0/0"),
        ("2 ::ffff:203.0.113.0/24", "write 203.0.113.0/PREFIX, with a prefix length from 0 to 32"),
        ("2 ::203.0.113.0/120", "which no packet matches; write 203.0.113.0/24"),
        // The whole line is read.
        ("2 203.0.113.0 0.0.0.255", "has a wildcard mask instead of a prefix length; write 203.0.113.0/24"),
        ("2 203.0.113.0 255.255.255.0", "has a mask instead of a prefix length; write 203.0.113.0/24"),
        ("2 203.0.113.7 255.255.255.0", "write 203.0.113.0/24"),
        ("2 203.0.113.0 mask 255.255.255.0", "write 203.0.113.0/24"),
        ("2 203.0.113.0 - 203.0.113.255", "\"203.0.113.0 - 203.0.113.255\" is a range; write 203.0.113.0/24"),
        ("2 203.0.113.0-203.0.113.255", "is a range; write 203.0.113.0/24"),
        ("2 203.0.113.0-255", "is a range; write 203.0.113.0/24"),
        ("2 203.0.113.0 203.0.113.255", "are two addresses; if they are a range, write 203.0.113.0/24"),
        ("2 192.0.2.1 - 192.0.2.3", "write 192.0.2.1/32 and 192.0.2.2/31, each on a line of its own"),
        ("2 192.0.2.1 - 192.0.2.100", "192.0.2.1/32, 192.0.2.2/31, 192.0.2.4/30 and 6 more networks"),
        ("2 192.0.2.9 - 192.0.2.1", "ends before it begins"),
        ("2 203.0.113.0 /24", "has a blank before the length; write 203.0.113.0/24"),
        ("2 203.0.113.0/ 24", "has a blank before the length; write 203.0.113.0/24"),
        ("2 203.0.113.0 / 24", "has a blank before the length; write 203.0.113.0/24"),
        ("2 203.0.113.0 24", "has a blank before the length; write 203.0.113.0/24"),
        ("2 2001:db8:: /32", "write 2001:db8::/32"),
        ("2 203.0.113.*", "is abbreviated; write 203.0.113.0/24"),
        ("2 203.0.113/24", "is abbreviated; write 203.0.113.0/24"),
        ("2 10.0.0.1 0.0.0.0", "can mean one address or all; write ADDRESS/32 or 0.0.0.0/0"),
        // Brackets, quotes, zone ids, separators.
        ("2 [2001:db8::]/32", "has brackets; write 2001:db8::/32"),
        ("2 [2001:db8::/32]", "has brackets; write 2001:db8::/32"),
        ("2 \"203.0.113.0/24\"", "has quotation marks; write 203.0.113.0/24"),
        ("2 '203.0.113.0/24'", "has quotation marks; write 203.0.113.0/24"),
        ("2 (203.0.113.0/24)", "has parentheses; write 203.0.113.0/24"),
        ("2 203.0.113.0/24,", "has a comma; write 203.0.113.0/24"),
        ("2 203.0.113.0/24; the office", "has a semicolon, which begins no comment; write 203.0.113.0/24"),
        ("2 fe80::%eth0/64", "has a zone id, and a class applies on all interfaces; write fe80::/64"),
        ("2 fe80::1%2/64", "has a zone id"),
        ("2 fe80::/64%eth0", "write fe80::/64"),
        ("2 fe80::1%eth0", "write fe80::1/PREFIX"),
        ("2,203.0.113.0/24", "separated by a blank; write `2 203.0.113.0/24`"),
        ("2, 203.0.113.0/24", "separated by a blank; write `2 203.0.113.0/24`"),
        ("2;203.0.113.0/24", "separated by a blank; write `2 203.0.113.0/24`"),
        ("2=203.0.113.0/24", "separated by a blank; write `2 203.0.113.0/24`"),
        ("\"2\" 203.0.113.0/24", "is not a number; write 2"),
        ("2: 203.0.113.0/24", "is not a number; write 2"),
        ("203.0.113.0/24 2", "if 2 is it, `2 203.0.113.0/24`"),
        // Comments.
        ("; classes", "`;` does not begin a comment; begin comments with `#`"),
        ("// classes", "`//` does not begin a comment"),
        ("! classes", "`!` does not begin a comment"),
        ("% classes", "`%` does not begin a comment"),
        ("-- classes", "`--` does not begin a comment"),
        ("/* classes */", "`/*` does not begin a comment"),
        // Characters.
        ("\u{feff}2 203.0.113.0/24", "a byte order mark is inside the file, as after `cat a b`"),
        ("\u{feff}# more", "a byte order mark is inside the file"),
        ("2\u{a0}203.0.113.0/24", "the line has the blank U+00A0; write an ordinary blank"),
        ("2 203.0.113.0\u{200b}/24", "the line has the invisible character U+200B; remove it"),
        ("2 203.0.113.0\u{2013}203.0.113.255", "the line has \u{2013} (U+2013)"),
        ("\u{662} 203.0.113.0/24", "the line has the digit \u{662} (U+0662); write ASCII digits"),
        ("2 \u{201c}203.0.113.0/24\u{201d}", "the line has quotation marks; remove them"),
        // Lines of other formats in a class file.
        ("add ua 203.0.113.0/24", "\"add ua 203.0.113.0/24\" looks like a line of `ipset save`"),
        ("ripencc|UA|ipv4|203.0.113.0|256|20100101|allocated", "a registry's delegated list"),
        ("65001,203.0.113.0/24", "looks like a line of pmacct's networks_file"),
    ] {
        let message = refusal(text);
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn text_behind_a_network_is_still_ignored() {
    for text in [
        "2 203.0.113.0/24 the office, 2nd floor",
        "2 203.0.113.0/24 via gateway 10.0.0.1",
        "2 203.0.113.0/24 // 3 racks",
        "2 203.0.113.0/24 # 198.51.100.0/24 was here",
        "2 203.0.113.0/24 AS65001 2026-01-31 12:30",
        "2 203.0.113.0/24 \u{432}\u{443}\u{437}\u{43e}\u{43b}",
    ] {
        let file = parse(format!("{text}\n").as_bytes());
        assert_eq!(file.diagnostics, [], "{text}");
        assert_eq!(file.entries.len(), 1, "{text}");
    }
}

#[test]
fn files_of_other_formats_are_named_once() {
    let mut ipset = "create ua hash:net family inet\n".to_owned();
    for line in 0..30_000_u32 {
        ipset.push_str(&format!("add ua 10.{}.{}.0/24\n", line / 256, line % 256));
    }
    for (name, text, expected) in [
        (
            "ipset",
            &ipset[..],
            "30,001 lines begin with `add` or `create`: this looks like `ipset save`; convert it with \
             `trafctl classes convert --class CLASS --from ipset FILE`",
        ),
        (
            "nft",
            "table inet f {\n set ua {\n type ipv4_addr\n elements = {\n 10.0.0.0/8,\n }\n }\n}\n",
            "an nft set",
        ),
        (
            "mikrotik",
            "/ip firewall address-list\nadd address=10.0.0.0/8 list=ua\n",
            "this looks like a MikroTik export; convert it with",
        ),
        (
            "delegated",
            "2|ripencc|1|2|3|4|+0100\nripencc|*|ipv4|*|1|summary\nripencc|UA|ipv4|10.0.0.0|256|2010|allocated\n",
            "a registry's delegated list; convert it with `trafctl classes convert --class CLASS --from \
             ripe:COUNTRY FILE`",
        ),
        ("plain", "10.0.0.0/8\n10.1.0.0/16\n10.2.0.0/16\n", "3 lines are networks without a class"),
        ("pmacct", "65001,10.0.0.0/8\n65002,10.1.0.0/16\n", "pmacct's networks_file"),
        (
            "bgpdump",
            "TABLE_DUMP2|1|B|10.0.0.1|1|10.0.0.0/8|1|IGP\nTABLE_DUMP2|1|B|1|1|10.0.0.0/8|1|IGP\n",
            "a BGP table",
        ),
        ("geoip", "network,geoname_id\n10.0.0.0/8,690791\n", "a GeoIP table"),
        (
            "html",
            "<!DOCTYPE html>\n<html><head>\n<title>404</title>\n",
            "an HTML page; a server sent it instead",
        ),
        ("json", "{\n\"prefixes\": []\n}\n", "this looks like JSON"),
        ("rpsl", "inetnum: 10.0.0.0 - 10.0.0.255\ncountry: UA\n", "a registry's database"),
        ("xml", "<?xml version=\"1.0\"?>\n<data>\n</data>\n", "this looks like XML"),
    ] {
        let file = parse(text.as_bytes());
        let [diagnostic] = &file.diagnostics[..] else { panic!("{name}: {:?}", file.diagnostics) };
        assert!(diagnostic.message.contains(expected), "{name}: {diagnostic}");
        assert_eq!((diagnostic.line, diagnostic.severity), (0, Severity::Refused), "{name}");
    }
    for (bytes, program) in
        [(&b"\x1f\x8b\x08\0\x01"[..], "gunzip"), (b"BZh91AY", "bunzip2"), (b"PK\x03\x04", "unzip")]
    {
        let message = &parse(bytes).diagnostics[0].message;
        assert!(message.contains(program), "{message}");
    }
}

#[test]
fn very_many_lines_that_are_alike_are_summed_up() {
    let text = "1 10.0.0.1\n".repeat(5000) + &"1 x\n".repeat(5) + &"1 10.0.0.0/8\n".repeat(6000);
    let file = parse(text.as_bytes());
    let refused: Vec<_> = file.refused().collect();
    assert_eq!(refused.len(), 1001);
    assert_eq!(
        (refused[1000].line, &refused[1000].message[..]),
        (1001, "4,005 more lines from here on are refused for a reason as above")
    );
}

#[test]
fn a_last_line_without_a_line_feed_is_noted() {
    let noted = |text: &str| parse(text.as_bytes()).unfinished;
    let cut = |line, with: Option<&str>| {
        Some(Unfinished { line, with_host_bits: with.map(|text| text.parse().unwrap()) })
    };
    assert_eq!(noted("1 ::/0\n2 10.100.0.0/16\n"), None);
    assert_eq!(noted("1 ::/0\n2 10.100.0.0/16"), cut(2, None));
    assert_eq!(noted("1 ::/0\n2 10.100.0.0/1"), cut(2, Some("10.100.0.0/1")));
    assert_eq!(noted("1 ::/0\n# a comm"), cut(2, None));
    assert_eq!(noted("1 ::/0\n  \t"), None);
    assert_eq!(noted(""), None);
}

#[test]
fn a_part_without_its_end_is_refused() {
    let whole = "# trafctl begin: 2 networks\n2 10.0.0.0/8\n2 11.0.0.0/8\n# trafctl end\n";
    assert_eq!(parse(whole.as_bytes()).diagnostics, []);
    // Two converted files, one behind the other.
    assert_eq!(parse(whole.repeat(2).replace("11.", "12.").as_bytes()).refused().count(), 0);
    let cut = parse(&whole.as_bytes()[..whole.find("2 11.").unwrap()]);
    assert_eq!(
        cut.diagnostics[0].to_string(),
        "line 1: refused: 2 networks are announced here, and the file ends after 1; get the file again, it was \
         cut short"
    );
    let both = format!("{}{whole}", &whole[..whole.find("2 11.").unwrap()]);
    assert!(!parse(both.as_bytes()).is_acceptable());
    for text in ["# trafctl begin: 2 netw", "# trafctl e", "# trafctl begin: x networks\n"] {
        assert!(!parse(text.as_bytes()).is_acceptable(), "{text}");
    }
    assert!(parse(b"# trafctl").is_acceptable() && parse(b"# trafctls file\n").is_acceptable());
    let edited = parse(whole.replace("2 11.0.0.0/8\n", "").as_bytes());
    assert_eq!(
        edited.diagnostics[0].to_string(),
        "line 3: warning: 1 networks precede, and line 1 announces 2; correct that number, or convert again"
    );
}

#[test]
fn comments_name_classes() {
    let file = parse(
        b"# name 2 = \"UA-IX\"\n#name 3=\"\xd0\xa3\xd0\xba\xd1\x80\xd0\xb0\xd1\x97\xd0\xbd\xd0\xb0\"\n\
          # name of the file: x\n1 ::/0\n",
    );
    assert_eq!(file.diagnostics, []);
    let names: Vec<_> = file.names.iter().map(|(class, name)| (*class, &name[..])).collect();
    assert_eq!(names, [(2, "UA-IX"), (3, "\u{423}\u{43a}\u{440}\u{430}\u{457}\u{43d}\u{430}")]);
    for (text, expected) in [
        ("# name 2: UA-IX", "the name is not used; write `# name 2 = \"UA-IX\"`"),
        ("# name 255 = \"x\"", "the name is not used"),
        ("# name 2 = \"\"", "the name of class 2 is not used: it is empty"),
        ("# name 2 = \"a\tb\"", "it has the character '\\t'"),
        (
            "# name 2 = \"x\"\n# name 2 = \"y\"",
            "class 2 is named \"x\" above and \"y\" here; this one counts",
        ),
        ("# name 2 = \"x\"\n# name 3 = \"x\"", "classes 2 and 3 have the same name"),
    ] {
        let file = parse(text.as_bytes());
        let [diagnostic] = &file.diagnostics[..] else { panic!("{text}: {:?}", file.diagnostics) };
        assert_eq!(diagnostic.severity, Severity::Warning, "{text}");
        assert!(diagnostic.message.contains(expected), "{text}: {diagnostic}");
    }
}

#[test]
fn listings_are_read_as_they_are_printed() {
    let listed = parse(
        b"class addr             mask\n\
          2     0.0.0.0                                  0.0.0.0\n\
          3     10.2.0.0                                 255.255.255.0\n\
          1     2001:db8::                               ffffffff000000000000000000000000\n\
          0     ::                                       00000000000000000000000000000000\n",
    );
    assert_eq!(listed.diagnostics, []);
    let lines: Vec<String> = listed.entries.iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["2 0.0.0.0/0", "3 10.2.0.0/24", "1 2001:db8::/32", "0 ::/0"]);
    let table = parse(b"# kept\nCLASS  PREFIX\n1      0.0.0.0/0\n2      10.0.0.0/8\n");
    assert_eq!((&table.diagnostics[..], table.entries.len()), (&[][..], 2));
    assert_eq!(parse(b"class addr             mask\n").diagnostics, []);
    for line in [
        "2 10.0.0.0 0.0.255.255",
        "2 10.0.0.0/8",
        "2 10.0.0.0 ffff",
        "2 :: ffff0000ffff00000000000000000000",
        "2 10.0.0.0 255.0.0.0 x",
    ] {
        let refused = parse(format!("class addr mask\n{line}\n").as_bytes());
        let [one] = &refused.diagnostics[..] else { panic!("{line}: {:?}", refused.diagnostics) };
        assert!(one.message.contains("is not class, address and mask"), "{line}: {one}");
    }
    // Only at the beginning, and only with these words.
    assert!(!parse(b"1 ::/0\nclass addr mask\n").is_acceptable());
    assert!(!parse(b"1 ::/0\nCLASS PREFIX\n").is_acceptable());
}
