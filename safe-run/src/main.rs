//! The `safe-run` program.

fn main() -> std::process::ExitCode {
    safe_run::cli::main()
}
