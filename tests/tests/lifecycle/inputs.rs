//! Odd input files, several writers, and odd names: what is unusable costs only itself, is reported, and is
//! never waited for.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Container, Counters, Lab, wall_clock};

use crate::daemon::Daemon;
use crate::node::{CLASSES, at, eventually, is_well, node, output, pair, problems, stderr, trafctl};

/// Commands that add addresses at the same time, and how many each adds.
const ADDERS: u8 = 8;
const ADDITIONS: u8 = 50;
/// Longer than any command takes here, and far shorter than forever.
const AT_ONCE: Duration = Duration::from_secs(30);

fn make_fifo(path: &Path) -> Result<()> {
    run_ok(Command::new("mkfifo").arg(path)).map(drop)
}

/// Exit code and messages of a command, which must end by itself.
fn ends(lab: &Lab, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut child = lab.trafctl(arguments)?.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > AT_ONCE {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("{arguments:?} does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output()?;
    let told = stderr(&output);
    ensure!(!told.contains("panicked"), "{arguments:?}: {told}");
    Ok((output.status.code(), told))
}

fn counts(lab: &Lab, a: &Container, b: &Container) -> Result<()> {
    let before = Counters::at_rest(lab)?.class_or_zero("101", 2, "ipv4");
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 20, 200)?;
    let since = Counters::at_rest(lab)?.class("101", 2, "ipv4").since(before);
    assert_eq!(since, Amounts::outgoing(sent.packets, sent.l3_bytes));
    Ok(())
}

#[test]
fn no_address_is_lost_when_many_commands_add_at_once() -> Result<()> {
    let lab = node("address-writers")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let address = |adder: u8, number: u8| format!("10.77.{adder}.{number}");
    let add = |adder: u8| -> Result<()> {
        for number in 0..ADDITIONS {
            lab.run_ok(&[
                "address",
                "add",
                &format!("{}", 1000 + u32::from(adder)),
                &address(adder, number),
            ])?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let add = &add;
        let adders: Vec<_> = (0..ADDERS).map(|adder| scope.spawn(move || add(adder))).collect();
        adders
            .into_iter()
            .try_for_each(|adder| adder.join().map_err(|_| anyhow::anyhow!("a thread failed"))?)
    })?;
    let file = fs::read(lab.state_dir().join("addresses"))?;
    ensure!(!file.contains(&0), "the file contains zero bytes");
    let text = String::from_utf8(file)?;
    for (adder, number) in (0..ADDERS).flat_map(|adder| (0..ADDITIONS).map(move |number| (adder, number))) {
        let line = format!("{}/32 {}", address(adder, number), 1000 + u32::from(adder));
        ensure!(text.lines().any(|listed| listed == line), "{line} is lost");
    }
    // The kernel has them all too: a slower command did not take away what a faster one added.
    is_well(&lab)?;
    // And at the same time as others remove.
    let remove = |adder: u8| -> Result<()> {
        for number in 0..ADDITIONS / 5 {
            lab.run_ok(&["address", "remove", &address(adder, number)])?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let remove = &remove;
        let removers: Vec<_> = (0..4).map(|adder| scope.spawn(move || remove(adder))).collect();
        removers.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a thread failed"))?)
    })?;
    let left = fs::read_to_string(lab.state_dir().join("addresses"))?;
    let lines = left.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(lines, usize::from(ADDERS) * usize::from(ADDITIONS) - 4 * usize::from(ADDITIONS / 5));
    is_well(&lab)?;
    counts(&lab, &a, &b)
}

#[test]
fn killed_writers_lose_nothing_that_was_confirmed() -> Result<()> {
    let lab = node("killed-writers")?;
    let mut confirmed = Vec::new();
    for number in 0..60_u8 {
        let address = format!("10.78.0.{number}");
        let mut child = lab.trafctl(&["address", "add", "7", &address])?.stderr(Stdio::null()).spawn()?;
        thread::sleep(Duration::from_micros(u64::from(number) * 700));
        child.kill()?;
        if child.wait()?.success() {
            confirmed.push(address);
        }
        let text = String::from_utf8(fs::read(lab.state_dir().join("addresses")).unwrap_or_default())?;
        ensure!(text.is_empty() || text.ends_with('\n') && !text.contains('\0'), "{text:?}");
        for address in &confirmed {
            ensure!(text.contains(&format!("{address}/32 7\n")), "{address} is lost: {text}");
        }
    }
    // A later change removes what the killed ones left.
    lab.run_ok(&["address", "add", "7", "10.78.1.1"])?;
    let left: Vec<_> = fs::read_dir(lab.state_dir())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".new"))
        .collect();
    assert_eq!(left, [""; 0]);
    Ok(())
}

#[test]
fn a_full_or_read_only_file_system_keeps_the_old_list() -> Result<()> {
    let lab = node("full-state")?;
    lab.run_ok(&["address", "add", "7", "10.79.0.1"])?;
    let list = fs::read(lab.state_dir().join("addresses"))?;
    for options in ["size=64k", "size=1M,nr_inodes=4", "size=1M,ro"] {
        // Mounted in a mount namespace of its own, which ends with the shell.
        let script = format!(
            "set -e; mount -t tmpfs -o {} none \"$1\"; cp -r \"$2\"/addresses \"$2\"/files.lock \"$1\"/; \
             case {options} in size=64k) dd if=/dev/zero of=\"$1\"/fill bs=4k 2>/dev/null || true;; \
             *nr_inodes*) : > \"$1\"/fill 2>/dev/null || true;; *ro) mount -o remount,ro \"$1\";; esac; \
             rc=0; \"$3\" --state-dir \"$1\" --bpffs \"$1\"/none --config \"$4\" address add 8 10.79.0.2 || rc=$?; \
             cmp \"$1\"/addresses \"$2\"/addresses; ls \"$1\" | grep new && exit 99; exit $rc",
            options.trim_end_matches(",ro")
        );
        let directory = lab.path("small");
        fs::create_dir_all(&directory)?;
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, "sh"]).arg(&directory).arg(lab.state_dir());
        command.arg(traffic_tests::lab::trafctl_program()?).arg(lab.config());
        let output = output(&mut command)?;
        let told = stderr(&output);
        ensure!(output.status.code() == Some(1), "{options}: {}: {told}", output.status);
        ensure!(told.contains("trafctl: cannot "), "{options}: {told}");
    }
    assert_eq!(fs::read(lab.state_dir().join("addresses"))?, list);
    Ok(())
}

#[test]
fn a_damaged_list_is_a_problem_and_the_rest_of_it_counts() -> Result<()> {
    let lab = node("bad-list")?;
    let vz = lab.path("conf");
    fs::create_dir_all(&vz)?;
    lab.configure(&format!("class_file = {:?}\nvz_conf_dir = {vz:?}\n", lab.path("classes")))?;
    let (a, b) = pair(&lab)?;
    fs::create_dir_all(lab.state_dir())?;
    let good = "10.77.0.1 701\n";
    fs::write(lab.state_dir().join("addresses"), format!("{good}10.77.0.2\n\0\0\0\0\n10.77.0.3 703\r\n"))?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.ready()?;
    let found = problems(&lab)?;
    ensure!(found.len() == 2, "{found:?}");
    for line in ["addresses:2: the line is skipped", "addresses:3: the line is skipped"] {
        ensure!(found.iter().any(|problem| problem.contains(line)), "{line}: {found:?}");
        daemon.logs(line)?;
    }
    let listed = trafctl(&lab, &["address", "list"])?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    ensure!(
        text.contains("10.77.0.1") && text.contains("10.77.0.3") && !text.contains("10.77.0.2"),
        "{text}"
    );
    assert_eq!(listed.status.code(), Some(1), "a list with lines left out is not a success");
    counts(&lab, &a, &b)?;

    // What takes the place of a file while the daemon runs, or is there at its start.
    fs::remove_file(lab.state_dir().join("addresses"))?;
    make_fifo(&lab.state_dir().join("addresses"))?;
    make_fifo(&vz.join("305.conf"))?;
    make_fifo(&lab.state_dir().join("marks.json"))?;
    fs::write(vz.join("306.conf"), b"\xef\xbb\xbfIP_ADDRESS=\"10.77.0.6\"\r\nIP_ADDRESS_ 5\r\n")?;
    daemon.signal(Signal::HUP)?;
    daemon.logs("305.conf: cannot read it: it is a FIFO")?;
    counts(&lab, &a, &b)?;
    daemon.stop_after_errors()?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.ready()?;
    let found = problems(&lab)?;
    for part in [
        "addresses: it is a FIFO",
        "305.conf: cannot read it: it is a FIFO",
        "306.conf:2: ",
        "marks.json: it is a FIFO",
    ] {
        ensure!(found.iter().any(|problem| problem.contains(part)), "{part}: {found:?}");
    }
    counts(&lab, &a, &b)?;
    let listed = trafctl(&lab, &["address", "list"])?;
    ensure!(String::from_utf8_lossy(&listed.stdout).contains("10.77.0.6"), "{}", stderr(&listed));
    daemon.stop_after_errors()
}

#[test]
fn nothing_waits_for_a_fifo_or_reads_a_device_in_the_place_of_a_file() -> Result<()> {
    let lab = node("fifos")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    Daemon::start(&lab)?.stop()?;
    let fifo = lab.path("fifo");
    make_fifo(&fifo)?;
    let link = lab.path("link");
    symlink(&fifo, &link)?;
    let odd = ["fifo", "link", "."].map(|name| lab.path(name).display().to_string());
    let files =
        odd.iter().map(String::as_str).chain(["/dev/zero", "/dev/tty", "/proc/kmsg", "/nonexistent/file"]);
    for file in files {
        let cases: [&[&str]; 10] = [
            &["--config", file, "status"],
            &["--config", file, "run"],
            &["classes", "check", file],
            &["classes", "load", file],
            &["classes", "list", "--file", file],
            &["classes", "explain", "10.0.0.1", "--file", file],
            &["vztactl", "class_load", "-s", file],
            &["compare", "--with", file],
            &["ledger", "import-pva", file],
            &["--state-dir", file, "address", "add", "7", "10.77.0.9"],
        ];
        for arguments in cases {
            let (code, told) = ends(&lab, arguments)?;
            ensure!(code != Some(0), "{arguments:?} succeeds: {told}");
            ensure!(told.contains("trafctl: "), "{arguments:?}: {told}");
        }
    }
    for name in [
        "addresses",
        "marks.json",
        "class-table.json",
        "compare.json",
        "files.lock",
        "ledger.sqlite",
        "ledger.sqlite-log-of",
        "ledger-look.json",
    ] {
        let state = lab.path(&format!("state-{name}"));
        fs::create_dir_all(&state)?;
        make_fifo(&state.join(name))?;
        let state = state.display().to_string();
        let theirs = lab.write("theirs", "101 1 1 1 1 1\n")?.display().to_string();
        for command in [
            &["status"][..],
            &["address", "list"],
            &["address", "add", "7", "10.77.0.9"],
            &["vznetstat"],
            &["vztactl", "reset_all_stat"],
            &["vztactl", "class_list"],
            &["dump", "--since-mark"],
            &["compare", "--with", &theirs],
            &["report"],
            &["audit"],
            &["gaps"],
        ] {
            let arguments: Vec<&str> =
                ["--state-dir", &state].into_iter().chain(command.iter().copied()).collect();
            ends(&lab, &arguments)?;
        }
    }
    counts(&lab, &a, &b)?;
    is_well(&lab)
}

#[test]
fn names_that_are_not_utf_8_are_attached_and_kept_apart() -> Result<()> {
    let lab = node("odd-names")?;
    let names = [&b"\xe9\xe9\xe9\xe9\xe9"[..], b"\xe9\xe9\xe9\xe9\xea"];
    let a = lab.bridged_as("veth201.0", [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged_as("veth202.0", [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    traffic_tests::container::introduce(&[&a, &b])?;
    for (old, new) in ["veth201.0", "veth202.0"].iter().zip(names) {
        let mut rename = lab.host().command("ip");
        rename.args(["link", "set", old, "name"]).arg(std::ffi::OsStr::from_bytes(new));
        run_ok(&mut rename)?;
    }
    lab.configure(&format!(
        "class_file = {:?}\n[[container]]\nid = '201'\ninterfaces = ['\\xe9\\xe9\\xe9\\xe9\\xe9']\n\
         [[container]]\nid = '202'\ninterfaces = ['\\xe9\\xe9\\xe9\\xe9\\xea']\n",
        lab.path("classes")
    ))?;
    for name in names {
        let mut command = lab.trafctl(&["attach"])?;
        let output = output(command.arg(std::ffi::OsStr::from_bytes(name)))?;
        ensure!(output.status.success(), "{}", stderr(&output));
    }
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 20, 200)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("201", 2, "ipv4"), Amounts::outgoing(sent.packets, sent.l3_bytes));
    assert_eq!(counters.class("202", 2, "ipv4"), Amounts::incoming(sent.packets, sent.l3_bytes));
    let shown = lab.run_json(&["dump", "--format", "json"])?;
    let interfaces = shown["interfaces"].as_array().context("interfaces")?;
    let mut shown: Vec<_> = interfaces.iter().filter_map(|one| one["interface"].as_str()).collect();
    shown.sort_unstable();
    assert_eq!(shown, ["\\xe9\\xe9\\xe9\\xe9\\xe9", "\\xe9\\xe9\\xe9\\xe9\\xea"]);
    is_well(&lab)
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() -> Result<()> {
    let lab = node("full-stdout")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    counts(&lab, &a, &b)?;
    for arguments in [
        &["dump"][..],
        &["status", "--format", "json"],
        &["vznetstat"],
        &["--help"],
        &["--version"],
        &["help", "dump"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full")?;
        let output =
            lab.trafctl(arguments)?.stdout(full).stderr(Stdio::piped()).spawn()?.wait_with_output()?;
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        ensure!(told.contains("cannot write to standard output"), "{arguments:?}: {told}");
    }
    // Without anybody to read the messages, and with a full disk behind them.
    for arguments in [
        &["dump", "-v"][..],
        &["explode"],
        &["vznetstat", "-x"],
        &["vztactl"],
        &["classes", "check", "/nonexistent"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full")?;
        let code = lab.trafctl(arguments)?.stdout(Stdio::null()).stderr(full).status()?.code();
        ensure!(matches!(code, Some(0 | 1 | 2 | 10)), "{arguments:?}: {code:?}");
        let mut closed = Command::new("sh");
        closed.args(["-c", "exec \"$@\" 2>&- 3<&- | head -c 1 >/dev/null", "sh"]);
        let program = lab.trafctl(arguments)?;
        closed.arg(program.get_program()).args(program.get_args());
        ensure!(output(&mut closed)?.status.success(), "{arguments:?}");
    }
    // A daemon whose log goes nowhere counts on.
    let full = fs::File::options().write(true).open("/dev/full")?;
    fs::write(lab.state_dir().join("addresses"), "nonsense\n")?;
    let mut daemon = lab.trafctl(&["run"])?.stdout(Stdio::null()).stderr(full).spawn()?;
    eventually("the daemon runs", || Ok(lab.state_dir().join("ledger.sqlite").exists()))?;
    thread::sleep(Duration::from_millis(500));
    ensure!(daemon.try_wait()?.is_none(), "the daemon has ended");
    counts(&lab, &a, &b)?;
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, Signal::TERM)?;
    assert_eq!(daemon.wait()?.code(), Some(0));
    Ok(())
}

#[test]
fn a_clock_beyond_the_year_9999_is_reported_and_counting_continues() -> Result<()> {
    let lab = node("far-clock")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    lab.write("classes", CLASSES)?;
    for arguments in
        [&["dump"][..], &["status"], &["vznetstat"], &["report", "--last", "1d"], &["close", "2026-01"]]
    {
        let output = output(&mut wall_clock::shifted(lab.trafctl(arguments)?, "+8500y"))?;
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        ensure!(!told.contains("panicked"), "{arguments:?}: {told}");
    }
    let told = stderr(&output(&mut wall_clock::shifted(lab.trafctl(&["dump"])?, "+8500y"))?);
    ensure!(told.contains("outside the years -9999 to 9999; set it"), "{told}");
    counts(&lab, &a, &b)
}
