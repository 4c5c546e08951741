//! Compiles the kernel program into `OUT_DIR/trafctl-ebpf`. The files of the web page are read by a macro, which
//! sees no new ones by itself.

#[path = "build/kernel_program.rs"]
mod kernel_program;

fn main() {
    println!("cargo::rerun-if-changed=web");
    kernel_program::build(&[]);
}
