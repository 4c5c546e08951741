//! The notices and licences of everything of others in the program. Their licences ask that whoever passes the
//! program on passes these on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context, Result};

use super::crates::{self, Crate};
use crate::command::workspace;

/// What the names of such files begin with, in capitals.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// Works in the program that are no crates: `(work, licence, its text in the workspace)`.
const VENDORED: [(&str, &str, &str); 2] = [
    ("uPlot", "MIT", "traffic-user/web/vendor/uplot/LICENSE"),
    ("DejaVu Sans", "Bitstream-Vera", "traffic-user/assets/DEJAVU-LICENSE"),
];

/// One work of others.
struct Work {
    name: String,
    licence: String,
    texts: BTreeSet<String>,
}

/// All works with their licences, then each text once with the works that it belongs to.
///
/// # Errors
/// When cargo does not list the crates, or a file cannot be read.
pub(super) fn text() -> Result<String> {
    let mut works = Vec::new();
    for one in crates::of_others()? {
        works.push(Work {
            name: format!("{} {}", one.name, one.version),
            licence: one.expression().unwrap_or_else(|| "see the text".to_owned()),
            texts: texts_of(&one)?,
        });
    }
    for (name, licence, path) in VENDORED {
        let texts = BTreeSet::from([read(&workspace().join(path))?]);
        works.push(Work { name: name.to_owned(), licence: licence.to_owned(), texts });
    }
    Ok(together(&works))
}

fn texts_of(package: &Crate) -> Result<BTreeSet<String>> {
    let directory = package.manifest_path.parent().context("a crate has no directory")?;
    let cannot = || format!("cannot read {}", directory.display());
    let mut texts = BTreeSet::new();
    for entry in fs::read_dir(directory).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_uppercase();
        if path.is_file() && NAMES.iter().any(|prefix| name.starts_with(prefix)) {
            texts.insert(read(&path)?);
        }
    }
    Ok(texts)
}

/// A text without what differs between copies of it: ends of lines, and space around it.
fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim().lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
}

fn together(works: &[Work]) -> String {
    let mut text = "trafctl contains these works of others:\n\n".to_owned();
    let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for work in works {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "  {}: {}", work.name, work.licence);
        for own in &work.texts {
            owners.entry(own).or_default().push(&work.name);
        }
    }
    let mut owners: Vec<_> = owners.into_iter().collect();
    owners.sort_by(|(_, a), (_, b)| a.cmp(b));
    for (own, of) in owners {
        let _ = write!(text, "\n{}\n{}\n\n{own}\n", "=".repeat(80), of.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::crates::tests::package;

    #[test]
    fn a_text_of_several_works_is_there_once() {
        let work = |name: &str, texts: &[&str]| Work {
            name: name.to_owned(),
            licence: "MIT".to_owned(),
            texts: texts.iter().map(|&text| text.to_owned()).collect(),
        };
        let all = together(&[work("a 1", &["of both", "of a"]), work("b 2", &["of both"]), work("c 3", &[])]);
        let line = "=".repeat(80);
        let expected = "trafctl contains these works of others:\n\n  a 1: MIT\n  b 2: MIT\n  c 3: MIT\n";
        assert_eq!(all, format!("{expected}\n{line}\na 1\n\nof a\n\n{line}\na 1, b 2\n\nof both\n"));
    }

    #[test]
    fn the_texts_of_a_crate_are_in_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("LICENSE-MIT", "mit \r\nlicence\n\n"),
            ("license.txt", "  mit\nlicence"),
            ("COPYING", "copying"),
            ("lib.rs", "code"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        fs::create_dir(directory.path().join("LICENSES")).unwrap();
        let one = Crate {
            manifest_path: directory.path().join("Cargo.toml"),
            ..package("aya", "0.14.0", Some("registry"))
        };
        let texts: Vec<_> = texts_of(&one).unwrap().into_iter().collect();
        assert_eq!(texts, ["copying", "mit\nlicence"]);
    }

    #[test]
    fn the_programs_notices_name_what_is_in_it() {
        let all = text().unwrap();
        for part in
            ["  aya ", "  rusqlite ", "  uPlot: MIT", "DejaVu Sans", "Bitstream, Inc.", "Leon Sorokin"]
        {
            assert!(all.contains(part), "{part} is missing");
        }
        assert!(!all.contains("traffic-user"));
    }
}
