//! Pages of the documentation: their code blocks, their links and the anchors of their headings.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The README and every page below `docs/`, by their paths from the root.
pub fn pages() -> Result<Vec<String>> {
    let mut names = vec!["README.md".to_owned()];
    let directory = repository().join("docs");
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if Path::new(&name).extension().is_some_and(|end| end == "md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    Ok(names)
}

/// Reads a page by its path from the root.
pub fn read(page: &str) -> Result<String> {
    fs::read_to_string(repository().join(page)).with_context(|| format!("cannot read {page}"))
}

/// A code block. Its lines have no indentation of a list that it is in.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// What stands after the fence, such as `sh`.
    pub language: String,
    /// The number of its first line in the page.
    pub line: usize,
    /// What it contains.
    pub lines: Vec<String>,
}

/// The code blocks of a page.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    for (index, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(language)) => {
                let language = language.trim().to_owned();
                open = Some((indent, Block { language, line: index + 2, lines: Vec::new() }));
            }
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, block)| block)),
            (Some((indent, block)), None) => {
                let cut = line.char_indices().nth(*indent).map_or("", |(at, _)| &line[at..]);
                block.lines.push(cut.to_owned());
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The lines of a page outside its code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        let is_prose = !inside && !is_fence;
        inside ^= is_fence;
        is_prose.then_some((index + 1, line))
    })
}

/// The targets of all links and pictures, with the number of the line in which each ends.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Text in backquotes is no link.
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for part in plain.split("](").skip(1) {
            if let Some((target, _)) = part.split_once(')') {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// The code in backquotes, with the number of the line in which each ends. It may span lines.
pub fn inline_code(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for (number, line) in prose(text) {
        if line.trim().is_empty() || line.starts_with('#') {
            open = None;
        }
        let mut parts = line.split('`');
        let first = parts.next().unwrap_or_default();
        if let Some(code) = &mut open {
            *code += " ";
            *code += first.trim_start();
        }
        for part in parts {
            match open.take() {
                Some(code) => found.push((number, code)),
                None => open = Some(part.to_owned()),
            }
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub makes them.
pub fn anchors(text: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let headings = prose(text).filter_map(|(_, line)| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| heading.strip_prefix(' ')).flatten()
    });
    headings
        .map(|heading| {
            let kept = heading.trim().to_lowercase();
            let anchor: String = kept
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            let times = seen.entry(anchor.clone()).or_default();
            *times += 1;
            if *times == 1 { anchor } else { format!("{anchor}-{}", *times - 1) }
        })
        .collect()
}

#[test]
fn blocks_links_and_anchors_are_found() {
    let text = "# A `b` c: d\n\nSee [x](y.md#z) and `[no](link)`, `two\nlines`.\n\n1. Item\n\n   ```sh\n   a\n     b\n   ```\n\n\
        ```toml\n# Not a heading\n[also](not)\n```\n## Twice\n## Twice\n";
    let found = blocks(text);
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[0],
        Block { language: "sh".to_owned(), line: 9, lines: vec!["a".to_owned(), "  b".to_owned()] }
    );
    assert_eq!(found[1].line, 14);
    assert_eq!(links(text), [(3, "y.md#z".to_owned())]);
    assert_eq!(anchors(text), ["a-b-c-d", "twice", "twice-1"]);
    let code = ["b", "[no](link)", "two lines"].map(str::to_owned);
    assert_eq!(inline_code(text).into_iter().map(|(_, code)| code).collect::<Vec<_>>(), code);
}
