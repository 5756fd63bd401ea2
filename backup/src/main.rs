//! The `backup` program.

fn main() -> std::process::ExitCode {
    backup::cli::main()
}
