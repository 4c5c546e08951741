//! The same scenario on the running kernel, and on other kernels in an emulated machine.

mod devices;
mod drops;
mod fetch;
mod hooks;
mod machine;
mod scenario;
mod tunnels;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use traffic_tests::lab::trafctl_program;

use crate::bench::{self, Bench};
use crate::evidence::{Evidence, Figure, Row};

pub use fetch::{Kernel, Source, copy_modules};
pub use machine::{Launch, Machine, Root, preamble};

/// The summary of this part.
pub const ABOUT: &str = "each kernel boots, loads the program, attaches it with links or \
    filters, counts, reloads, drains, marks, counts drops and detaches";

/// The oldest supported kernel, the long-term kernels of hosting nodes, the newest, and the newest where
/// programs may interleave on one CPU (`PREEMPT_RT`).
const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "7.3", "7.3-rt"];

/// The kernel that also runs [`tunnels`] and [`devices`]: the one with all their modules.
const WITH_MORE: &str = "6.12";

/// The modules of the lab; everything else is built in. The names are the kernel's, with underscores.
const MODULES: [&str; 24] = [
    "veth",
    "tun",
    "bridge",
    "stp",
    "llc",
    "nf_tables",
    "nfnetlink",
    "libcrc32c",
    "crc32c_generic",
    "nft_counter",
    "nft_payload",
    "nft_meta",
    "nft_set_hash",
    "nft_chain_filter",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "sch_fifo",
    "sch_htb",
    "cls_fw",
    "bpfilter",
    "af_packet",
    "crc32c_cryptoapi",
    "crc32_generic",
];

/// The programs that the lab runs.
const PROGRAMS: [&str; 6] = ["ip", "tc", "bridge", "nft", "nsenter", "ethtool"];

/// The prefix of the machine's lines that this part reads.
const MARK: &str = "PROOF:";

/// The limit for one kernel, emulated on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs the part.
pub fn run(bench: &Bench, evidence: &mut Evidence) -> Result<()> {
    evidence.note(bench::version(bench.program("qemu-system-x86_64"), "--version"));
    let directory = bench.cache_directory("kernels")?;
    let source = Source::new(directory.clone())?;
    let mut columns = Vec::new();
    bench.step("this kernel");
    let mut native = Evidence::default();
    let result = scenario::run(&mut native, 10);
    columns.push(Column::take("this machine's", native, result, evidence)?);
    for series in SERIES {
        bench.step(&format!("kernel {series}, emulated"));
        let mut found = Evidence::default();
        let result =
            source.kernel(series).and_then(|kernel| emulated(bench, &kernel, &directory, series, &mut found));
        columns.push(Column::take(series, found, result, evidence)?);
    }
    evidence.table(features(&columns));
    let failures: Vec<String> = columns.into_iter().filter_map(|column| column.failure).collect();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

/// Boots a kernel and reads the evidence of the scenario in it.
fn emulated(
    bench: &Bench,
    kernel: &Kernel,
    directory: &Path,
    series: &str,
    found: &mut Evidence,
) -> Result<()> {
    let root = Root::new(directory.join(format!("{series}-root")))?;
    for program in PROGRAMS {
        root.program(Path::new(program), &format!("bin/{program}"))?;
    }
    root.program(&trafctl_program()?, "bin/trafctl")?;
    root.program(&std::env::current_exe().context("cannot find this program")?, "bin/prove")?;
    let mut modules = MODULES.to_vec();
    modules.push(drops::MODULE);
    let mut loaded = vec!["veth", "tun", "bridge", "nf_tables", "sch_ingress", "cls_bpf"];
    let has_more = series == WITH_MORE;
    if has_more {
        modules.extend(tunnels::MODULES.into_iter().chain(devices::MODULES));
        loaded.extend(tunnels::LOADED.into_iter().chain(devices::LOADED));
        root.program(Path::new(devices::PROGRAM), &format!("bin/{}", devices::PROGRAM))?;
    }
    copy_modules(kernel, &modules, root.path())?;
    root.script(
        "init",
        &format!(
            "{}TRAFCTL_BIN=/bin/trafctl /bin/prove --guest{} 2>&1\nbusybox poweroff -f\n",
            preamble(&loaded)?,
            if has_more { " --more" } else { "" }
        ),
    )?;
    let archive = directory.join(format!("{series}.img"));
    root.pack(&archive)?;
    let launch = Launch { wrap: None, devices: &[], limit: LIMIT };
    let log = directory.join(format!("{series}.log"));
    let machine = Machine::start(bench, kernel, &archive, &log, &launch)?;
    while let Some(line) = machine.next(MARK)? {
        let value: serde_json::Value =
            serde_json::from_str(&line).with_context(|| format!("cannot read {line}"))?;
        if let Some(failure) = value["failure"].as_str() {
            bail!("{failure}");
        }
        if let Some(note) = value["note"].as_str() {
            found.note(note);
            continue;
        }
        if value["end"] == true {
            return Ok(());
        }
        found.row(received(&value)?);
    }
    bail!("the machine ended before the scenario; its log is {}", log.display())
}

/// The other end: runs the scenario and prints its evidence, one item in each line.
///
/// # Errors
///
/// None: a failure is printed, too.
pub fn guest(has_more: bool) -> Result<()> {
    let mut evidence = Evidence::default();
    let mut result = scenario::run(&mut evidence, 2);
    if has_more {
        result = result.and_then(|()| tunnels::run(&mut evidence)).and_then(|()| devices::run(&mut evidence));
    }
    let send = |value: serde_json::Value| crate::print(&format!("{MARK} {value}\n"));
    for note in evidence.notes {
        send(json!({ "note": note }));
    }
    for row in evidence.rows {
        let figures: Vec<_> =
            row.figures.iter().map(|figure| json!([figure.name, figure.witness, figure.trafctl])).collect();
        send(json!({ "case": row.case, "sent": row.sent, "witness": row.witness, "figures": figures }));
    }
    match result {
        Ok(()) => send(json!({ "end": true })),
        Err(error) => send(json!({ "failure": format!("{error:#}") })),
    }
    Ok(())
}

fn received(value: &serde_json::Value) -> Result<Row> {
    let text = |name: &str| value[name].as_str().with_context(|| format!("no {name} in {value}"));
    let mut row = Row::new(text("case")?, text("sent")?, text("witness")?);
    for figure in value["figures"].as_array().context("no figures")? {
        row.figures.push(Figure {
            name: figure[0].as_str().context("a figure has no name")?.to_owned(),
            witness: figure[1].as_u64().context("a figure has no witness")?,
            trafctl: figure[2].as_u64().context("trafctl's figure")?,
        });
    }
    Ok(row)
}

/// The results of one kernel, for the table.
struct Column {
    kernel: String,
    results: Vec<(String, bool)>,
    failure: Option<String>,
}

impl Column {
    /// Adds the rows of one kernel to the evidence, under its name.
    fn take(name: &str, found: Evidence, result: Result<()>, all: &mut Evidence) -> Result<Self> {
        let release = found.notes.iter().find_map(|note| note.strip_prefix("kernel "));
        let kernel = release.map_or_else(|| name.to_owned(), |release| format!("{release} ({name})"));
        let results = found.rows.iter().map(|row| (row.case.clone(), row.agrees())).collect();
        for mut row in found.rows {
            row.case = format!("{name}: {}", row.case);
            all.rows.push(row);
        }
        all.notes.extend(found.notes);
        let failure = result.err().map(|error| format!("{name}: {error:#}"));
        if let Some(failure) = &failure {
            eprintln!("  ✗ {failure}");
        }
        Ok(Self { kernel, results, failure })
    }
}

/// The table of kernels and features.
fn features(columns: &[Column]) -> String {
    const FEATURES: [(&str, &str); 7] = [
        ("loads, attaches", "loads, attaches by"),
        ("exact with offloads", "counts, offloads on"),
        ("exact without", "counts, offloads off"),
        ("exact after a reload", "counts after a reload"),
        ("drains", "drains"),
        ("marks", "marks for a shaper"),
        ("detaches", "detaches"),
    ];
    let mut text = String::from("| kernel |");
    for (name, _) in FEATURES {
        let _ = write!(text, " {name} |");
    }
    let _ = write!(text, "\n|---|{}\n", "---|".repeat(FEATURES.len()));
    for column in columns {
        let _ = write!(text, "| {} |", column.kernel);
        for (_, case) in FEATURES {
            let cell = match column.results.iter().find(|(name, _)| name.starts_with(case)) {
                Some((name, true)) => name.strip_prefix("loads, attaches by ").unwrap_or("yes"),
                Some((_, false)) => "**differs**",
                None => "**no**",
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}
