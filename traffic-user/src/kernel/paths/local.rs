//! Seeing what is delivered to the node itself: on netfilter's hook (from Linux 6.4), else at the entry of the functions
//! behind it, which needs the kernel's function tracer.

use std::{
    collections::HashSet,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, bail};
use aya::{
    Btf, Ebpf,
    maps::{Map, MapData},
    programs::FEntry,
};
use aya_obj::generated::bpf_insn;
use traffic_common::{PATH_LOCAL_PROGRAM, PATH_LOCAL_V4_PROGRAM, PATH_LOCAL_V6_PROGRAM};

use super::{OBJECT, program};
use crate::kernel::{sys::netfilter, verdict::verdict};

/// Programs and the kernel's functions behind its last input hook.
const FUNCTIONS: [(&str, &str); 2] =
    [(PATH_LOCAL_V4_PROGRAM, "ip_local_deliver_finish"), (PATH_LOCAL_V6_PROGRAM, "ip6_input_finish")];

/// What keeps the program attached to netfilter. Where it is attached to functions, the object keeps that.
#[derive(Debug)]
pub(super) struct Attached(#[expect(dead_code, reason = "only held")] Vec<OwnedFd>);

/// Attaches the programs in one of the two ways.
///
/// # Errors
/// When the kernel offers neither.
pub(super) fn attach(object: &mut Ebpf, types: &Btf) -> anyhow::Result<Attached> {
    let error = match on_netfilter(object) {
        Ok(attached) => return Ok(attached),
        Err(error) => error,
    };
    for (name, function) in FUNCTIONS {
        let program: &mut FEntry = program(object, name)?.try_into()?;
        if let Err(refused) = program.load(function, types) {
            bail!("{error:#}; and its tracer does not show {function}: {}", verdict(name, &refused));
        }
    }
    // Not one without the other.
    for (name, function) in FUNCTIONS {
        let program: &mut FEntry = program(object, name)?.try_into()?;
        program.attach().with_context(|| format!("cannot attach {name} to {function}"))?;
    }
    Ok(Attached(Vec::new()))
}

fn on_netfilter(object: &Ebpf) -> anyhow::Result<Attached> {
    let instructions = instructions(object)?;
    let program = netfilter::load(PATH_LOCAL_PROGRAM, &instructions)
        .context("the kernel takes no program of netfilter")?;
    if !netfilter::accepts(program.as_fd()).context("cannot try the program of netfilter")? {
        bail!("the program of netfilter would drop packets");
    }
    let links = netfilter::FAMILIES
        .map(|family| netfilter::attach_behind_input(program.as_fd(), family))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .context("cannot attach to netfilter's hook")?;
    Ok(Attached(links))
}

/// The program's instructions, with the maps of the object.
fn instructions(object: &Ebpf) -> anyhow::Result<Vec<bpf_insn>> {
    let mut parsed = aya_obj::Object::parse(OBJECT)?;
    let maps = std::mem::take(&mut parsed.maps);
    let sections: HashSet<usize> = parsed.functions.keys().map(|(section, _)| *section).collect();
    let in_use = maps.iter().map(|(name, map)| {
        let opened = object.map(name).and_then(descriptor);
        Ok((name.as_str(), opened.with_context(|| format!("the object file has no map {name}"))?, map))
    });
    let in_use = in_use.collect::<anyhow::Result<Vec<_>>>()?;
    parsed.relocate_maps(in_use.into_iter(), &sections)?;
    parsed.relocate_calls(&sections)?;
    let found = parsed.programs.get(PATH_LOCAL_PROGRAM).map(aya_obj::Program::function_key);
    let function = found.and_then(|key| parsed.functions.get(&key));
    Ok(function.context("the object file has no program for netfilter")?.instructions.clone())
}

fn descriptor(map: &Map) -> Option<RawFd> {
    let data: &MapData = match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd().as_raw_fd())
}
