//! Writes the man pages and the completions into a directory: `cargo xtask pages` runs it.

mod generate;

use std::{path::PathBuf, process::ExitCode};

#[expect(clippy::print_stdout, reason = "the result of the program")]
fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: pages DIRECTORY");
        return ExitCode::from(2);
    };
    match generate::write(&directory) {
        Ok(files) => {
            println!("{files} files in {}", directory.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: cannot write the pages: {error}");
            ExitCode::FAILURE
        }
    }
}
