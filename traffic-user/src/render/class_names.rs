//! Names of classes beside their numbers, in every output. The numbers stay what programs join by.
//!
//! Where the names come from is decided in `class_source`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::render::json;

/// Names by class.
pub type ClassNames = BTreeMap<u8, String>;

/// The column of CSV that has the names. It is the last one.
pub(super) const NAME_COLUMN: &str = "class_name";
/// The column of CSV that has the names of containers.
pub(super) const CONTAINER_NAME_COLUMN: &str = "container_name";
/// Both, as rows of a ledger have them.
pub(super) const NAME_COLUMNS: [&str; 2] = [CONTAINER_NAME_COLUMN, NAME_COLUMN];

/// A document with the names of classes.
#[derive(Serialize)]
struct Named<'a, T> {
    #[serde(flatten)]
    document: &'a T,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    class_names: &'a ClassNames,
}

/// A document, with the names if there are any.
pub(super) fn document<T: Serialize>(document: &T, names: &ClassNames) -> anyhow::Result<String> {
    json::document(&Named { document, class_names: names })
}

/// The same on one line.
pub(super) fn line<T: Serialize>(document: &T, names: &ClassNames) -> anyhow::Result<String> {
    json::line(&Named { document, class_names: names })
}

/// A class as a cell of a table: its number, and its name if it has one.
pub(super) fn cell(class: u8, names: &ClassNames) -> String {
    match names.get(&class) {
        Some(name) => format!("{class} {name}"),
        None => class.to_string(),
    }
}

/// The name of a class as a field of CSV; empty for none.
pub(super) fn name(class: Option<u8>, names: &ClassNames) -> String {
    class.and_then(|class| names.get(&class)).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_beside_the_numbers() {
        let names = ClassNames::from([(2, "UA-IX".to_owned())]);
        assert_eq!([cell(2, &names), cell(3, &names)], ["2 UA-IX", "3"]);
        assert_eq!([name(Some(2), &names), name(Some(3), &names), name(None, &names)], ["UA-IX", "", ""]);
        let rows = serde_json::json!({"rows": []});
        let text = document(&rows, &names).unwrap();
        assert!(text.contains("\"class_names\": {\n    \"2\": \"UA-IX\"\n  }"), "{text}");
        assert!(line(&rows, &names).unwrap().ends_with("\"class_names\":{\"2\":\"UA-IX\"}}\n"));
        assert!(!document(&rows, &ClassNames::new()).unwrap().contains("class_names"));
    }
}
