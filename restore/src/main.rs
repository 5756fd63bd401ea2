//! The `restore` program.

fn main() -> std::process::ExitCode {
    restore::cli::main()
}
