//! The layout of help and usage lines, the same for all commands.
//!
//! A usage line shows the arguments of its own command. clap would add every global option that the
//! environment sets, as if it were required, and `[OPTIONS]` where a command has only global options.

use clap::{Arg, Command, CommandFactory as _};

use crate::cli::Cli;

/// The whole command line with a fixed usage line for each command.
pub fn command() -> Command {
    let mut built = Cli::command();
    // Fills in the names that usage lines begin with.
    built.build();
    with_usage(Cli::command(), &built)
}

fn with_usage(mut command: Command, built: &Command) -> Command {
    for subcommand in built.get_subcommands() {
        if command.find_subcommand(subcommand.get_name()).is_some() {
            command = command.mut_subcommand(subcommand.get_name(), |own| with_usage(own, subcommand));
        }
    }
    // A bare `trafctl ledger` asks what there is.
    let asks = command.is_subcommand_required_set();
    command.override_usage(usage_line(built)).arg_required_else_help(asks)
}

/// Width at which a usage line wraps, and the indentation of its second line.
const WIDTH: usize = 80;
const INDENT: &str = "       ";

fn usage_line(command: &Command) -> String {
    let rendered = command.clone().render_usage().to_string();
    let usage = rendered.trim_start_matches("Usage: ").to_owned();
    let is_own_option = |argument: &Arg| !argument.is_positional() && !argument.is_global_set();
    let has_options = command.get_arguments().any(is_own_option);
    let usage = if has_options { usage } else { usage.replace(" [OPTIONS]", "") };
    // A command with arguments that also has commands has a line for each.
    let lines: Vec<String> = usage.lines().map(|line| wrap(line.trim())).collect();
    lines.join(&format!("\n{INDENT}"))
}

/// Breaks a usage line between its arguments. An option stays on one line with its value.
fn wrap(usage: &str) -> String {
    let mut text = String::new();
    let mut column = INDENT.len();
    let mut words = usage.split(' ').peekable();
    while let Some(word) = words.next() {
        let mut argument = word.to_owned();
        if let Some(value) = words.next_if(|next| word.starts_with("--") && next.starts_with('<')) {
            argument = format!("{word} {value}");
        }
        if !text.is_empty() && column + 1 + argument.len() > WIDTH {
            text += &format!("\n{INDENT}  {argument}");
            column = INDENT.len() + 2 + argument.len();
        } else {
            let space = if text.is_empty() { "" } else { " " };
            text += &format!("{space}{argument}");
            column += space.len() + argument.len();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    /// Every command that has a help page, with its path.
    fn pages(command: &Command, path: &str, pages: &mut Vec<(String, Command)>) {
        pages.push((path.to_owned(), command.clone()));
        for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
            self::pages(subcommand, &format!("{path}_{}", subcommand.get_name()), pages);
        }
    }

    fn all_pages() -> Vec<(String, Command)> {
        let mut command = command().term_width(WIDTH);
        command.build();
        let mut all = Vec::new();
        pages(&command, "trafctl", &mut all);
        all
    }

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
        command().debug_assert();
    }

    /// Headings of the sections of a help page; examples and files are plain text below the options.
    fn headings(help: &str) -> Vec<&str> {
        let is_heading = |line: &&str| line.ends_with(':') && !line.starts_with(' ');
        help.lines()
            .filter(is_heading)
            .filter(|line| !matches!(*line, "Example:" | "Examples:" | "Files:" | "Formats:"))
            .collect()
    }

    #[test]
    fn help_pages_at_80_columns() {
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_snapshot_path("snapshots/help");
        let _bound = settings.bind_to_scope();
        for (path, page) in all_pages() {
            let mut page = page.term_width(WIDTH);
            let (short, long) = (page.render_help().to_string(), page.render_long_help().to_string());
            for help in [&short, &long] {
                assert_eq!(headings(help).last(), Some(&"Global options:"), "{path}");
                for line in help.lines() {
                    assert!(line.chars().count() <= WIDTH, "{path}: {line:?} is too wide");
                }
            }
            assert_snapshot!(path, format!("-h\n\n{short}\n--help\n\n{long}"));
        }
    }

    #[test]
    fn a_command_without_its_subcommand_gets_the_help() {
        for words in [&["trafctl"][..], &["trafctl", "ledger"], &["trafctl", "classes"]] {
            let error = command().try_get_matches_from(words).unwrap_err();
            assert_eq!((error.exit_code(), error.use_stderr()), (2, true), "{words:?}");
            let text = error.to_string();
            assert!(text.contains("Commands:") && !text.contains("error:"), "{text}");
        }
    }

    #[test]
    fn a_usage_line_names_the_arguments_of_its_own_command() {
        let usage = |path: &str| {
            let (_, mut page) = all_pages().into_iter().find(|(own, _)| own == path).unwrap();
            page.render_usage().to_string()
        };
        assert_eq!(usage("trafctl"), "Usage: trafctl <COMMAND>");
        assert_eq!(usage("trafctl_dump"), "Usage: trafctl dump [OPTIONS]");
        assert_eq!(usage("trafctl_container_retire"), "Usage: trafctl container retire [OPTIONS] <ID>");
        assert_eq!(
            usage("trafctl_adjust"),
            "Usage: trafctl adjust [OPTIONS] --container <ID> --class <N> --reason <TEXT>\n         <YYYY-MM>"
        );
        assert_eq!(usage("trafctl_attach"), "Usage: trafctl attach [OPTIONS] [IFNAME]...");
    }
}
