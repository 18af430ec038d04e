//! `weir completion`: what a shell needs to complete commands and flags.

use clap::Args;
use clap_complete::{Shell, generate};

use crate::error::Result;
use crate::session::Session;

/// Completion for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Add to ~/.bashrc:  source <(weir completion bash)

Examples:
  $ weir completion bash
  $ weir completion zsh
  $ weir completion fish")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self, session: &Session) -> Result<()> {
        let mut script = Vec::new();
        generate(self.shell, &mut crate::args::command(), "weir", &mut script);
        session.print_bytes(&script)
    }
}
