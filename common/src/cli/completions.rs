//! Completion scripts and manual pages, made from the command line's own definition.

pub use clap_complete::Shell;

/// The script for `shell`.
pub fn script<C: clap::CommandFactory>(shell: Shell) -> String {
    let mut command = C::command();
    let name = command.get_name().to_owned();
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The manual page, in roff: the program's own, then one section for each command.
pub fn manual<C: clap::CommandFactory>() -> crate::Result<String> {
    let mut command = C::command();
    // Gives the commands their full names, such as backup-create.
    command.build();
    let mut bytes = Vec::new();
    let commands = command.get_subcommands().filter(|command| command.get_name() != "help").cloned();
    for page in std::iter::once(command.clone()).chain(commands) {
        clap_mangen::Man::new(page)
            .render(&mut bytes)
            .map_err(|source| crate::Error::failed(format!("could not write the manual page: {source}")))?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
