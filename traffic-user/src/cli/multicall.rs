//! The names of Virtuozzo's commands, under which this program can run: `vznetstat -a` is `trafctl vznetstat
//! -a`.

use std::{ffi::OsString, path::Path};

/// Commands that parse their arguments themselves.
const NAMES: [&str; 3] = ["vznetstat", "pnetstat", "vztactl"];

/// Splits a command line after the first word that is one of the names: clap parses the first part, the
/// command the rest. `None` if there is no such word, or if the rest is `--help`, which clap handles.
pub(super) fn split(args: &[OsString]) -> Option<(Vec<OsString>, Vec<OsString>)> {
    let is_name = |word: &OsString| NAMES.iter().any(|name| word == name);
    let (program, rest) = args.split_first()?;
    if let Some(name) = Path::new(program).file_name().filter(|name| is_name(&(*name).to_owned())) {
        return Some((vec!["trafctl".into(), name.to_owned()], rest.to_vec()));
    }
    let (ours, theirs) = args.split_at(1 + rest.iter().position(is_name)? + 1);
    (theirs != ["--help"]).then(|| (ours.to_vec(), theirs.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn split_line(line: &str) -> Option<(String, String)> {
        let join = |part: Vec<OsString>| part.join(" ".as_ref()).into_string().unwrap();
        split(&words(line)).map(|(ours, theirs)| (join(ours), join(theirs)))
    }

    #[test]
    fn a_line_is_split_after_the_name() {
        let both = |ours: &str, theirs: &str| Some((ours.to_owned(), theirs.to_owned()));
        assert_eq!(split_line("/usr/sbin/vznetstat -v 101"), both("trafctl vznetstat", "-v 101"));
        assert_eq!(split_line("pnetstat --help"), both("trafctl pnetstat", "--help"));
        assert_eq!(split_line("./trafctl -v pnetstat -v 1"), both("./trafctl -v pnetstat", "-v 1"));
        assert_eq!(split_line("trafctl --bpffs vznetstat"), both("trafctl --bpffs vznetstat", ""));
        assert_eq!(split_line("trafctl vznetstat --help"), None);
        assert_eq!(split_line("trafctl dump"), None);
        assert_eq!(split_line("vznetstat-old"), None);
    }

    #[test]
    fn words_after_the_name_are_not_parsed_by_clap() {
        let arguments = |line: &str| {
            let mut cli = Cli::from_args(words(line)).unwrap();
            cli.command.foreign_arguments().map(|arguments| arguments.clone())
        };
        assert_eq!(arguments("trafctl -v --bpffs /b vznetstat -v 1 --bpffs"), Some(words("-v 1 --bpffs")));
        assert_eq!(arguments("vznetstat --format json"), Some(words("--format json")));
        // A name in the place of an option's value is a value.
        assert_eq!(arguments("trafctl --bpffs vznetstat dump"), None);
        assert_eq!(arguments("trafctl container retire pnetstat"), None);
    }
}
