//! `vznetstat` and `pnetstat`.

use anyhow::{Result, ensure};
use traffic_tests::{Amounts, Counters, Lab};

use crate::node::{World, output, rows, stderr};

const HEADER: &str = "UUID                                 Net.Class     Input(bytes) Input(pkts)        Output(bytes) Output(pkts)";

#[test]
fn every_option_shows_what_the_senders_counted() -> Result<()> {
    let world = World::new("vznetstat")?;
    let one = world.send("8.8.8.8", 11, 100)?;
    let two = world.send("10.2.0.9", 13, 200)?;
    let zero = world.send("192.0.2.9", 17, 300)?;
    let six = world.send("fd00:99::1", 19, 400)?;
    // From the remote host's own address, which is in class 1 in both families.
    let back = world.receive("10.1.0.1", 23, 500)?;
    let both = Amounts::both(back, (one.0 + six.0, one.1 + six.1));

    let of = |arguments: &[&str]| world.rows(arguments);
    let all = of(&[])?;
    let ids: Vec<(&str, u8)> = all.iter().map(|row| (row.id.as_str(), row.class)).collect();
    let every = |id| [(id, 0), (id, 1), (id, 2), (id, 3)];
    assert_eq!(ids, [every("0"), every("101")].concat());
    assert_eq!(all[4].amounts, Amounts::outgoing(zero.0, zero.1));
    assert_eq!(all[5].amounts, both);
    assert_eq!(all[6].amounts, Amounts::outgoing(two.0, two.1));
    assert_eq!(all[7].amounts, Amounts::default());

    assert_eq!(of(&["-v101"])?, all[4..]);
    assert_eq!(of(&["-v", "101", "-v", "0"])?, all);
    assert_eq!(of(&["-v", "777"])?, [], "the header alone");
    assert_eq!(of(&["-c", "1"])?, [all[1].clone(), all[5].clone()]);
    assert_eq!(of(&["-c1", "-c", "2", "-v101"])?, all[5..7]);
    assert_eq!(of(&["-c", "9"])?, [], "a class that is not configured is not shown");
    let four = of(&["-4", "-v101"])?;
    assert_eq!(four.iter().map(|row| row.class).collect::<Vec<_>>(), [0, 1, 2], "class 3 is for IPv6 alone");
    assert_eq!(four[1].amounts, Amounts::both(back, one));
    let six_only = of(&["-6", "-v101"])?;
    assert_eq!(six_only.iter().map(|row| row.class).collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(six_only[1].amounts, Amounts::outgoing(six.0, six.1));
    let sixteen = of(&["-av101", "-c2"])?;
    assert_eq!(sixteen.iter().map(|row| row.class).collect::<Vec<_>>(), (0..16).collect::<Vec<u8>>());
    assert_eq!(sixteen[2], all[6]);
    assert_eq!(of(&["-t", "ct"])?, all);
    assert_eq!(of(&["-t", "vm"])?, []);
    let rounded = world.printed("vznetstat", &["-r", "-v101", "-c1"])?;
    let fields: Vec<&str> = rounded.lines().nth(1).unwrap_or("").split_whitespace().collect();
    assert_eq!(fields[2], format!("{}K", back.1 >> 10));
    Ok(())
}

#[test]
fn output_is_the_same_under_every_name_and_on_every_terminal() -> Result<()> {
    let world = World::new("vznames")?;
    world.send("8.8.8.8", 11, 100)?;
    let text = world.printed("vznetstat", &[])?;
    rows(&text)?;
    assert_eq!(text.lines().next(), Some(HEADER));
    assert_eq!(world.printed("pnetstat", &[])?, text);
    assert_eq!(world.lab.run_ok(&["vznetstat"])?, text);
    assert_eq!(world.lab.run_ok(&["-v", "pnetstat", "-t", "all"])?, text);
    let short = world.printed("pnetstat", &["-tct"])?;
    assert_eq!(
        short.lines().next(),
        Some("CTID    Net.Class     Input(bytes) Input(pkts)        Output(bytes) Output(pkts)")
    );
    assert_eq!(short.lines().skip(1).collect::<Vec<_>>(), text.lines().skip(1).collect::<Vec<_>>());
    // Colours requested or refused, and log messages of every level.
    for (name, value) in
        [("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1"), ("TERM", "xterm-256color"), ("TRAFCTL_LOG", "trace")]
    {
        let output = output(world.called("vznetstat", &[]).env(name, value))?;
        assert_eq!(String::from_utf8(output.stdout)?, text, "{name}={value}");
    }
    // On a terminal, which `script` provides, only the line ends differ, whatever the option.
    world.send("fd00:99::1", 7, 60)?;
    for options in
        ["", "-4", "-6", "-a", "-r", "-v101", "-v 0 -v 101", "-c1", "-c0 -c2", "-tct", "-tvm", "-h"]
    {
        let arguments: Vec<&str> = options.split_whitespace().collect();
        let text = world.printed("pnetstat", &arguments)?;
        let mut command = world.lab.host().command("script");
        command.args(["-qec", &format!("{} {options}", world.lab.path("pnetstat").display()), "/dev/null"]);
        world.set_paths(command.env("CLICOLOR_FORCE", "1").env("TERM", "xterm-256color"));
        let on_terminal = String::from_utf8(output(&mut command)?.stdout)?;
        assert_eq!(on_terminal, text.replace('\n', "\r\n"), "{options}");
    }
    // Only the usage differs between the two names.
    ensure!(world.printed("vznetstat", &["-h"])?.starts_with("Usage: vznetstat [-4|-6] [-v id]"));
    ensure!(world.printed("pnetstat", &["-h"])?.contains("[-t <ct|vm|all>]"));
    ensure!(world.lab.run_ok(&["help", "vznetstat"])?.contains("tail -n 1"));
    Ok(())
}

#[test]
fn misuse_has_the_statuses_of_virtuozzo_and_no_output() -> Result<()> {
    let world = World::new("vzmisuse")?;
    let cases: [(&[&str], i32, &str); 9] = [
        (&["-x"], 1, "Usage: vznetstat"),
        (&["-v"], 1, "Usage: vznetstat"),
        (&["--all"], 1, "Usage: vznetstat"),
        (&["-v", "a b"], 250, "Invalid veid: a b"),
        (&["-c", "x"], 250, "Invalid classid: x"),
        (&["-c", "17"], 250, "Invalid classid: 17"),
        (&["-4c999"], 250, "Invalid classid: 999"),
        (&["-t", "x"], 250, "An invalid type x specified"),
        (&["-c", ""], 250, "Invalid classid: "),
    ];
    for (arguments, status, message) in cases {
        let output = output(&mut world.called("vznetstat", arguments))?;
        let said = stderr(&output);
        ensure!(output.status.code() == Some(status), "{arguments:?}: {} {said}", output.status);
        ensure!(output.stdout.is_empty() && said.contains(message), "{arguments:?}: {said}");
    }
    // As with getopt, words that belong to no option are accepted; a warning names them.
    let output = output(&mut world.called("vznetstat", &["101", "-c1"]))?;
    ensure!(output.status.code() == Some(0) && stderr(&output).contains("ignored"), "{}", stderr(&output));
    assert_eq!(rows(&String::from_utf8(output.stdout)?)?.len(), 2);
    Ok(())
}

#[test]
fn before_anything_is_counted_there_is_one_error_line() -> Result<()> {
    let lab = Lab::new("vznothing")?;
    for arguments in
        [&["vznetstat"][..], &["pnetstat", "-a"], &["vztactl", "class_list"], &["vztactl", "reset_all_stat"]]
    {
        let output = output(&mut lab.trafctl(arguments)?)?;
        let said = stderr(&output);
        ensure!(output.status.code() == Some(7), "{arguments:?}: {} {said}", output.status);
        ensure!(output.stdout.is_empty() && said.lines().count() == 1, "{arguments:?}: {said}");
        ensure!(said.contains("nothing is loaded") && said.contains("trafctl attach"), "{said}");
    }
    assert_eq!(std::fs::read_dir(lab.state_dir())?.count(), 0, "nothing was written");
    Ok(())
}

#[test]
fn each_id_of_a_container_finds_it() -> Result<()> {
    let world = World::new("vzalias")?;
    let uuid = "6d1e1c39-63e6-4a2b-8ef4-1b7a1d2f3c4d";
    world.lab.write("vz/101.conf", &format!("UUID=\"{uuid}\"\n"))?;
    let sent = world.send("8.8.8.8", 11, 100)?;
    let expected = Amounts::outgoing(sent.0, sent.1);
    for id in ["101", uuid, &format!("{{{}}}", uuid.to_uppercase())] {
        assert_eq!(world.row(id, 1)?, expected, "{id}");
    }
    // A reset by either id resets the same container.
    world.printed("vztactl", &["reset_ve_stat", uuid])?;
    assert_eq!(world.row("101", 1)?, Amounts::default());
    Ok(())
}

#[test]
fn each_id_finds_both_parts_of_a_container_that_got_its_uuid_later() -> Result<()> {
    let world = World::new("vzlater")?;
    let by_number = world.send("8.8.8.8", 11, 100)?;
    let uuid = "6d1e1c39-63e6-4a2b-8ef4-1b7a1d2f3c4d";
    world.lab.write(&format!("vz/{uuid}.conf"), "VEID=\"101\"\n")?;
    world.lab.run_ok(&["attach"])?;
    let by_uuid = world.send("8.8.8.8", 13, 200)?;

    let in_braces = format!("{{{uuid}}}");
    let typed = ["101", uuid, &uuid.to_uppercase(), &in_braces, &in_braces.to_uppercase()];
    let expected = [
        ("101", Amounts::outgoing(by_number.0, by_number.1)),
        (uuid, Amounts::outgoing(by_uuid.0, by_uuid.1)),
    ];
    for id in typed {
        let rows = world.rows(&["-c1", "-v", id])?;
        let found: Vec<_> = rows.iter().map(|row| (row.id.as_str(), row.amounts)).collect();
        assert_eq!(found, expected, "vznetstat {id}");
        let dumped = world.lab.run_json(&["dump", "--format", "json", "--container", id])?;
        let dumped: Vec<_> = dumped["counters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| (row["container"].as_str().unwrap_or(""), row["out_bytes"].as_u64()))
            .collect();
        assert_eq!(dumped, expected.map(|(id, amounts)| (id, Some(amounts.out_bytes))), "dump {id}");
    }
    // A reset by one id resets the whole container.
    world.printed("vztactl", &["reset_ve_stat", &in_braces])?;
    for row in world.rows(&["-v101"])? {
        assert_eq!(row.amounts, Amounts::default(), "{row:?}");
    }
    // Both parts are shown even if the configuration cannot be read: the last one that could be names them.
    world.lab.configure("nonsense")?;
    let output = output(&mut world.called("vznetstat", &["-v101", "-c1"]))?;
    ensure!(
        output.status.code() == Some(0)
            && stderr(&output).contains("the last configuration without a mistake"),
        "{}",
        stderr(&output)
    );
    assert_eq!(rows(&String::from_utf8(output.stdout)?)?.len(), 2);
    Ok(())
}

#[test]
fn the_lines_of_proc_hold_the_same_bytes() -> Result<()> {
    let world = World::new("venetstat")?;
    let one = world.send("8.8.8.8", 11, 100)?;
    let two = world.send("10.2.0.9", 13, 200)?;
    let six = world.send("fd00:99::1", 19, 400)?;
    let back = world.receive("10.1.0.1", 23, 500)?;
    Counters::at_rest(&world.lab)?;
    let line = |id: &str, classes: [(u64, u64); 16]| {
        let pairs = classes.map(|(incoming, outgoing)| format!(" {incoming:>20}/{outgoing:>20}"));
        format!("{id}{}\n", pairs.concat())
    };
    let mut four = [(0, 0); 16];
    let node = line("0", four);
    (four[1], four[2]) = ((back.1, one.1), (0, two.1));
    assert_eq!(world.lab.run_ok(&["export", "venetstat"])?, node.clone() + &line("101", four));
    let mut of_six = [(0, 0); 16];
    of_six[1] = (0, six.1);
    assert_eq!(world.lab.run_ok(&["export", "venetstat", "-6"])?, node.clone() + &line("101", of_six));
    // It shows the difference since a reset, as vznetstat does.
    world.printed("vztactl", &["reset_all_stat"])?;
    assert_eq!(world.lab.run_ok(&["export", "venetstat"])?, node + &line("101", [(0, 0); 16]));
    Ok(())
}
