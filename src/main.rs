//! Parses nothing and decides nothing: calls the command line and hands its exit code to the system.
//!
//! Invariant: everything that can be tested is in the library.

// The allocator that keeps the resident size flat under many small allocations on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    nightshift::cli::main()
}
