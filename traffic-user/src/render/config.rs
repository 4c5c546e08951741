//! What `trafctl config` prints.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::{
    config::{FileMistake, Setting},
    render::{json, ledger::Format, rows},
};

/// The result of `config check`.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The file.
    pub file: PathBuf,
    /// Whether it exists; if not, the defaults were checked.
    pub exists: bool,
    /// Mistakes in it.
    pub mistakes: Vec<FileMistake>,
    /// What does not fit the node, or why the file cannot be read.
    pub problems: Vec<String>,
}

#[derive(Serialize)]
struct CheckedDocument<'a> {
    file: String,
    exists: bool,
    mistakes: Vec<MistakeRow<'a>>,
    problems: &'a [String],
}

#[derive(Serialize)]
struct MistakeRow<'a> {
    line: usize,
    column: usize,
    message: &'a str,
}

/// Mistakes and problems, one on each line.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn checked(checked: &Checked, format: Format) -> anyhow::Result<String> {
    let file = checked.file.display().to_string();
    if format == Format::Json {
        let mistakes = checked.mistakes.iter().map(|mistake| MistakeRow {
            line: mistake.line,
            column: mistake.column,
            message: &mistake.message,
        });
        return json::document(&CheckedDocument {
            file,
            exists: checked.exists,
            mistakes: mistakes.collect(),
            problems: &checked.problems,
        });
    }
    let mut text = String::new();
    for mistake in &checked.mistakes {
        text += &format!("{file}:{}:{}: {}\n", mistake.line, mistake.column, mistake.message);
    }
    for problem in &checked.problems {
        text += &format!("problem: {problem}\n");
    }
    if text.is_empty() {
        text = match checked.exists {
            true => format!("{file}: no mistakes, and it fits this node\n"),
            false => format!("{file} does not exist, and the defaults fit this node\n"),
        };
    }
    Ok(text)
}

/// The result of `config show`.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The configuration file.
    pub file: PathBuf,
    /// Why it is not in force, if so.
    pub mistake: Option<String>,
    /// The file that the settings come from: the configuration or the copy of the last good one. `None` if all
    /// are defaults.
    pub source: Option<PathBuf>,
    /// The class file that is used where none is named.
    pub class_file: Option<PathBuf>,
    /// All settings.
    pub settings: Vec<Setting>,
}

#[derive(Serialize)]
struct ShownDocument<'a> {
    file: String,
    source: &'static str,
    mistake: Option<&'a str>,
    class_file_in_use: Option<String>,
    settings: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    key: &'a str,
    value: &'a Value,
    from: From,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum From {
    File { file: String, line: usize },
    LastGood { file: String, line: usize },
    Default,
}

impl Shown {
    fn from(&self, setting: &Setting) -> From {
        match (&self.source, setting.line) {
            (Some(source), Some(line)) => {
                let file = source.display().to_string();
                if self.mistake.is_some() { From::LastGood { file, line } } else { From::File { file, line } }
            }
            _ => From::Default,
        }
    }
}

/// All settings, one in each row.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn shown(shown: &Shown, format: Format) -> anyhow::Result<String> {
    let class_file = shown.class_file.as_ref().map(|path| path.display().to_string());
    if format == Format::Json {
        let source = match (&shown.source, &shown.mistake) {
            (None, _) => "default",
            (Some(_), None) => "file",
            (Some(_), Some(_)) => "last-good",
        };
        let settings = shown.settings.iter().map(|setting| Row {
            key: &setting.key,
            value: &setting.value,
            from: shown.from(setting),
        });
        return json::document(&ShownDocument {
            file: shown.file.display().to_string(),
            source,
            mistake: shown.mistake.as_deref(),
            class_file_in_use: class_file,
            settings: settings.collect(),
        });
    }
    let mut text = match (&shown.mistake, &shown.source) {
        (Some(mistake), _) => format!("{mistake}\n\n"),
        (None, Some(source)) => format!("configuration {}\n\n", source.display()),
        (None, None) => format!("{} does not exist: all settings are defaults\n\n", shown.file.display()),
    };
    text += &rows(
        &["KEY", "VALUE", "FROM"],
        shown.settings.iter().map(|setting| {
            let value = match (&setting.value, setting.key.as_str(), &class_file) {
                (Value::Null, "class_file", Some(path)) => format!("({path} is used)"),
                (Value::Null, "class_file", None) => "(none: all traffic is class 1)".to_owned(),
                (Value::Null, _, _) => "(off)".to_owned(),
                (value, _, _) => value.to_string(),
            };
            let from = match shown.from(setting) {
                From::File { file, line } | From::LastGood { file, line } => format!("{file}:{line}"),
                From::Default => "default".to_owned(),
            };
            vec![setting.key.clone(), value, from]
        }),
    );
    Ok(text)
}
