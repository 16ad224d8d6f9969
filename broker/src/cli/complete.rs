//! `callboard completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::output::Failure;

/// Print completions for a shell.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(completions: &Completions) -> Result<(), Failure> {
    let mut out = Vec::new();
    clap_complete::generate(
        completions.shell,
        &mut super::Arguments::command(),
        "callboard",
        &mut out,
    );
    Ok(std::io::Write::write_all(
        &mut std::io::stdout().lock(),
        &out,
    )?)
}
