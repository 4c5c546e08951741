//! A shadow class table that was interrupted at any step, or whose record is damaged: it never costs a figure that is
//! billed, the next command ends it with all of its memory, and `status` has what is wrong.

use std::{
    fs, io, mem::offset_of, os::fd::AsFd as _, os::fd::AsRawFd as _, os::unix::process::CommandExt as _,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::{Value, json};
use traffic_common::{ARRAYS_PER_TABLE, Meta, SHADOW_ARRAYS, TableWord};
use traffic_tests::{
    Lab,
    check::{PATIENCE, is_well, is_well_but, rounds, stderr, trafctl},
    process::Process,
};

use crate::{
    kills::{instants, kill_after, length_of},
    node::{node, node_with, pair},
};

const DROP: [&str; 4] = ["classes", "shadow", "--drop", "--yes"];
const REPORT: [&str; 5] = ["classes", "shadow", "--report", "--format", "json"];
const SHADOW: &str = "1 0.0.0.0/0\n5 10.1.0.2/32\n1 ::/0\n";
const OTHER: &str = "1 0.0.0.0/0\n3 10.1.0.0/16\n1 ::/0\n";

/// The arrays of maps that a shadow uses, with their places.
const OUTER: [(&str, u32); 2] = [("SHADOW_LINES", ARRAYS_PER_TABLE), ("SHADOW_COUNTERS", SHADOW_ARRAYS)];

/// `BPF_MAP_LOOKUP_ELEM` and `BPF_MAP_DELETE_ELEM`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    Lookup = 1,
    Delete = 3,
}

/// Looks up or empties a place of an array of maps. Returns whether it held a map.
fn place(outer: &MapData, command: Element, place: u32) -> Result<bool> {
    #[repr(C)]
    struct Attributes {
        map_fd: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut id = 0_u32;
    let mut attributes = Attributes {
        map_fd: outer.fd().as_fd().as_raw_fd().cast_unsigned(),
        padding: 0,
        key: std::ptr::from_ref(&place) as u64,
        // A removal has no value.
        value: if command == Element::Lookup { std::ptr::from_mut(&mut id) as u64 } else { 0 },
        flags: 0,
    };
    let size = size_of::<Attributes>();
    // SAFETY: the attributes are a live, initialised prefix of `union bpf_attr`. Key and value of an array of maps have
    // 4 bytes each, and both words are live.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_int, std::ptr::from_mut(&mut attributes), size)
    };
    match io::Error::last_os_error() {
        _ if result >= 0 => Ok(true),
        error if error.kind() == io::ErrorKind::NotFound => Ok(false),
        error => Err(error.into()),
    }
}

fn outer(lab: &Lab, name: &str) -> Result<MapData> {
    Ok(MapData::from_pin(lab.bpffs().join("maps").join(name))?)
}

/// Places that hold a map, of each array of maps.
fn used(lab: &Lab) -> Result<[usize; 2]> {
    let mut used = [0; 2];
    for (used, (name, places)) in used.iter_mut().zip(OUTER) {
        let outer = outer(lab, name)?;
        for number in 0..places {
            *used += usize::from(place(&outer, Element::Lookup, number)?);
        }
    }
    Ok(used)
}

fn empty(lab: &Lab, places: std::ops::Range<u32>) -> Result<()> {
    OUTER.iter().try_for_each(|(name, _)| {
        let outer = outer(lab, name)?;
        places.clone().try_for_each(|number| place(&outer, Element::Delete, number).map(drop))
    })
}

/// Changes the one value of a pinned array.
fn change<const BYTES: usize>(lab: &Lab, map: &str, change: impl FnOnce(&mut [u8; BYTES])) -> Result<()> {
    let mut map = Map::from_map_data(outer(lab, map)?)?;
    let mut array = Array::<&mut MapData, [u8; BYTES]>::try_from(&mut map)?;
    let mut value = array.get(&0, 0)?;
    change(&mut value);
    Ok(array.set(0, value, 0)?)
}

fn turn_off(lab: &Lab) -> Result<()> {
    change::<8>(lab, "CLASS_CONTROL", |control| {
        let [a, b, c, d, ..] = *control;
        let word = TableWord(u32::from_ne_bytes([a, b, c, d])).with_shadow(false);
        control[..4].copy_from_slice(&word.0.to_ne_bytes());
    })
}

fn forget(lab: &Lab) -> Result<()> {
    fs::remove_file(lab.state_dir().join("shadow.json"))?;
    Ok(fs::remove_file(lab.state_dir().join("shadow-class-file"))?)
}

fn unpin(lab: &Lab) -> Result<()> {
    fs::read_dir(lab.bpffs().join("shadow"))?.try_for_each(|entry| Ok(fs::remove_file(entry?.path())?))
}

fn begin(lab: &Lab, text: &str) -> Result<()> {
    let file = lab.write("shadowed", text)?;
    lab.run_ok(&["classes", "shadow", "--yes", file.to_str().context("the path is not UTF-8")?]).map(drop)
}

/// Checks that nothing is left of a shadow.
fn is_gone(lab: &Lab) -> Result<()> {
    let pins = fs::read_dir(lab.bpffs().join("shadow"))?.count();
    let files = ["shadow.json", "shadow-class-file"].map(|name| lab.state_dir().join(name).exists());
    let left = (used(lab)?, pins, files);
    ensure!(left == ([0, 0], 0, [false, false]), "left: {left:?}");
    ensure!(lab.run_json(&["status", "--format", "json"])?["shadow"] == Value::Null);
    Ok(())
}

type Step = fn(&Lab) -> Result<()>;

/// What an interrupted end, start or renewal leaves, or an administrator.
const STEPS: [(&str, Step); 10] = [
    ("it counts", |_| Ok(())),
    ("it counts, and is not wanted any more", forget),
    ("it is wanted, and does not count", turn_off),
    ("it is off, and all of its maps are there", |lab| forget(lab).and_then(|()| turn_off(lab))),
    ("the first places are empty", |lab| {
        forget(lab)?;
        turn_off(lab)?;
        empty(lab, 0..20)
    }),
    ("all places are empty", |lab| {
        forget(lab)?;
        turn_off(lab)?;
        empty(lab, 0..SHADOW_ARRAYS)
    }),
    ("its places are full, and its pins are gone", |lab| {
        turn_off(lab)?;
        unpin(lab)
    }),
    ("it counts, and is not described", |lab| Ok(fs::remove_file(lab.bpffs().join("shadow/RECORD"))?)),
    ("its record is damaged", |lab| Ok(fs::write(lab.state_dir().join("shadow.json"), "{")?)),
    ("its record is damaged, and it does not count", |lab| {
        fs::write(lab.state_dir().join("shadow.json"), "[]")?;
        turn_off(lab)
    }),
];

#[test]
fn an_interruption_at_any_step_leaves_what_the_next_command_ends() -> Result<()> {
    let lab = node("shadow-steps")?;
    lab.run_ok(&["attach"])?;
    for (what, step) in STEPS {
        begin(&lab, SHADOW)?;
        let [lines, counters] = used(&lab)?;
        ensure!(lines > 0 && counters > 20, "{lines} arrays of lines and {counters} of counters");
        step(&lab).context(what)?;
        lab.run_ok(&DROP).context(what)?;
        is_gone(&lab).context(what)?;
        // Another one begins as well.
        begin(&lab, SHADOW)?;
        step(&lab).context(what)?;
        begin(&lab, OTHER).context(what)?;
        ensure!(used(&lab)? == [lines, counters], "{what}: {:?}", used(&lab)?);
        lab.run_json(&REPORT).context(what)?;
        is_well(&lab).context(what)?;
        lab.run_ok(&DROP).context(what)?;
        is_gone(&lab).context(what)?;
    }
    Ok(())
}

#[test]
fn a_killed_start_and_a_killed_drop_are_completed_by_the_next() -> Result<()> {
    let lab = node("shadow-kill")?;
    lab.run_ok(&["attach"])?;
    let file = lab.write("shadowed", SHADOW)?;
    let start = ["classes", "shadow", "--yes", file.to_str().context("the path is not UTF-8")?];
    let (starting, dropping) = (length_of(&lab, &start)?, length_of(&lab, &DROP)?);
    let mut cut_short = 0;
    for (start_delay, drop_delay) in instants(starting, rounds(9, 40)).zip(instants(dropping, rounds(9, 40)))
    {
        let at = || format!("killed after {start_delay:?} and {drop_delay:?}");
        cut_short += u32::from(kill_after(&lab, &start, start_delay)?);
        lab.run_ok(&start).with_context(at)?;
        is_well(&lab).with_context(at)?;
        cut_short += u32::from(kill_after(&lab, &DROP, drop_delay)?);
        let output = trafctl(&lab, &DROP)?;
        ensure!(
            output.status.success() || stderr(&output).contains("there is no shadow class table"),
            "{}: {}",
            at(),
            stderr(&output)
        );
        is_gone(&lab).with_context(at)?;
    }
    ensure!(cut_short >= 4, "only {cut_short} were killed before their end");
    Ok(())
}

#[test]
fn a_shadow_that_is_dropped_while_it_begins_anew_stays_dropped() -> Result<()> {
    let lab = node("shadow-race")?;
    lab.run_ok(&["attach"])?;
    let files = [lab.write("one", OTHER)?, lab.write("two", "1 0.0.0.0/0\n4 10.1.0.0/16\n1 ::/0\n")?];
    let load = |at: usize| {
        anyhow::Ok(["classes", "load", "--yes", files[at].to_str().context("the path is not UTF-8")?])
    };
    begin(&lab, SHADOW)?;
    let length = length_of(&lab, &load(1)?)?;
    for (round, delay) in instants(length, rounds(9, 40)).enumerate() {
        begin(&lab, SHADOW)?;
        let mut loading = Process::spawn(&mut lab.trafctl(&load(round % 2)?)?)?;
        // The delay is the subject of the test; this sleep does not wait for a condition.
        std::thread::sleep(delay);
        lab.run_ok(&DROP)?;
        ensure!(loading.wait(PATIENCE)?.success());
        is_gone(&lab).with_context(|| format!("dropped after {delay:?}"))?;
    }
    Ok(())
}

#[test]
fn a_shadow_that_begins_anew_does_not_outlive_a_purge() -> Result<()> {
    let lab = node("shadow-purge")?;
    lab.run_ok(&["attach"])?;
    let file = lab.write("one", OTHER)?;
    let load = ["classes", "load", "--yes", file.to_str().context("the path is not UTF-8")?];
    begin(&lab, SHADOW)?;
    let length = length_of(&lab, &load)?;
    for delay in instants(length, rounds(7, 30)) {
        lab.run_ok(&["attach"])?;
        begin(&lab, SHADOW)?;
        let mut loading = Process::spawn(&mut lab.trafctl(&load)?)?;
        // The delay is the subject of the test; this sleep does not wait for a condition.
        std::thread::sleep(delay);
        lab.run_ok(&["detach", "--purge", "--yes"])?;
        // It may have found no counters any more.
        loading.wait(PATIENCE)?;
        let left = ["shadow.json", "shadow-class-file"].map(|name| lab.state_dir().join(name).exists());
        ensure!(left == [false, false], "purged after {delay:?}: {left:?}");
    }
    Ok(())
}

#[test]
fn a_shadow_that_does_not_count_is_a_problem() -> Result<()> {
    let lab = node("shadow-problem")?;
    lab.run_ok(&["attach"])?;
    begin(&lab, SHADOW)?;
    is_well(&lab)?;
    // The content is lost, so that it cannot begin anew.
    fs::write(lab.state_dir().join("shadow-class-file"), "1 0.0.0.0/0\n")?;
    let other = lab.write("other", OTHER)?;
    let output = lab.trafctl(&["classes", "load", "--yes", other.to_str().context("a path")?])?.output()?;
    ensure!(output.status.success(), "the load does not fail for it");
    let why = "is not the content of the shadow class table any more";
    ensure!(stderr(&output).contains(why), "{}", stderr(&output));
    let problem = "shadowed: it does not count: ";
    is_well_but(&lab, &[problem])?;
    let status: Value = serde_json::from_slice(&trafctl(&lab, &["status", "--format", "json"])?.stdout)?;
    assert_eq!(status["problem_kinds"], json!(["shadow"]));
    let nagios = trafctl(&lab, &["status", "--nagios"])?;
    let said = String::from_utf8(nagios.stdout)?;
    ensure!(said.contains(problem) && said.contains(why), "{said}");
    lab.run_ok(&DROP)?;
    is_gone(&lab)?;

    // Without a daemon, nothing begins it anew.
    begin(&lab, SHADOW)?;
    turn_off(&lab)?;
    is_well_but(&lab, &["it does not count: the daemon, or `trafctl classes load`, begins it anew"])?;
    lab.run_ok(&["classes", "load", "--yes"])?;
    is_well(&lab)?;

    // A damaged record, and that of another file.
    let record = lab.state_dir().join("shadow.json");
    let good = fs::read_to_string(&record)?;
    fs::write(&record, "{")?;
    is_well_but(&lab, &["shadow.json, which names the shadow class table that is wanted"])?;
    let text = stderr(&trafctl(&lab, &["classes", "load", "--yes"])?);
    ensure!(text.contains("shadow.json, which names"), "the loader says so too: {text}");
    let shown = String::from_utf8(trafctl(&lab, &["status"])?.stdout)?;
    ensure!(shown.contains("shadow class table of a file that is not known counts since "), "{shown}");
    ensure!(lab.run_ok(&["classes", "shadow", "--report"])?.contains("a file that is not known any more"));
    let hash = serde_json::from_str::<Value>(&good)?["file_hash"].as_str().context("a hash")?.to_owned();
    fs::write(&record, good.replace(&hash, &"0".repeat(64)))?;
    is_well_but(&lab, &["another one counts, because the command that began it was interrupted"])?;
    let output = trafctl(&lab, &["classes", "shadow", "--drop"])?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(said.contains("of a file that is not known any more, since "), "{said}");
    lab.run_ok(&DROP)?;
    is_gone(&lab)
}

#[test]
fn a_second_shadow_that_fails_leaves_the_first_one_wanted() -> Result<()> {
    let lab = node("shadow-second")?;
    lab.run_ok(&["attach"])?;
    begin(&lab, SHADOW)?;
    let report = lab.run_json(&REPORT)?;
    let record = fs::read(lab.state_dir().join("shadow.json"))?;
    let second = |text: &str| {
        let file = lab.write("second", text)?;
        trafctl(&lab, &["classes", "shadow", "--yes", file.to_str().context("a path")?])
    };
    // More classes than there are columns for: it could not be promoted.
    let many: String = (1..=40).map(|class| format!("{class} 10.9.{class}.0/24\n")).collect();
    let output = second(&format!("{many}{SHADOW}"))?;
    let said = stderr(&output);
    ensure!(!output.status.success() && said.contains("no room to count class "), "{said}");
    ensure!(said.contains("what counts stays as it is"), "{said}");
    assert_eq!(lab.run_json(&REPORT)?["since"], report["since"]);
    assert_eq!(fs::read(lab.state_dir().join("shadow.json"))?, record);
    is_well(&lab)?;

    // Its content cannot be kept, when the first one has ended.
    let copy = lab.state_dir().join("shadow-class-file");
    let content = fs::read(&copy)?;
    fs::remove_file(&copy)?;
    fs::create_dir(&copy)?;
    let output = second(OTHER)?;
    let said = stderr(&output);
    ensure!(!output.status.success() && said.contains("the former shadow class table has ended"), "{said}");
    ensure!(!said.contains("stays as it is"), "{said}");
    assert_eq!(fs::read(lab.state_dir().join("shadow.json"))?, record);
    assert_eq!(used(&lab)?, [0, 0]);
    is_well_but(&lab, &["shadowed: it does not count: "])?;
    fs::remove_dir(&copy)?;
    fs::write(&copy, content)?;
    lab.run_ok(&["classes", "load", "--yes"])?;
    is_well(&lab)?;
    assert_eq!(lab.run_json(&REPORT)?["file_hash"], report["file_hash"]);
    Ok(())
}

#[test]
fn a_shadow_of_more_arrays_than_open_files_is_read_and_ended() -> Result<()> {
    const FILES: u64 = 128;
    let lab = node_with("shadow-many", "[limits]\ncontainers = 16384\n")?;
    let _containers = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    begin(&lab, SHADOW)?;
    let [_, counters] = used(&lab)?;
    ensure!(counters as u64 > FILES, "{counters} arrays");
    let limited = |arguments: &[&str]| {
        let mut command = lab.trafctl(arguments)?;
        let limit = Rlimit { current: Some(FILES), maximum: Some(FILES) };
        let set = move || -> io::Result<()> { Ok(setrlimit(Resource::Nofile, limit)?) };
        // SAFETY: the closure makes one system call, which is safe after a fork.
        unsafe { command.pre_exec(set) };
        let output = command.output()?;
        ensure!(!stderr(&output).contains("Too many open files"), "{}", stderr(&output));
        anyhow::Ok(String::from_utf8(output.stdout)?)
    };
    let report: Value = serde_json::from_str(&limited(&REPORT)?)?;
    assert_eq!(report["version"], 1);
    let status: Value = serde_json::from_str(&limited(&["status", "--format", "json"])?)?;
    assert_eq!((&status["shadow"]["in_force"], &status["problems"]), (&json!(true), &json!([])));
    ensure!(limited(&["classes", "shadow", "--drop"])?.contains("shadowed, since "));
    ensure!(limited(&DROP)?.contains("has ended"));
    is_gone(&lab)
}

#[test]
fn a_table_that_was_put_in_force_halfway_keeps_no_shadow() -> Result<()> {
    const HASH: usize = offset_of!(Meta, table_hash);
    let lab = node("shadow-halfway")?;
    lab.run_ok(&["attach"])?;
    let other = lab.write("other", OTHER)?;
    let load = ["classes", "load", "--yes", other.to_str().context("the path is not UTF-8")?];
    lab.run_ok(&load)?;
    let mut of_other = [0; 32];
    change::<{ size_of::<Meta>() }>(&lab, "META", |meta| of_other.copy_from_slice(&meta[HASH..][..32]))?;
    lab.run_ok(&["classes", "load", "--yes"])?;
    begin(&lab, SHADOW)?;
    // As a load leaves it that ended between the word and the hash.
    change::<{ size_of::<Meta>() }>(&lab, "META", |meta| meta[HASH..][..32].copy_from_slice(&of_other))?;
    lab.run_ok(&load)?;
    assert_eq!(lab.run_json(&REPORT)?["begun_anew"], "another class table was put in force");
    Ok(())
}
