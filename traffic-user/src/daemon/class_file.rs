//! The state of the class file as the daemon last saw it.

use crate::{class_source, config::Config};

/// The class file, and whether it is loaded.
pub(super) struct FollowedClassFile {
    /// What was examined last, in force or refused.
    pub seen: class_source::Seen,
    /// The file is good but could not be loaded; the load is retried.
    pub waiting: bool,
}

impl FollowedClassFile {
    /// Examines the file as it is now.
    pub(super) fn examine(config: &Config) -> Self {
        Self { seen: class_source::look(config), waiting: false }
    }

    /// Whether a good file still has to be loaded.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }
}
