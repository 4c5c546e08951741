//! Options for the linker, which generates the code.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Headers have no alignment. Without this option they are read byte by byte. The kernel accepts unaligned
    // reads on machines where these are cheap, such as x86-64 and arm64.
    println!("cargo::rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
}
