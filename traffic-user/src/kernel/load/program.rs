//! This build's kernel program: loads it on the pinned maps, and pins it beside the one in use until that is
//! replaced.

use std::{fs, io, path::PathBuf, sync::LazyLock};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, SchedClassifier},
};
use sha2::{Digest as _, Sha256};
use traffic_common::{EGRESS_PROGRAM, INGRESS_MARK_PROGRAM, INGRESS_PROGRAM, blocks_of, gso::SkbLayout};

use super::Programs;
use crate::{
    config::Limits,
    kernel::{
        bpffs::Bpffs,
        maps::{OPTIONAL, PINNED, SHAPING_MARKS},
        memory, skb_layout,
    },
};

/// The kernel program, as the build script compiled it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/trafctl-ebpf"));

/// How the program is loaded.
#[derive(Clone, Copy)]
pub(super) struct Build<'l> {
    /// Sizes of maps that do not exist yet.
    pub(super) limits: &'l Limits,
    /// Write a log line for each fault.
    pub(super) log_faults: bool,
    /// Use the variant that writes the skb mark.
    pub(super) skb_mark: bool,
}

impl Build<'_> {
    /// The name in the object of the program for a container's ingress hook.
    const fn ingress(self) -> &'static str {
        if self.skb_mark { INGRESS_MARK_PROGRAM } else { INGRESS_PROGRAM }
    }

    /// The hash to be recorded for the program. A program that writes log lines has none, so that no other
    /// command takes it for the usual one.
    pub(super) fn hash(self) -> [u8; 32] {
        if self.log_faults { [0; 32] } else { program_hash(self.skb_mark) }
    }
}

/// A program just loaded, pinned beside the one in use.
pub(super) struct Fresh {
    pub(super) hash: [u8; 32],
    pub(super) programs: Programs,
    pub(super) log: Option<Ebpf>,
    pub(super) skb_layout_error: Option<skb_layout::LayoutError>,
}

/// Loads the program on the pinned maps, creates the maps that are missing, and pins the program beside the
/// one in use.
pub(super) fn load_program(bpffs: &Bpffs, build: Build<'_>) -> anyhow::Result<Fresh> {
    let (layout, error) = match skb_layout::of_running_kernel() {
        Ok(layout) => (layout, None),
        Err(error) => (skb_layout::unknown(), Some(error)),
    };
    match load_with_layout(bpffs, build, &layout) {
        Ok((programs, log)) => Ok(Fresh { hash: build.hash(), programs, log, skb_layout_error: error }),
        // Counting by the plain rule is far better than not counting. The first error is the one to report if
        // reading the kernel's memory was not what the kernel refused.
        Err(refused) if layout.known != 0 && refused.is::<Refused>() => {
            let Ok((programs, log)) = load_with_layout(bpffs, build, &skb_layout::unknown()) else {
                return Err(refused);
            };
            tracing::debug!("{refused:#}");
            let skb_layout_error = Some(skb_layout::LayoutError::Helper);
            Ok(Fresh { hash: build.hash(), programs, log, skb_layout_error })
        }
        Err(error) => Err(error),
    }
}

/// Why the kernel refused the program, in one line: the verifier's log has hundreds.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused program {name}: {reason}")]
struct Refused {
    name: &'static str,
    reason: String,
}

impl Refused {
    fn new(name: &'static str, error: &ProgramError) -> Self {
        let reason = match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                let log = verifier_log.to_string();
                tracing::debug!("the verifier's log of {name}: {log}");
                // The last line that is not a statistic.
                let line = log.lines().rev().find(|line| {
                    !line.trim().is_empty()
                        && !["processed ", "verification time", "stack depth"]
                            .iter()
                            .any(|of| line.starts_with(of))
                });
                line.map_or_else(|| io_error.to_string(), |line| format!("{line} ({io_error})"))
            }
            other => other.to_string(),
        };
        Self { name, reason }
    }
}

/// Loads and pins the programs with what is known of the kernel.
fn load_with_layout(
    bpffs: &Bpffs,
    build: Build<'_>,
    layout: &SkbLayout,
) -> anyhow::Result<(Programs, Option<Ebpf>)> {
    let mut object = load_object(bpffs, build, layout)?;
    for (name, in_object) in [(INGRESS_PROGRAM, build.ingress()), (EGRESS_PROGRAM, EGRESS_PROGRAM)] {
        let program = object
            .program_mut(in_object)
            .with_context(|| format!("the object file has no program {in_object}"))?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load().map_err(|error| Refused::new(name, &error))?;
        let path = fresh_path(bpffs, name);
        if fs::exists(&path)? {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        program.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
    }
    let programs = open_programs(|name| fresh_path(bpffs, name))?;
    Ok((programs, build.log_faults.then_some(object)))
}

/// Opens the pinned maps for the object, and creates the missing ones in the sizes of the limits.
fn load_object(bpffs: &Bpffs, build: Build<'_>, layout: &SkbLayout) -> anyhow::Result<Ebpf> {
    let limits = build.limits;
    let log_level = if build.log_faults { u8::MAX } else { 0 };
    let paths: Vec<_> = PINNED.into_iter().chain(OPTIONAL).map(|name| (name, bpffs.map(name))).collect();
    let mut loader = EbpfLoader::new();
    loader.override_global("SKB_LAYOUT", layout, true).override_global("AYA_LOG_LEVEL", &log_level, true);
    for (name, path) in &paths {
        loader.map_pin_path(name, path);
        if let Some(entries) = entries_of(name, limits)? {
            loader.map_max_entries(name, entries);
        }
    }
    memory::lift_limit();
    loader.load(OBJECT).context(
        "the kernel refused the maps; trafctl needs root (or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON), a \
         kernel with BPF, and memory for the counters (see [limits] in the configuration)",
    )
}

/// The number of elements of a map that depends on the limits; `None` for all others.
pub(super) fn entries_of(map: &str, limits: &Limits) -> anyhow::Result<Option<u32>> {
    Ok(Some(match map {
        "ADDRESSES_V4" | "ADDRESSES_V6" => limits.addresses,
        "CLASS_COUNTERS" => limits
            .containers
            .checked_mul(blocks_of(limits.classes))
            .context("limits: containers * classes is too large")?,
        "CLASS_BASES" | "CLASS_CARRIED" => limits
            .containers
            .checked_mul(limits.classes)
            .context("limits: containers * classes is too large")?,
        "INTERFACES" | "INTERFACE_COUNTERS" | "INTERFACE_BASES" | "INTERFACE_CARRIED" | "FAULT_COUNTERS"
        | "FAULT_BASES" | "FAULT_CARRIED" => limits.interfaces,
        "CONTAINERS" | SHAPING_MARKS => limits.containers,
        _ => return Ok(None),
    }))
}

/// Where a program is pinned until it replaces the pinned one.
fn fresh_path(bpffs: &Bpffs, name: &str) -> PathBuf {
    bpffs.program(&format!("{name}_fresh"))
}

/// Renames the new programs over the pinned ones, so that there is a pinned program at every instant.
pub(super) fn publish_programs(bpffs: &Bpffs) -> anyhow::Result<()> {
    for name in [INGRESS_PROGRAM, EGRESS_PROGRAM] {
        let path = bpffs.program(name);
        match fs::rename(fresh_path(bpffs, name), &path) {
            // An interrupted call has renamed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => {}
            other => other.with_context(|| format!("cannot pin {}", path.display()))?,
        }
    }
    Ok(())
}

/// Opens the two pinned programs.
pub(super) fn open_programs(path: impl Fn(&str) -> PathBuf) -> anyhow::Result<Programs> {
    let open = |name| {
        let path = path(name);
        SchedClassifier::from_pin(&path)
            .with_context(|| format!("cannot open the pinned program {}", path.display()))
    };
    Ok(Programs { ingress: open(INGRESS_PROGRAM)?, egress: open(EGRESS_PROGRAM)? })
}

/// SHA-256 that names this build's program: of the object file, followed by the name of the ingress program
/// if that is the variant that writes the skb mark.
pub fn program_hash(skb_mark: bool) -> [u8; 32] {
    static OF_OBJECT: LazyLock<Sha256> = LazyLock::new(|| Sha256::new_with_prefix(OBJECT));
    let mut hash = OF_OBJECT.clone();
    if skb_mark {
        hash.update(INGRESS_MARK_PROGRAM);
    }
    hash.finalize().into()
}

/// Whether the program with this hash writes the skb mark; `None` for a program of another build.
pub fn writes_skb_mark(hash: &[u8; 32]) -> Option<bool> {
    [false, true].into_iter().find(|&skb_mark| program_hash(skb_mark) == *hash)
}

/// This build's version as one comparable number, in the form of `Meta::program_version`.
pub fn version_number() -> u32 {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0) & 0x3ff;
    part(env!("CARGO_PKG_VERSION_MAJOR")) << 20
        | part(env!("CARGO_PKG_VERSION_MINOR")) << 10
        | part(env!("CARGO_PKG_VERSION_PATCH"))
}

/// Writes a version number as text: `0.2.0`.
pub fn version_text(number: u32) -> String {
    format!("{}.{}.{}", number >> 20, number >> 10 & 0x3ff, number & 0x3ff)
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSection as _};

    use super::OBJECT;

    #[test]
    fn the_object_depends_on_no_directory_and_has_only_what_a_node_needs() {
        let object = object::File::parse(OBJECT).unwrap();
        let size = |name: &str| object.section_by_name(name).map_or(0, |section| section.size());
        for name in ["classifier", ".maps", ".BTF", ".BTF.ext"] {
            assert!(size(name) > 0, "{name}");
        }
        for section in object.sections() {
            let name = section.name().unwrap();
            assert!(!name.contains(".debug_") || section.size() == 0, "{name}: {} bytes", section.size());
        }
        let manifest = env!("CARGO_MANIFEST_DIR");
        let workspace = manifest.strip_suffix("/traffic-user").unwrap();
        let has = |text: &str| OBJECT.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        for path in [workspace, "/registry/src/", "/.cargo/", "/.rustup/"] {
            assert!(!has(path), "{path}");
        }
        // The kernel's verifier names these places.
        assert!(has("/usr/src/trafctl/traffic-ebpf/src/main.rs"));
    }
}
