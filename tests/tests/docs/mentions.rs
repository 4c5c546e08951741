//! Commands that the pages name in their text exist, with their options: `trafctl close --force`.

use std::collections::HashMap;
use std::process::Command;

use anyhow::{Result, ensure};
use traffic_tests::lab::trafctl_program;
use traffic_tests::process::run_ok;

use crate::markdown::{inline_code, pages, read};

/// The help of a command, for each that was asked for.
#[derive(Default)]
struct Helps(HashMap<Vec<String>, Option<String>>);

impl Helps {
    /// The help of a command; `None` if there is no such command.
    fn of(&mut self, words: &[String]) -> Result<Option<&str>> {
        if !self.0.contains_key(words) {
            let program = trafctl_program()?;
            let help = run_ok(Command::new(program).args(words).arg("--help")).ok();
            self.0.insert(words.to_vec(), help);
        }
        Ok(self.0.get(words).and_then(Option::as_deref))
    }

    /// What is wrong with a mentioned command.
    fn problem(&mut self, code: &str) -> Result<Option<String>> {
        let Some(rest) = code.strip_prefix("trafctl ") else { return Ok(None) };
        let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
        let mut path: Vec<String> = Vec::new();
        for word in words.iter().take_while(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
        {
            let listed = self.of(&path)?.is_some_and(|help| names_command(help, word));
            if !listed {
                break;
            }
            path.push(word.clone());
        }
        if path.is_empty() && !words[0].starts_with('-') {
            return Ok(Some(format!("trafctl has no command {}", words[0])));
        }
        let help = self.of(&path)?.unwrap_or_default().to_owned();
        for option in words.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
            let name = option.split('=').next().unwrap_or(option);
            let has = help.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| word == name);
            if !has {
                return Ok(Some(format!("`trafctl {}` has no option {name}", path.join(" "))));
            }
        }
        Ok(None)
    }
}

/// Whether a help lists a command.
fn names_command(help: &str, name: &str) -> bool {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let list = list.lines().take_while(|line| line.starts_with("  "));
    list.filter(|line| !line.starts_with("   ")).any(|line| line.split_whitespace().next() == Some(name))
}

#[test]
fn every_mentioned_command_exists() -> Result<()> {
    let mut helps = Helps::default();
    let (mut problems, mut seen) = (Vec::new(), 0);
    for page in pages()? {
        for (line, code) in inline_code(&read(&page)?) {
            seen += usize::from(code.starts_with("trafctl "));
            problems.extend(helps.problem(&code)?.map(|reason| format!("{page}:{line}: `{code}`: {reason}")));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    ensure!(seen > 50, "only {seen} commands were found");
    for (code, reason) in [
        ("trafctl close 2026-10 --yes", None),
        ("trafctl classes load --yes", None),
        ("trafctl --version", None),
        ("trafctl shut", Some("trafctl has no command shut")),
        ("trafctl close --now", Some("`trafctl close` has no option --now")),
        ("trafctl classes load --yes --never", Some("`trafctl classes load` has no option --never")),
    ] {
        assert_eq!(helps.problem(code)?.as_deref(), reason, "{code}");
    }
    Ok(())
}
