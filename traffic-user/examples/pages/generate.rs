//! Man pages of every command and completions for shells, from the command line itself.
//!
//! The same input gives the same bytes: no page has a date.

use std::{fs, io, path::Path};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// The pages that are written by hand, with their names.
pub const BY_HAND: [(&str, &str); 3] = [
    ("networks_classes.5", include_str!("../../man/networks_classes.5")),
    ("trafctl.toml.5", include_str!("../../man/trafctl.toml.5")),
    ("quotas.toml.5", include_str!("../../man/quotas.toml.5")),
];

/// What every command's page has in common.
const EXIT_STATUS: &str = "\
.SH EXIT STATUS
.TP
.B 0
The command did its work, and found nothing wrong.
.TP
.B 1
It failed, or found problems, which its output states.
.TP
.B 2
The command line is wrong, or the input is refused.
";

/// Commands that take Virtuozzo's options and have its statuses.
const VIRTUOZZO: &str = "\
.SH EXIT STATUS
That of Virtuozzo's command.
";

/// Writes `man/*` and `completions/*`. Returns the number of files.
///
/// # Errors
/// When a file cannot be written.
pub fn write(directory: &Path) -> io::Result<usize> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let (pages, shells) = (pages()?, completions_of());
    for (name, text) in &pages {
        fs::write(man.join(name), text)?;
    }
    for (name, text) in &shells {
        fs::write(completions.join(name), text)?;
    }
    Ok(pages.len() + shells.len())
}

/// Every page by its file name.
///
/// # Errors
/// When a page cannot be formatted.
pub fn pages() -> io::Result<Vec<(String, String)>> {
    let mut command = trafctl::cli::command();
    command.build();
    let mut pages: Vec<_> = BY_HAND.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
    add(&command, &[], &mut pages)?;
    pages.sort();
    Ok(pages)
}

/// The completions by their file names, which each shell expects.
pub fn completions_of() -> Vec<(&'static str, Vec<u8>)> {
    [(Shell::Bash, "trafctl"), (Shell::Zsh, "_trafctl"), (Shell::Fish, "trafctl.fish")]
        .into_iter()
        .map(|(shell, name)| {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut trafctl::cli::command(), "trafctl", &mut text);
            (name, text)
        })
        .collect()
}

/// Adds the page of a command, and those of its subcommands.
fn add(command: &Command, above: &[&str], pages: &mut Vec<(String, String)>) -> io::Result<()> {
    let path = [above, &[command.get_name()]].concat();
    let name = path.join("-");
    let named = command.clone().display_name(name.clone()).bin_name(path.join(" "));
    let man = Man::new(named);
    let mut text = Vec::new();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let title = format!(".TH \"{}\" 1 \"\" \"trafctl {}\" \"trafctl\"\n", name, env!("CARGO_PKG_VERSION"));
    let mut text = title + &String::from_utf8_lossy(&text);
    text += &subcommands(command, &name);
    text += &sections(&command.get_after_long_help().map(ToString::to_string).unwrap_or_default());
    text += match command.get_name() {
        "vznetstat" | "pnetstat" | "vztactl" => VIRTUOZZO,
        _ => EXIT_STATUS,
    };
    text += &environment(command);
    text += &see_also(command, above, &name);
    pages.push((format!("{name}.1"), text));
    for subcommand in command.get_subcommands().filter(|subcommand| is_shown(subcommand)) {
        add(subcommand, &path, pages)?;
    }
    Ok(())
}

fn is_shown(command: &Command) -> bool {
    command.get_name() != "help" && !command.is_hide_set()
}

/// The subcommands with their pages.
fn subcommands(command: &Command, name: &str) -> String {
    let rows: String = command
        .get_subcommands()
        .filter(|subcommand| is_shown(subcommand))
        .map(|subcommand| {
            let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
            format!(
                ".TP\n.BR {} (1)\n{}\n",
                escape(&format!("{name}-{}", subcommand.get_name())),
                escape(&about)
            )
        })
        .collect();
    if rows.is_empty() { rows } else { format!(".SH SUBCOMMANDS\n{rows}") }
}

/// The text behind the options: `Examples:` and what is below it become a section, line by line.
fn sections(text: &str) -> String {
    let mut page = String::new();
    let mut is_open = false;
    for line in text.lines() {
        let heading = line.strip_suffix(':').filter(|_| !line.starts_with(' '));
        match heading {
            Some(heading) => {
                let end = if is_open { ".fi\n" } else { "" };
                page += &format!("{end}.SH {}\n.nf\n", escape(&heading.to_uppercase()));
                is_open = true;
            }
            None if line.starts_with(' ') && is_open => page += &format!("{}\n", escape(line.trim_start())),
            None if line.trim().is_empty() => {}
            None => {
                let end = if is_open { ".fi\n" } else { "" };
                page += &format!("{end}.PP\n{}\n", escape(line));
                is_open = false;
            }
        }
    }
    if is_open { page + ".fi\n" } else { page }
}

/// The variables that take the place of options.
fn environment(command: &Command) -> String {
    let rows = command.get_arguments().filter_map(|argument| {
        let (variable, option) = (argument.get_env()?.to_string_lossy(), argument.get_long()?);
        let (variable, option) = (escape(&variable), escape(&format!("--{option}")));
        Some(format!(".TP\n.B {variable}\nThe same as\n.BR {option} .\n"))
    });
    let rows: String = rows.collect();
    if rows.is_empty() { rows } else { format!(".SH ENVIRONMENT\n{rows}") }
}

fn see_also(command: &Command, above: &[&str], name: &str) -> String {
    let mut pages: Vec<String> = (0..above.len()).map(|end| above[..=end].join("-") + "(1)").collect();
    let own = command.get_subcommands().filter(|subcommand| is_shown(subcommand));
    pages.extend(own.map(|subcommand| format!("{name}-{}(1)", subcommand.get_name())));
    pages.extend(["trafctl.toml(5)", "networks_classes(5)", "quotas.toml(5)"].map(str::to_owned));
    let row = |page: &String| {
        let (page, section) = page.split_once('(').unwrap_or((page, ""));
        format!(".BR {} ({section}", escape(page))
    };
    format!(".SH SEE ALSO\n{}\n", pages.iter().map(row).collect::<Vec<_>>().join(" ,\n"))
}

/// Text as roff takes it: no line begins with a request, and hyphens can be copied.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let guard = if text.starts_with(['.', '\'']) { "\\&" } else { "" };
    format!("{guard}{text}")
}
