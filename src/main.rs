//! The executable: the allocator and the exit code.
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = tollgate::cli::main();
    outcome.print();
    ExitCode::from(outcome.code)
}
