//! Compiles the kernel program and leaves it in `OUT_DIR/trafctl-ebpf`.

#[path = "build/type_information.rs"]
mod type_information;

fn main() -> anyhow::Result<()> {
    // SAFETY: single-threaded build script
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf") };
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "traffic-ebpf",
            root_dir: "../traffic-ebpf",
            no_default_features: false,
            features: &[],
        }],
        aya_build::Toolchain::Custom("bpf-web"),
    )?;
    type_information::mend(&std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("trafctl-ebpf"))
}
