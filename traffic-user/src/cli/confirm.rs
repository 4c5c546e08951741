//! The confirmation of commands that cannot be undone: without `--yes` they show what they would do.

use clap::Args;

use crate::cli::Done;

/// The confirmation.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Confirm {
    /// Do it; without this, only show what would be done
    ///
    /// This cannot be undone. Without --yes, nothing is changed and the status is 1, so that a script does not
    /// take it for done.
    #[arg(long)]
    pub yes: bool,
}

impl Confirm {
    /// How the command ends when it succeeded, or showed what it would do.
    pub const fn done(self) -> Done {
        if self.yes { Done::Success } else { Done::ProblemsFound }
    }
}
