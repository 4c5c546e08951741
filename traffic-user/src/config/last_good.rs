//! The configuration that was last read without a mistake, kept in the state directory.
//!
//! Somebody saves a bad line, or an editor removes the file for a moment. Meanwhile containers start, and the
//! daemon may be restarted. They must be counted as before, so the last good text is used and the mistake is
//! reported. The text belongs to one path: another `--config` never gets it.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    config::{Config, ConfigError},
    files,
    state_file::{self, StateLock},
};

/// Name of the copy in the state directory.
const FILE_NAME: &str = "last-good.toml";
/// Largest copy, in bytes: the configuration and its heading.
const MOST_BYTES: u64 = files::MOST_CONFIG_BYTES + 16_384;
/// First line of the copy. The path of the original follows.
const HEADING: &str =
    "# The last configuration without a mistake, kept by trafctl in case that the next one has one. Of ";

/// A configuration to work with, and where it comes from.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The configuration.
    pub config: Config,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Why the file itself is not used; `None` if it is.
    pub mistake: Option<Mistake>,
    /// The file and its text, if that is used.
    good: Option<SourceText>,
    /// The copy of the last good text, if that is used.
    kept: Option<SourceText>,
}

/// A text that a configuration was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// The file: the configuration itself, or the copy of the last good one.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// A mistake in the configuration file, and what is used instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, the place in it, and what is wrong.
    pub error: String,
    used: Used,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Used {
    LastGood,
    Defaults,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = match self.used {
            Used::LastGood => "until that is corrected, the last configuration without a mistake is used",
            Used::Defaults => "until that is corrected, this command uses the defaults",
        };
        write!(f, "{}; {used}", self.error)
    }
}

impl Config {
    /// As [`Config::load`]. If the file has a mistake or is gone, takes the last good text that
    /// [`Origin::keep`] kept of it.
    ///
    /// # Errors
    /// As [`Config::load`], if no text of this file was kept, or that is unusable too.
    pub fn load_or_last_good(explicit: Option<&Path>, state_dir: &Path) -> Result<Chosen, ConfigError> {
        let path = explicit.unwrap_or(Path::new(super::DEFAULT_PATH));
        let kept = || last_good(path, state_dir);
        let read = Self::read(explicit).and_then(|text| {
            let config = Self::parse(text.as_deref().unwrap_or(""), path)?;
            Ok((config, text))
        });
        let (error, (last, kept)) = match read {
            Ok((config, Some(text))) => {
                let good = Some(SourceText { path: path.to_owned(), text });
                return Ok(Chosen { config, origin: Origin { good, ..Origin::default() } });
            }
            // The default file may be absent. One that was in force is not given up in silence.
            Ok((defaults, None)) => match kept().filter(|(last, _)| *last != defaults) {
                Some(last) => (ConfigError::Gone { path: path.to_owned() }, last),
                None => return Ok(Chosen { config: defaults, origin: Origin::default() }),
            },
            Err(error) => match kept() {
                Some(last) => (error, last),
                None => return Err(error),
            },
        };
        let mistake = Some(Mistake { error: text_of(error), used: Used::LastGood });
        Ok(Chosen { config: last, origin: Origin { mistake, kept: Some(kept), good: None } })
    }

    /// As [`Config::load_or_last_good`], for a command that only shows what is there: without a last good
    /// text it takes the defaults.
    pub fn load_to_show(explicit: Option<&Path>, state_dir: &Path) -> Chosen {
        let chosen = Self::load_or_last_good(explicit, state_dir).or_else(|error| {
            let defaults = Self::parse("", Path::new(super::DEFAULT_PATH))?;
            let mistake = Some(Mistake { error: text_of(error), used: Used::Defaults });
            Ok::<_, ConfigError>(Chosen { config: defaults, origin: Origin { mistake, ..Origin::default() } })
        });
        // An empty text has no mistake.
        #[expect(clippy::unwrap_used, reason = "the defaults are valid, and a test reads them")]
        chosen.unwrap()
    }
}

impl Origin {
    /// The text that the configuration was read from; `None` if all settings are defaults.
    pub fn source(&self) -> Option<&SourceText> {
        self.good.as_ref().or(self.kept.as_ref())
    }

    /// Keeps the text of a configuration that has no mistake. Writes nothing if it is kept already. While
    /// another process writes files there, it is left to the next call.
    ///
    /// # Errors
    /// When the copy cannot be written.
    pub fn keep(&self, state_dir: &Path) -> anyhow::Result<()> {
        let Some(SourceText { path, text }) = &self.good else { return Ok(()) };
        let copy = format!("{}\n{text}", heading(path));
        let mode_of = |path: &Path| fs::metadata(path).map(|metadata| metadata.mode() & 0o640);
        // Nobody else may read the copy than the original.
        let mode = mode_of(path).unwrap_or(0o600) | 0o600;
        let kept_at = state_dir.join(FILE_NAME);
        let is_kept = state_file::read(&kept_at, MOST_BYTES)
            .is_ok_and(|kept| kept.is_some_and(|kept| kept == copy.as_bytes()))
            && mode_of(&kept_at).is_ok_and(|kept| kept == mode);
        if is_kept {
            return Ok(());
        }
        match StateLock::try_take(state_dir)? {
            Some(lock) => lock.replace_with_mode(FILE_NAME, copy.as_bytes(), MOST_BYTES, mode),
            None => Ok(()),
        }
    }
}

/// The first line of the copy. The path is quoted, because it may contain a line end.
fn heading(path: &Path) -> String {
    format!("{HEADING}{:?}", place(path))
}

/// The directory entry that a path means, however it is spelled. The last component stays as it is: the file
/// may be gone, or a link to another one.
fn place(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (Some(directory), Some(name)) = (absolute.parent(), absolute.file_name()) else { return absolute };
    directory.canonicalize().map_or_else(|_| absolute.clone(), |directory| directory.join(name))
}

/// What keeps the copy from being written or used, which shows only on the day when it is needed.
pub fn problem(state_dir: &Path) -> Option<String> {
    let why = "there is no configuration to fall back on once the file has a mistake";
    if let Err(error) = state_file::read(&state_dir.join(FILE_NAME), MOST_BYTES) {
        return Some(format!("{error:#}; remove it: {why}"));
    }
    // Root may write wherever the file system lets anybody.
    let writable = rustix::fs::access(state_dir, rustix::fs::Access::WRITE_OK);
    (writable == Err(rustix::io::Errno::ROFS)).then(|| {
        format!(
            "{}: the file system is read-only; mount it for writing: the ledger gets no traffic, and {why}",
            state_dir.display()
        )
    })
}

/// The last good configuration of this file.
fn last_good(path: &Path, state_dir: &Path) -> Option<(Config, SourceText)> {
    let kept_at = state_dir.join(FILE_NAME);
    let bytes = state_file::read(&kept_at, MOST_BYTES).ok()??;
    let copy = files::text(bytes).ok()?;
    // Earlier versions wrote the path as it was spelled.
    let as_spelled = std::path::absolute(path).map(|path| format!("{HEADING}{path:?}"));
    let text = [Some(heading(path)), as_spelled.ok()]
        .into_iter()
        .flatten()
        .find_map(|heading| copy.strip_prefix(&heading)?.strip_prefix('\n'))?;
    let config = Config::parse(text, path).ok()?;
    // With its heading, a comment, so that lines are those of the copy.
    Some((config, SourceText { path: kept_at, text: copy }))
}

/// The error with its cause.
fn text_of(error: ConfigError) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::files::tests::{at_once, odd_files};

    const GOOD: &str = "[node]\nname = 'n7'\nuplinks = ['eno1']\n";

    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap() }
        }

        fn file(&self) -> PathBuf {
            self.directory.path().join("trafctl.toml")
        }

        fn state(&self) -> PathBuf {
            self.directory.path().join("state")
        }

        fn load(&self) -> Result<Chosen, ConfigError> {
            let (file, state) = (self.file(), self.state());
            at_once("loading", move || Config::load_or_last_good(Some(&file), &state))
        }

        fn keep_good(&self) {
            fs::write(self.file(), GOOD).unwrap();
            let chosen = self.load().unwrap();
            assert_eq!(chosen.origin.mistake, None);
            chosen.origin.keep(&self.state()).unwrap();
            chosen.origin.keep(&self.state()).unwrap();
        }
    }

    #[test]
    fn whatever_is_wrong_with_the_file_the_last_good_text_is_used_and_the_mistake_named() {
        let mistakes: [(&[u8], &str); 7] = [
            (b"nod = 'x'\n", ":1:1: unknown field `nod`"),
            (b"[node]\nname = 'x\n", ":2:"),
            (b"[limits]\n\nclasses = 0\n", ":3:11: classes = 0 is out of range"),
            (b"[drain]\ninterval = '1 parsec'\n", ":2:12: "),
            (b"[api]\nlisten = '0.0.0.0:80'\n", ":2:10: "),
            (b"node = 'caf\xe9'\n", "it is not UTF-8 text (byte 11)"),
            (b"\0\0\0\0", ":1:"),
        ];
        for (bytes, place) in mistakes {
            let at = Place::new();
            fs::write(at.file(), bytes).unwrap();
            assert!(at.load().is_err(), "nothing is known yet: {place}");
            at.keep_good();
            fs::write(at.file(), bytes).unwrap();
            let Chosen { config, origin } = at.load().unwrap();
            assert_eq!((config.node.as_str(), &config.uplinks[..]), ("n7", &["eno1".to_owned()][..]));
            let mistake = origin.mistake.as_ref().unwrap().to_string();
            assert!(mistake.contains(place) && mistake.contains("trafctl.toml"), "{place}: {mistake}");
            assert!(mistake.ends_with("the last configuration without a mistake is used"), "{mistake}");
            // It does not become the good one.
            origin.keep(&at.state()).unwrap();
            assert_eq!(at.load().unwrap().config.node, "n7");
        }
    }

    #[test]
    fn what_stands_in_the_place_of_the_file_is_a_mistake_too() {
        let odd = tempfile::tempdir().unwrap();
        for (target, reason) in odd_files(odd.path()) {
            let at = Place::new();
            at.keep_good();
            fs::remove_file(at.file()).unwrap();
            std::os::unix::fs::symlink(&target, at.file()).unwrap();
            let chosen = at.load().unwrap();
            assert_eq!(chosen.config.node, "n7");
            let mistake = chosen.origin.mistake.unwrap().to_string();
            assert!(mistake.contains(reason), "{mistake}");
        }
        let at = Place::new();
        at.keep_good();
        fs::remove_file(at.file()).unwrap();
        let mistake = at.load().unwrap().origin.mistake.unwrap().to_string();
        assert!(mistake.contains("No such file"), "{mistake}");
    }

    #[test]
    fn a_text_belongs_to_its_path_and_a_damaged_copy_is_none() {
        let at = Place::new();
        at.keep_good();
        let other = at.directory.path().join("other.toml");
        fs::write(&other, "nonsense").unwrap();
        assert!(Config::load_or_last_good(Some(&other), &at.state()).is_err());
        fs::write(at.file(), "nonsense").unwrap();
        for damage in [&b"\xff\xfe"[..], b"", b"# another heading\nnode = 'x'\n"] {
            fs::write(at.state().join(FILE_NAME), damage).unwrap();
            assert!(at.load().is_err(), "{damage:?}");
        }
    }

    #[test]
    fn the_spelling_of_the_path_does_not_matter() {
        let at = Place::new();
        at.keep_good();
        fs::write(at.file(), "nonsense").unwrap();
        let other = tempfile::tempdir().unwrap();
        let link = other.path().join("link");
        std::os::unix::fs::symlink(at.directory.path(), &link).unwrap();
        let spellings =
            [at.directory.path().join("state/../trafctl.toml"), link.join("trafctl.toml"), at.file()];
        for path in &spellings {
            let chosen = Config::load_or_last_good(Some(path), &at.state()).unwrap();
            assert_eq!(chosen.config.node, "n7", "{path:?}");
        }
        // As an earlier version wrote it.
        let spelled = format!("{HEADING}{:?}\n{GOOD}", link.join("trafctl.toml"));
        fs::write(at.state().join(FILE_NAME), spelled).unwrap();
        let chosen = Config::load_or_last_good(Some(&link.join("trafctl.toml")), &at.state()).unwrap();
        assert_eq!(chosen.config.node, "n7");
    }

    #[test]
    fn a_copy_that_could_not_be_used_is_a_problem_before_it_is_needed() {
        let at = Place::new();
        assert_eq!(problem(&at.state()), None);
        at.keep_good();
        assert_eq!(problem(&at.state()), None);
        let odd = tempfile::tempdir().unwrap();
        for (target, reason) in odd_files(odd.path()) {
            fs::remove_file(at.state().join(FILE_NAME)).unwrap();
            std::os::unix::fs::symlink(&target, at.state().join(FILE_NAME)).unwrap();
            let found = problem(&at.state()).unwrap();
            assert!(found.contains(reason) && found.contains("no configuration to fall back on"), "{found}");
        }
    }

    #[test]
    fn nobody_else_may_read_the_copy_than_the_file() {
        let at = Place::new();
        at.keep_good();
        for mode in [0o600, 0o640, 0o400, 0o644] {
            fs::set_permissions(at.file(), fs::Permissions::from_mode(mode)).unwrap();
            at.load().unwrap().origin.keep(&at.state()).unwrap();
            let kept = fs::metadata(at.state().join(FILE_NAME)).unwrap().mode() & 0o777;
            assert_eq!(kept, mode & 0o640 | 0o600, "{mode:o}");
        }
    }

    #[test]
    fn showing_needs_no_configuration_at_all() {
        let at = Place::new();
        fs::write(at.file(), "\nnod = 1\n").unwrap();
        let chosen = Config::load_to_show(Some(&at.file()), &at.state());
        let mistake = chosen.origin.mistake.unwrap().to_string();
        assert!(mistake.contains("trafctl.toml:2:1: unknown field") && mistake.ends_with("the defaults"));
    }

    #[test]
    fn a_busy_state_directory_is_not_waited_for() {
        let at = Place::new();
        fs::write(at.file(), GOOD).unwrap();
        let _held = StateLock::take(&at.state()).unwrap();
        let (origin, state) = (at.load().unwrap().origin, at.state());
        at_once("keeping", move || origin.keep(&state)).unwrap();
        assert!(!at.state().join(FILE_NAME).exists());
    }
}
