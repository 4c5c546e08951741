//! Samples of each format, made by hand: what is read, what is left out, and what is refused.

use super::*;

/// The networks of class 2.
fn networks(source: &str, texts: &[&str]) -> Vec<String> {
    let converted = converted(source, texts).unwrap_or_else(|refused| panic!("{source}: {refused:?}"));
    assert_eq!(converted.classes.keys().copied().collect::<Vec<_>>(), [2], "{source}");
    converted.classes[&2].iter().map(ToString::to_string).collect()
}

fn converted(source: &str, texts: &[&str]) -> Result<Converted, Vec<Refused>> {
    let source: Source = source.parse().unwrap();
    let inputs: Vec<Input<'_>> =
        texts.iter().map(|text| Input { name: "list", bytes: text.as_bytes() }).collect();
    convert(&source, (source != Source::Pbas).then_some(2), &inputs)
}

/// The only refusal.
fn refused(source: &str, text: &str) -> String {
    let refused = converted(source, &[text]).expect_err(source);
    let [one] = &refused[..] else { panic!("{source}: {refused:?}") };
    one.to_string()
}

#[test]
fn plain_lists() {
    let text = "\u{feff}# UA-IX\r\n203.0.113.0/25\r\n203.0.113.128/25  # the other half\n\n; more\n\
                198.51.100.0-198.51.100.127\n198.51.100.128 0.0.0.127\n192.0.2.1\n192.0.2.0\n\
                2001:db8::/33,\n2001:db8:8000::/33\n10.0.0.1/8\n::ffff:192.0.2.2/127\n";
    assert_eq!(
        networks("plain", &[text]),
        ["10.0.0.0/8", "192.0.2.0/30", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32",]
    );
    let counts = converted("plain", &[text]).unwrap().counts;
    assert_eq!(
        counts,
        ["10 networks and ranges read, 5 networks written", "1 had host bits set, which were cleared"]
    );
    for (text, expected) in [
        ("10.0.0.0/8\nexample.org\n", "list:2: example.org is not a network"),
        ("10.0.0.0/8 11.0.0.0/8\n", "list:1: 11.0.0.0/8 follows the network"),
        ("10.0.0.1 10.0.0.9\n", "are two addresses; write a range as FIRST-LAST"),
        ("10.0.0.9-10.0.0.1\n", "ends before it begins"),
        ("::ffff:0:0-2001:db8::\n", "partly IPv4 in IPv6 notation"),
        ("# nothing\n", "list: no network of the wanted kind was found"),
        ("10.0.0.0/8\n!10.1.0.0/16\n", "list:2: 10.1.0.0/16 is an exception; remove the line"),
        ("<!DOCTYPE html>\n<html>", "list: this is an HTML page"),
        ("\x1f\u{8b}", "list:1: \"\\u{1f}"),
    ] {
        let message = refused("plain", text);
        assert!(message.contains(expected), "{text:?}: {message}");
    }
    let gzip =
        convert(&Source::Plain, Some(2), &[Input { name: "x.gz", bytes: b"\x1f\x8b\x08\0" }]).unwrap_err();
    assert!(gzip[0].to_string().starts_with("x.gz: the file is compressed"), "{gzip:?}");
    let many = converted("plain", &[&"x\n".repeat(1000)]).unwrap_err();
    assert_eq!(many.len(), 21);
    assert_eq!(many[20].message, "... and 980 more lines are refused");
}

#[test]
fn a_list_that_ends_inside_a_length_is_refused() {
    for (source, line) in [
        ("plain", "10.100.0.0/1"),
        ("plain", "128.0.0.0/1"),
        ("plain", "224.0.0.0/3"),
        ("plain", "2001:db8::/3"),
        ("plain", "2000::/12"),
        ("plain", "10.0.0.5/24"),
        ("plain", "10.0.0.0 0"),
        ("plain", "10.0.0.0 25"),
        ("plain", "10.0.0.1-10"),
        ("ipset", "add ua 128.0.0.0/2"),
        ("mikrotik", "add list=UA address=128.0.0.0/2"),
        ("pmacct", "65001,128.0.0.0/2"),
        ("bgp", "128.0.0.0/2"),
        ("bgp", "TABLE_DUMP2|1700000000|B|192.0.2.1|65001|128.0.0.0/1"),
        ("csv:2", "a;128.0.0.0/2"),
    ] {
        let message = refused(source, line);
        assert!(
            message.contains("list:1: the last line has no line feed and ends with"),
            "{line}: {message}"
        );
        // With a line feed somebody finished the line.
        assert!(converted(source, &[&format!("{line}\n")]).is_ok(), "{line}");
    }
    for line in ["0.0.0.0/0", "10.0.0.0/8", "::/0", "2001:db8::/32", "2000::/13", "16.0.0.0/4", "10.0.0.5"] {
        assert!(converted("plain", &[line]).is_ok(), "{line}");
    }
    // Only the last line of each file.
    assert!(converted("plain", &["128.0.0.0/1\n10.0.0.0/8"]).is_ok());
    assert!(converted("plain", &["128.0.0.0/1", "10.0.0.0/8\n"]).is_err());
}

#[test]
fn the_result_is_a_class_file_that_cannot_be_cut_unnoticed() {
    let converted = converted("plain", &["10.0.0.0/8\n11.0.0.0/8\n2001:db8::/32\n"]).unwrap();
    let text = converted.to_string();
    assert_eq!(
        text,
        "# converted by `trafctl classes convert`, from plain: list\n\
         # trafctl begin: 2 networks\n\
         2 10.0.0.0/7\n\
         2 2001:db8::/32\n\
         # trafctl end\n"
    );
    let file = crate::parse(text.as_bytes());
    assert_eq!(file.diagnostics, []);
    for end in 0..text.len() - 1 {
        let cut = crate::parse(&text.as_bytes()[..end]);
        let has_networks = !cut.entries.is_empty();
        assert!(!has_networks || !cut.is_acceptable() || cut.entries == file.entries, "{end}: {cut:?}");
    }
}

#[test]
fn a_file_name_cannot_add_a_line() {
    let input = Input { name: "a\n0 0.0.0.0/0", bytes: b"10.0.0.0/8" };
    let text = convert(&Source::Plain, Some(2), &[input]).unwrap().to_string();
    assert_eq!(crate::parse(text.as_bytes()).entries.len(), 1, "{text}");
}

#[test]
fn ipset_save() {
    let text = "create ua hash:net family inet hashsize 1024 maxelem 65536\n\
                add ua 203.0.113.0/24 timeout 300\nadd ua 198.51.100.7 comment \"the office, 10.0.0.0/8\"\n\
                add ua 192.0.2.1-192.0.2.2\n";
    assert_eq!(
        networks("ipset", &[text]),
        ["192.0.2.1/32", "192.0.2.2/32", "198.51.100.7/32", "203.0.113.0/24"]
    );
    let two = format!("{text}create local hash:net family inet\nadd local 10.0.0.0/8\n");
    assert_eq!(networks("ipset:local", &[&two]), ["10.0.0.0/8"]);
    assert!(refused("ipset", &two).contains("there are 2 lists: local, ua; choose one"));
    assert!(refused("ipset:eu", &two).contains("no network of the wanted kind"));
    for (text, expected) in [
        ("add ua 10.0.0.0/8 nomatch\n", "10.0.0.0/8 is an exception (nomatch)"),
        ("create ua hash:ip,port family inet\n", "a set of type hash:ip,port is not a list of networks"),
        ("add ua 10.0.0.0/8,tcp:80\n", "list:1: \"10.0.0.0/8,tcp:80\" is not a network"),
        ("10.0.0.0/8\n", "the line is not of `ipset save`"),
    ] {
        assert!(refused("ipset", text).contains(expected), "{text}: {}", refused("ipset", text));
    }
}

#[test]
fn nft_sets() {
    let text = "table inet filter {\n\tset ua {\n\t\ttype ipv4_addr\n\t\tflags interval\n\
                \t\telements = { 203.0.113.0/24, 198.51.100.0-198.51.100.9,\n\
                \t\t\t     192.0.2.7 timeout 1h expires 3s, # a comment\n\
                \t\t\t     192.0.2.9 comment \"a, b }\" }\n\t}\n\
                \tchain input { type filter hook input priority 0; ip saddr @ua accept\n\t}\n}\n";
    let expected = ["192.0.2.7/32", "192.0.2.9/32", "198.51.100.0/29", "198.51.100.8/31", "203.0.113.0/24"];
    assert_eq!(networks("nft", &[text]), expected);
    assert_eq!(networks("nft:ua", &[text]), expected);
    assert_eq!(
        networks("nft", &["define UA = { 10.0.0.0/8, 2001:db8::/32 }\n"]),
        ["10.0.0.0/8", "2001:db8::/32"]
    );
    assert_eq!(
        networks("nft", &["add element inet filter ua { 10.0.0.0/8 }\nadd element filter ua { 11.0.0.0/8 }"]),
        ["10.0.0.0/7"]
    );
    for (text, expected) in [
        (
            "add element ip t ua { 10.0.0.0/8 }\ndelete element ip t ua { 10.1.0.0/16 }",
            "list:2: the command removes elements",
        ),
        ("elements = { 10.0.0.0/8, 11.0.0", "the elements do not end with a brace"),
        ("map m { elements = { 10.0.0.0/8 : accept } }", "the element is of a map"),
        ("elements = { example.org }", "list:1: example.org is not a network"),
        (
            "set a { elements = { 10.0.0.0/8 } }\nset b { elements = { 11.0.0.0/8 } }",
            "there are 2 lists: a, b",
        ),
        ("table inet filter { }", "no network of the wanted kind"),
    ] {
        assert!(refused("nft", text).contains(expected), "{text}: {}", refused("nft", text));
    }
}

#[test]
fn mikrotik_address_lists() {
    let text = "# 2026-01-31 by RouterOS 7.1\n/interface bridge\nadd name=bridge1\n\
                /ip firewall address-list\nadd address=203.0.113.0/24 list=UA-IX\n\
                add address=198.51.100.1-198.51.100.2 comment=\"address=10.0.0.0/8 \\\"x\\\"\" \
                list=\\\n    UA-IX\n\
                add address=11.0.0.0/8 disabled=yes list=UA-IX\n\
                /ip firewall filter\nadd action=drop chain=input src-address=12.0.0.0/8\n\
                /ipv6 firewall address-list\nadd address=2001:db8::/32 list=UA-IX\n";
    assert_eq!(
        networks("mikrotik", &[text]),
        ["198.51.100.1/32", "198.51.100.2/32", "203.0.113.0/24", "2001:db8::/32"]
    );
    let counts = converted("mikrotik", &[text]).unwrap().counts;
    assert_eq!(counts[1..], ["1 left out: disabled entries", "2 left out: of other sections"]);
    let script = ":global AddressList\n/ip firewall address-list remove [find list=UA]\n\
                  /ip firewall address-list add list=UA address=10.0.0.0/8\n\
                  :do {add list=UA comment=AS1 address=11.0.0.0/8} on-error {}\n";
    assert_eq!(networks("mikrotik", &[script]), ["10.0.0.0/7"]);
    let two = "add list=A address=10.0.0.0/8\nadd list=\"B c\" address=11.0.0.0/8\n";
    assert_eq!(networks("mikrotik:B c", &[two]), ["11.0.0.0/8"]);
    assert!(refused("mikrotik", two).contains("there are 2 lists: A, B c"));
    for (text, expected) in [
        ("add list=A address=example.org\n", "list:1: example.org is not a network"),
        (
            "add list=A address=10.0.0.0/8;/ip firewall address-list add list=A address=11.0.0.0/8\n",
            "list:1: the line has two addresses; write one command on each line",
        ),
        ("add list=A address=10.0.0.0/8\nremove [find address=10.0.0.0/8]\n", "list:2: the command removes"),
        ("add list=A\n", "the entry has no address or no list"),
        ("set 0 address=10.0.0.0/8\n", "is not an entry of an address list"),
    ] {
        assert!(refused("mikrotik", text).contains(expected), "{text}");
    }
}

#[test]
fn delegations_of_a_registry() {
    let text = "2|ripencc|1700000000|6|19830705|20260131|+0100\n\
                ripencc|*|ipv4|*|4|summary\n\
                ripencc|UA|ipv4|203.0.113.0|256|20100101|allocated|a-b-c\n\
                ripencc|UA|ipv4|198.51.100.0|768|20100101|assigned\n\
                ripencc|DE|ipv4|10.0.0.0|256|20100101|allocated\n\
                ripencc|UA|ipv4|11.0.0.0|256||reserved\n\
                ripencc|UA|ipv6|2001:db8::|32|20100101|allocated\n\
                ripencc|UA|asn|65001|1|20100101|allocated\n";
    assert_eq!(
        networks("ripe:ua", &[text]),
        ["198.51.100.0/23", "198.51.102.0/24", "203.0.113.0/24", "2001:db8::/32"]
    );
    let cut = &text[..text.find("ripencc|UA|ipv6").unwrap()];
    assert!(
        refused("ripe:UA", cut).contains("announces 6 records and has 4; get it again, it was cut short")
    );
    for (line, expected) in [
        ("ripencc|UA|ipv4|203.0.113.0|0|2010|allocated\n", "is not a delegation of addresses"),
        ("ripencc|UA|ipv4|255.255.255.0|512|2010|allocated\n", "is not a delegation of addresses"),
        ("ripencc|UA|ipv6|2001:db8::1|32|2010|allocated\n", "is not a delegation of addresses"),
        ("ripencc|UA|ipv4|203.0\n", "is not a delegation; give another --from"),
        ("ripencc|DE|ipv4|203.0.113.0|256|2010|allocated\n", "no network of the wanted kind"),
    ] {
        assert!(refused("ripe:UA", line).contains(expected), "{line}: {}", refused("ripe:UA", line));
    }
}

#[test]
fn networks_files_of_pmacct() {
    let text = "! networks\n65001,203.0.113.0/24\n192.0.2.1,65001_65002,198.51.100.0/24\n10.0.0.0/8\n";
    assert_eq!(networks("pmacct", &[text]), ["10.0.0.0/8", "198.51.100.0/24", "203.0.113.0/24"]);
    assert!(refused("pmacct", "UA,10.0.0.0/8\n").contains("list:1: UA is neither an AS nor a next hop"));
    assert!(refused("pmacct", "10.0.0.0/8,65001\n").contains("10.0.0.0/8 is neither"));
}

#[test]
fn tables_of_routes() {
    let bgpdump = "TABLE_DUMP2|1700000000|B|192.0.2.1|65001|203.0.113.0/24|65001|IGP|192.0.2.1|0|0||NAG||\n\
                   TABLE_DUMP2|1700000000|B|2001:db8::1|65001|2001:db8::/32|65001|IGP|::|0|0||NAG||\n\
                   TABLE_DUMP2|1700000000|B|192.0.2.1|65001|0.0.0.0/0|65001|IGP|192.0.2.1|0|0||NAG||\n";
    assert_eq!(networks("bgp", &[bgpdump]), ["203.0.113.0/24", "2001:db8::/32"]);
    assert_eq!(converted("bgp", &[bgpdump]).unwrap().counts[1], "1 left out: default routes");
    let bird2 = "BIRD 2.0.7 ready.\nTable master4:\n\
                 203.0.113.0/24       unicast [ix 2026-01-31] * (100) [AS65001i]\n\
                 \tvia 192.0.2.1 on eth0\n\
                 \x20                    unicast [b 2026-01-31] (100) [AS65002i]\n\
                 \tvia 192.0.2.2 on eth0\n\tBGP.as_path: 65001\n\
                 198.51.100.0/24      unreachable [static1 2026-01-31] * (200)\n";
    assert_eq!(networks("bgp", &[bird2]), ["203.0.113.0/24"]);
    let bird1 =
        "BIRD 1.6.8 ready.\n203.0.113.0/24     via 192.0.2.1 on eth0 [ix 2026-01-31] * (100) [AS65001i]\n";
    assert_eq!(networks("bgp", &[bird1]), ["203.0.113.0/24"]);
    for (text, expected) in [
        ("BGP4MP|1700000000|A|192.0.2.1|1|10.0.0.0/8|1|IGP\n", "these are updates"),
        ("TABLE_DUMP2|1700000000|B|192.0.2.1\n", "has no prefix"),
        ("Network  Next Hop\n", "Network does not begin with a prefix"),
    ] {
        assert!(refused("bgp", text).contains(expected), "{text}: {}", refused("bgp", text));
    }
}

#[test]
fn tables_of_countries() {
    let locations = "geoname_id,locale_code,continent_code,continent_name,country_iso_code,country_name\n\
                     690791,en,EU,Europe,UA,Ukraine\n2921044,en,EU,Europe,DE,\"Germany, all\"\n";
    let blocks = "network,geoname_id,registered_country_geoname_id,represented_country_geoname_id\n\
                  203.0.113.0/24,690791,2921044,\n198.51.100.0/24,2921044,690791,\n192.0.2.0/24,,690791,\n";
    let v6 = "network,geoname_id,registered_country_geoname_id\n2001:db8::/32,690791,690791\n";
    for texts in [[locations, blocks, v6], [blocks, v6, locations]] {
        assert_eq!(networks("geoip:ua", &texts), ["192.0.2.0/24", "203.0.113.0/24", "2001:db8::/32"]);
    }
    assert!(refused("geoip:UA", blocks).contains("give MaxMind's file Country-Locations as well"));
    let db_ip = "203.0.113.0,203.0.113.255,UA\n198.51.100.0,198.51.100.255,DE\n2001:db8::,2001:db8::f,UA\n";
    assert_eq!(networks("geoip:UA", &[db_ip]), ["203.0.113.0/24", "2001:db8::/124"]);
    let ip2location = "\"0\",\"16777215\",\"-\",\"-\"\n\"3405803776\",\"3405804031\",\"UA\",\"Ukraine\"\n\
                       \"281474087547136\",\"281474087547391\",\"UA\",\"Ukraine\"\n\
                       \"42540766411282592856903984951653826560\",\"42540766411282592856903984951653826575\",\"UA\",\"Ukraine\"\n";
    assert_eq!(networks("geoip:UA", &[ip2location]), ["203.0.113.0/24", "2001:db8::/124"]);
    let legacy = "\"203.0.113.0\",\"203.0.113.255\",\"3405803776\",\"3405804031\",\"UA\",\"Ukraine\"\n";
    assert_eq!(networks("geoip:UA", &[legacy]), ["203.0.113.0/24"]);
    for (text, expected) in [
        ("203.0.113.9,203.0.113.1,UA\n", "list:1: the range ends before it begins"),
        (
            "203.0.113.0,203.0.113.255,UA\n203.0.113.0,UA\n",
            "list:2: \"203.0.113.0,UA\" is not a range with a country",
        ),
        ("203.0.113.0,203.0.113.255,DE\n", "no network of the wanted kind"),
    ] {
        assert!(refused("geoip:UA", text).contains(expected), "{text}: {}", refused("geoip:UA", text));
    }
}

#[test]
fn a_column_of_a_table() {
    let text = "name;net;note\n\"a;b\";203.0.113.0/24;x\nc;198.51.100.0 - 198.51.100.255;\n";
    for column in ["csv:net", "csv:NET", "csv:2"] {
        assert_eq!(networks(column, &[text]), ["198.51.100.0/24", "203.0.113.0/24"], "{column}");
    }
    assert_eq!(networks("csv:2", &["a,10.0.0.0/8\nb,11.0.0.0/8\n"]), ["10.0.0.0/7"]);
    assert_eq!(networks("csv:1", &["10.0.0.0/8\tx\n"]), ["10.0.0.0/8"]);
    for (column, text, expected) in [
        ("csv:prefix", text, "there is no column prefix; the columns are name, net, note"),
        ("csv:net", "net,net\n10.0.0.0/8,11.0.0.0/8\n", "there are two columns net; give its number"),
        ("csv:2", "a,10.0.0.0/8\nb\n", "list:2: the row has no column 2"),
        ("csv:2", "a,10.0.0.0/8\nb,\n", "list:2: \"\" is not a network"),
        ("csv:1", text, "list:2: \"a;b\" is not a network"),
    ] {
        let refused = converted(column, &[text]).unwrap_err();
        assert!(refused[0].to_string().contains(expected), "{column}: {refused:?}");
    }
}

#[test]
fn traffic_classes_of_pba_s() {
    let text = "<?xml version=\"1.0\"?>\n<data>\n<traffclass><id>1</id><mode>update</mode><name>Local</name>\n\
                <range><ip>10.0.0.0</ip><prefix>8</prefix><description>a &amp; b</description></range>\n\
                </traffclass>\n<traffclass><id>2</id><name>All</name>\n\
                <range><ip>0.0.0.0</ip><prefix>0</prefix><description/></range></traffclass>\n\
                <traffclass><id>3</id><name>UA-IX</name>\n\
                <range><ip>203.0.113.0</ip><prefix>25</prefix></range>\n\
                <range><ip>203.0.113.128</ip><prefix>25</prefix></range></traffclass>\n</data>\n";
    let converted = converted("pbas", &[text]).unwrap();
    let file = crate::parse(converted.to_string().as_bytes());
    assert_eq!(file.diagnostics, []);
    let lines: Vec<String> = file.entries.iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["0 10.0.0.0/8", "1 0.0.0.0/0", "2 203.0.113.0/24"]);
    assert_eq!(file.names[&2], "UA-IX");
    assert_eq!(file.names[&0], "Local");
    for (from, to, expected) in [
        ("<id>1</id>", "<id>0</id>", "list:3: the class number 0 is not 1 or more"),
        (
            "<prefix>25</prefix></range>\n<",
            "<prefix>33</prefix></range>\n<",
            "list:9: 203.0.113.0/33 is not a network",
        ),
        ("203.0.113.128", "203.0.113.129", "203.0.113.129/25 has host bits set; write 203.0.113.128/25"),
        ("</data>", "", "this is no readable XML"),
    ] {
        let message = refused("pbas", &text.replacen(from, to, 1));
        assert!(message.contains(expected), "{from}: {message}");
    }
    assert!(convert(&Source::Pbas, Some(2), &[]).is_err());
    assert!(convert(&Source::Plain, None, &[Input { name: "x", bytes: b"10.0.0.0/8" }]).is_err());
}

#[test]
fn formats_have_one_notation() {
    for text in [
        "plain",
        "ipset",
        "ipset:ua",
        "nft",
        "nft:ua",
        "mikrotik",
        "mikrotik:UA-IX",
        "ripe:UA",
        "pmacct",
        "bgp",
        "geoip:UA",
        "csv:net",
        "csv:2",
        "pbas",
    ] {
        assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
    }
    assert_eq!("ripe:ua".parse(), Ok(Source::Delegated("UA".to_owned())));
    for (text, expected) in [
        ("ripe", "ripe needs a country of two letters; write ripe:UA"),
        ("geoip:UKR", "geoip needs a country"),
        ("csv", "csv needs a column"),
        ("csv:", "csv needs a column"),
        ("plain:x", "plain:x is not a format; write plain, ipset[:SET]"),
        ("xls", "xls is not a format"),
    ] {
        let error = text.parse::<Source>().unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
