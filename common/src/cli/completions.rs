//! Completion scripts, made from the command line's own definition.

pub use clap_complete::Shell;

/// The script for `shell`.
pub fn script<C: clap::CommandFactory>(shell: Shell) -> String {
    let mut command = C::command();
    let name = command.get_name().to_owned();
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
