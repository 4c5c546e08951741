//! What the linker, which generates the code, may use.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Headers stand at any address, and without this they are read byte by byte. The kernel takes it on machines that
    // read unaligned words at little cost, x86-64 and arm64 among them.
    println!("cargo::rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
}
