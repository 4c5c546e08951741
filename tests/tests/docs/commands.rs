//! The commands of a page: taken from its `sh` and `console` blocks, with the output that the page shows.
//!
//! A block `sh` has commands alone. In a block `console`, the first two characters are the prompt (`# ` or `$ `);
//! every line that begins with it begins a command, and the lines after a command are its output. A console
//! without any output is a list of commands. In a block `console figures-vary`, its figures may differ.

use std::io::Write as _;
use std::process::{Command as Process, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::markdown::Block;

/// A command of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// The number of its first line in the page.
    pub line: usize,
    /// What the shell is given.
    pub text: String,
    /// The number of its first line of output, and these lines. `None` if the block shows no output at all.
    pub output: Option<(usize, Vec<String>)>,
    /// Whether figures of the output may differ from those shown.
    pub figures_vary: bool,
}

/// The commands of all blocks, in their order.
///
/// # Errors
///
/// When a command does not end within its block, or a block has no known language.
pub fn of_blocks(blocks: &[Block]) -> Result<Vec<Command>> {
    let mut commands = Vec::new();
    for block in blocks {
        match block.language.as_str() {
            "sh" => commands.extend(listed(block, "")?),
            "console" | "console figures-vary" => commands.extend(of_console(block)?),
            "toml" | "ini" | "nft" | "text" | "json" | "sql" | "promql" | "yaml" | "php" => {}
            other => bail!("line {}: a block of the unknown language \"{other}\"", block.line - 1),
        }
    }
    Ok(commands)
}

fn of_console(block: &Block) -> Result<Vec<Command>> {
    let first = block.lines.first().map_or("", String::as_str);
    let prompt = first.get(..2).filter(|prompt| ["# ", "$ "].contains(prompt));
    let prompt = prompt.with_context(|| format!("line {}: a console begins with a prompt", block.line))?;
    let mut commands = listed(block, prompt)?;
    if commands.iter().all(|command| command.output.as_ref().is_none_or(|(_, lines)| lines.is_empty())) {
        for command in &mut commands {
            command.output = None;
        }
    }
    Ok(commands)
}

/// The commands of a block. With a prompt, what follows a command is its output; without one, empty lines and
/// comments are left out.
fn listed(block: &Block, prompt: &str) -> Result<Vec<Command>> {
    let mut commands: Vec<Command> = Vec::new();
    let mut lines = block.lines.iter().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let number = block.line + index;
        let Some(start) = line.strip_prefix(prompt) else {
            let last = commands.last_mut().context("a console begins with a prompt")?;
            last.output.get_or_insert((number, Vec::new())).1.push(line.clone());
            continue;
        };
        if prompt.is_empty() && (start.trim().is_empty() || start.starts_with('#')) {
            continue;
        }
        let mut text = start.to_owned();
        while !is_complete(&text)? {
            let more = lines.next().with_context(|| format!("line {number}: the command does not end"))?;
            text += "\n";
            text += more.1;
        }
        let after = number + text.lines().count();
        let output = (!prompt.is_empty()).then(|| (after, Vec::new()));
        let figures_vary = block.language.ends_with(" figures-vary");
        commands.push(Command { line: number, text, output, figures_vary });
    }
    // The empty line between an output and the next command belongs to neither, as does one at the end.
    Ok(commands)
}

/// Whether the shell needs no further line, such as the end of a here-document or of a loop.
fn is_complete(text: &str) -> Result<bool> {
    if text.ends_with('\\') {
        return Ok(false);
    }
    let mut child = Process::new("bash")
        .args(["--norc", "-n"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start bash")?;
    child.stdin.take().context("no stdin")?.write_all(format!("{text}\n").as_bytes())?;
    let output = child.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let continues = ["delimited by end-of-file", "unexpected end of file", "unexpected EOF"];
    let is_open = continues.iter().any(|reason| complaint.contains(reason));
    ensure!(is_open || complaint.is_empty(), "bash does not understand this command: {complaint}{text}");
    Ok(!is_open)
}

#[test]
fn commands_and_their_output_are_told_apart() -> Result<()> {
    let block = |language: &str, text: &str| Block {
        language: language.to_owned(),
        line: 10,
        lines: text.lines().map(str::to_owned).collect(),
    };
    let console = block("console", "# cat >f <<'END'\n# name\nEND\n# cat f\n# name\nx");
    // The second `# name` would be a command. An output with the prompt needs a block with the other prompt.
    assert_eq!(of_blocks(&[console])?.len(), 3);
    let console = block("console", "$ cat >f <<'END'\n# name\nEND\n$ cat f\n# name\n\nx");
    let lines = |text: &[&str]| text.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        of_blocks(&[console])?,
        [
            Command {
                line: 10,
                text: "cat >f <<'END'\n# name\nEND".to_owned(),
                output: Some((13, Vec::new())),
                figures_vary: false,
            },
            Command {
                line: 13,
                text: "cat f".to_owned(),
                output: Some((14, lines(&["# name", "", "x"]))),
                figures_vary: false,
            },
        ]
    );
    let sh = block("sh", "# a comment\n\nfor i in 1 2; do\n    echo $i\ndone\necho a \\\n  b\necho c");
    let found = of_blocks(&[sh])?;
    assert_eq!(found.iter().map(|command| command.line).collect::<Vec<_>>(), [12, 15, 17]);
    assert_eq!(found[1].text, "echo a \\\n  b");
    assert!(found.iter().all(|command| command.output.is_none()));
    let listing = block("console", "# true\n# false");
    assert!(of_blocks(&[listing])?.iter().all(|command| command.output.is_none()));
    assert!(of_blocks(&[block("console", "output first")]).is_err());
    assert!(of_blocks(&[block("", "x")]).is_err());
    assert!(of_blocks(&[block("sh", "cat <<'END'\nno end")]).is_err());
    Ok(())
}
