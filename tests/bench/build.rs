//! Compiles the benchmark's kernel program and leaves it in `OUT_DIR/trafctl-ebpf`.

#[path = "../../traffic-user/build/kernel_program.rs"]
mod kernel_program;

fn main() {
    kernel_program::build(&["bench"]);
}
