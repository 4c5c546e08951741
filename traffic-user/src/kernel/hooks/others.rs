//! Classifiers of other tools, which could put packets into a container past its interface.

use aya::programs::loaded_programs;

/// `BPF_PROG_TYPE_SCHED_CLS` and `BPF_PROG_TYPE_SCHED_ACT`: only these may call `bpf_redirect_peer`.
const CLASSIFIERS: [u32; 2] = [3, 4];

/// What the names of ours begin with.
const OURS: &[u8] = b"trafctl_";

/// Whether such a program is loaded on this host, or might be. Without CAP_SYS_ADMIN, nobody can tell.
pub fn may_redirect() -> bool {
    loaded_programs().any(|program| {
        program.map_or(true, |program| could_redirect(program.program_type() as u32, program.name()))
    })
}

fn could_redirect(kind: u32, name: &[u8]) -> bool {
    CLASSIFIERS.contains(&kind) && !name.starts_with(OURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_classifiers_of_others_could_redirect() {
        const TRACEPOINT: u32 = 5;
        for (kind, name, expected) in [
            (3, &b"cil_from_contai"[..], true),
            (4, b"", true),
            (3, b"trafctl_ingress", false),
            (TRACEPOINT, b"cil_from_contai", false),
        ] {
            assert_eq!(could_redirect(kind, name), expected, "{kind} {name:?}");
        }
    }
}
