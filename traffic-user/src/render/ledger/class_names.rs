//! Names of classes beside their numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::sheet::Sheet;
use crate::render::json;

/// Names by class.
pub type ClassNames = BTreeMap<u8, String>;

/// A document with the names of classes.
#[derive(Serialize)]
struct Named<'a, T> {
    #[serde(flatten)]
    document: &'a T,
    class_names: &'a ClassNames,
}

/// A document, with the names if there are any.
pub(super) fn document<T: Serialize>(document: &T, names: &ClassNames) -> anyhow::Result<String> {
    if names.is_empty() {
        json::document(document)
    } else {
        json::document(&Named { document, class_names: names })
    }
}

/// Writes the names behind the numbers of a table. CSV keeps the numbers, by which programs join.
pub(super) fn name_classes(sheet: &mut Sheet, names: &ClassNames) {
    let Some(at) = sheet.text.iter().position(|column| *column == "class") else { return };
    for row in &mut sheet.rows {
        let Some(field) = row.get_mut(at) else { continue };
        if let Some(name) = field.parse().ok().and_then(|class: u8| names.get(&class)) {
            *field = format!("{field} {name}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_behind_the_numbers() {
        let names = ClassNames::from([(2, "UA-IX".to_owned())]);
        let mut sheet = Sheet::new(&["container", "class"], &["bytes"]);
        sheet.rows = [["2", "2", "2"], ["101", "3", "7"], ["101", "", "9"]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec();
        name_classes(&mut sheet, &names);
        assert_eq!(sheet.rows[0], ["2", "2 UA-IX", "2"]);
        assert_eq!(sheet.rows[1], ["101", "3", "7"]);
        assert_eq!(sheet.rows[2], ["101", "", "9"]);
        let mut without = Sheet::new(&["container"], &["bytes"]);
        without.rows = vec![vec!["2".to_owned(), "2".to_owned()]];
        name_classes(&mut without, &names);
        assert_eq!(without.rows[0], ["2", "2"]);
        let json = document(&serde_json::json!({"rows": []}), &names).unwrap();
        assert!(json.contains("\"class_names\": {\n    \"2\": \"UA-IX\"\n  }"), "{json}");
        assert!(
            !document(&serde_json::json!({"rows": []}), &ClassNames::new()).unwrap().contains("class_names")
        );
    }
}
