//! The form that all JSON documents share: an object with a top-level `version`, so that readers can detect a
//! change.
//!
//! Field names never change within a version; new fields may appear.

use serde::Serialize;

/// The version that every document states.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Versioned<'a, T> {
    version: u32,
    #[serde(flatten)]
    document: &'a T,
}

/// One indented document: the fields of `document` after the version.
///
/// # Errors
/// When `document` does not serialise to an object.
pub fn document<T: Serialize>(document: &T) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&Versioned { version: VERSION, document })? + "\n")
}

/// One document on one line, for a sequence of documents.
///
/// # Errors
/// When `document` does not serialise to an object.
pub fn line<T: Serialize>(document: &T) -> anyhow::Result<String> {
    Ok(serde_json::to_string(&Versioned { version: VERSION, document })? + "\n")
}

/// One indented document that holds a list under `name`.
///
/// # Errors
/// When a row cannot be serialised.
pub fn list<T: Serialize>(name: &str, rows: &[T]) -> anyhow::Result<String> {
    document(&std::collections::BTreeMap::from([(name, rows)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_comes_first_and_a_list_has_a_name() {
        #[derive(Serialize)]
        struct Row {
            bytes: i128,
        }
        let row = Row { bytes: i128::from(u64::MAX) * 2 };
        assert_eq!(document(&row).unwrap(), "{\n  \"version\": 1,\n  \"bytes\": 36893488147419103230\n}\n");
        assert_eq!(line(&Row { bytes: 7 }).unwrap(), "{\"version\":1,\"bytes\":7}\n");
        assert_eq!(
            list("rows", &[Row { bytes: -1 }]).unwrap(),
            "{\n  \"version\": 1,\n  \"rows\": [\n    {\n      \"bytes\": -1\n    }\n  ]\n}\n"
        );
    }
}
