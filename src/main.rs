//! Parse, run, print the error, exit code: nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    alokai::cli::main()
}
