//! The man pages and completions: complete, and without a warning of groff.
#![expect(clippy::unwrap_used, reason = "a test; clippy does not count helpers as such")]

#[path = "../examples/pages/generate.rs"]
mod generate;

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use trafctl::config::Config;

/// Formats a page as plain text; fails if groff warns.
fn formatted(name: &str, page: &str) -> String {
    let mut child = Command::new("groff")
        .args(["-ww", "-man", "-Tutf8", "-P-cbou", "-rLL=200n", "-rHY=0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("this test needs groff, which Debian has in groff-base: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let text = page.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{name}: {warnings}");
    String::from_utf8(output.stdout).unwrap()
}

fn page_of(command: &clap::Command, above: &[&str], check: &mut impl FnMut(&str, &clap::Command)) {
    let path = [above, &[command.get_name()]].concat();
    check(&path.join("-"), command);
    for subcommand in command.get_subcommands().filter(|one| one.get_name() != "help") {
        page_of(subcommand, &path, check);
    }
}

#[test]
fn every_command_has_a_page_with_every_option() {
    let pages = generate::pages().unwrap();
    let mut command = trafctl::cli::command();
    command.build();
    let mut commands = 0;
    page_of(&command, &[], &mut |name, command| {
        commands += 1;
        let (_, page) =
            pages.iter().find(|(page, _)| *page == format!("{name}.1")).unwrap_or_else(|| panic!("{name}"));
        let text = formatted(name, page);
        let help = command.clone().render_long_help().to_string();
        // What --help shows, the page has: options, values, and the lines of the examples.
        let words = help.lines().map(str::trim).filter(|line| line.starts_with('-'));
        let options: Vec<&str> = words
            .flat_map(|line| line.split(|character: char| " ,=[<".contains(character)))
            .map(|word| word.trim_end_matches('.'))
            .filter(|word| word.starts_with('-') && word.len() > 1 && !word.ends_with(':'))
            .collect();
        for option in options {
            assert!(text.contains(option), "{name} lacks {option}: {text}");
        }
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let about = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let start: String = about.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
            let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(&start), "{name} lacks {start:?}: {text}");
        }
        for variable in help.split("[env: ").skip(1) {
            let variable = variable.split([']', '=']).next().unwrap_or_default();
            assert!(text.contains(variable), "{name} lacks {variable}: {text}");
        }
        let examples = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        for line in examples.lines().map(str::trim).filter(|line| line.starts_with("trafctl ")) {
            assert!(text.contains(line), "{name} lacks {line:?}: {text}");
        }
    });
    assert!(commands > 30, "{commands}");
    assert_eq!(pages.len(), commands + generate::BY_HAND.len());
    assert_eq!(pages, generate::pages().unwrap(), "the same bytes each time");
}

#[test]
fn pages_by_hand_have_no_warnings_and_every_key() {
    for (name, page) in generate::BY_HAND {
        formatted(name, page);
    }
    let text = formatted("trafctl.toml.5", generate::BY_HAND[1].1);
    let sample = "[classes.names]\n2 = 'x'\n[[interfaces.rule]]\npattern = 'x'\nkind = 'ignore'\n[[container]]\n\
                  id = '7'\nname = 'shop'\ninterfaces = ['a']\nmacs = ['00:18:51:aa:bb:cc']\naddresses = ['10.0.0.1']\n";
    let config = Config::parse(sample, std::path::Path::new("sample")).unwrap();
    for setting in config.settings(sample) {
        let key = setting.key.replace("[0]", "");
        let (table, name) = key.rsplit_once('.').unwrap_or(("", &key));
        let heading = match table {
            "" => "TOP LEVEL".to_owned(),
            "interfaces.rule" | "container" => format!("[[{table}]]"),
            _ => format!("[{table}]"),
        };
        let section = text.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no {heading}"));
        let is_key = |line: &str| line.trim_start().starts_with(&format!("{name} = "));
        let is_class = table == "classes.names" && section.contains("CLASS = ");
        let mut lines = section.lines().take_while(|line| line.is_empty() || line.starts_with(' '));
        assert!(is_class || lines.any(is_key), "{heading} has no {name}");
    }
}

#[test]
fn the_page_of_quotas_has_every_key() {
    let (name, page) = generate::BY_HAND[2];
    assert_eq!(name, "quotas.toml.5");
    let text = formatted(name, page);
    let own = [&traffic_quota::KEYS[..], &traffic_quota::ACTION_KEYS];
    let all =
        [own.concat(), traffic_quota::ALERT_KEYS.to_vec(), traffic_quota::TENANT_KEYS.to_vec()].concat();
    for key in all {
        assert!(text.lines().any(|line| line.trim_start().starts_with(&format!("{key} = "))), "{key}");
    }
}

#[test]
fn bash_completes_commands_options_and_values() {
    let directory = tempfile::tempdir().unwrap();
    let files = generate::write(directory.path()).unwrap();
    assert_eq!(files, generate::pages().unwrap().len() + generate::completions_of().len());
    for name in ["trafctl", "_trafctl", "trafctl.fish"] {
        assert!(
            std::fs::metadata(directory.path().join("completions").join(name)).unwrap().len() > 10_000,
            "{name}"
        );
    }
    let complete = |words: &[&str]| {
        let script = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); \
                      _trafctl trafctl \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; \
                      printf '%s\\n' \"${COMPREPLY[@]}\"";
        let output = Command::new("bash")
            .args(["-c", script, "bash"])
            .arg(directory.path().join("completions/trafctl"))
            .args(words)
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["trafctl", "cla"]), ["classes"]);
    assert_eq!(complete(&["trafctl", "classes", "conv"]), ["convert"]);
    assert_eq!(complete(&["trafctl", "classes", "convert", "--fr"]), ["--from"]);
    assert_eq!(complete(&["trafctl", "report", "--by", "mo"]), ["month"]);
    assert!(complete(&["trafctl", "dump", "--"]).contains(&"--since-mark".to_owned()));
}
