//! Compiles the kernel program into `OUT_DIR/trafctl-ebpf`.

#[path = "build/kernel_program.rs"]
mod kernel_program;

fn main() {
    kernel_program::build(&[]);
}
