//! A class file: parsed, compiled, queried and explained.

#![cfg_attr(fuzzing, no_main)]

#[path = "../checks/mod.rs"]
mod checks;
#[cfg(not(fuzzing))]
#[path = "../replay.rs"]
mod replay;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::classes::check(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    replay::run(checks::classes::check)
}
