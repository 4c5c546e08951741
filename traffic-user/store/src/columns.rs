//! Whether the tables of a store have the columns that they were made with.

use std::collections::BTreeMap;

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    table: String,
    name: String,
    /// Its type, as the server names it.
    kind: String,
    /// The type that it may still have from an older version, or have already from a newer one.
    other: Option<String>,
}

impl Expected {
    /// May also have another type.
    pub fn or(self, other: &str) -> Self {
        Self { other: Some(other.to_owned()), ..self }
    }

    #[cfg(test)]
    pub fn parts(&self) -> (&str, &str, &str) {
        (&self.table, &self.name, &self.kind)
    }

    pub fn new(table: &str, name: &str, kind: impl Into<String>) -> Self {
        Self { table: table.to_owned(), name: name.to_owned(), kind: kind.into(), other: None }
    }
}

/// The types of columns by table and name.
pub(crate) type Found = BTreeMap<String, BTreeMap<String, String>>;

/// What is wrong: a sentence for each column that is missing or has another type. Tables of which nothing was found are
/// left out. `place`: the schema or database.
pub(crate) fn problems(place: &str, expected: &[Expected], found: &Found) -> Vec<String> {
    let problem = |Expected { table, name, kind, other }: &Expected| {
        let todo = "undo what altered it, and run `trafctl ship verify` on the nodes; a store that is made anew gets only \
                    what the ledgers still have";
        match found.get(table)?.get(name) {
            None => Some(format!("the table {place}.{table} has no column {name}, of type {kind}; {todo}")),
            Some(is) if is != kind && Some(is) != other.as_ref() => {
                Some(format!("the column {name} of {place}.{table} has type {is} instead of {kind}; {todo}"))
            }
            Some(_) => None,
        }
    };
    expected.iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_is_missing_or_another_is_named_with_its_table() {
        let expected = [("a", "x"), ("a", "y"), ("a", "z"), ("gone", "x")]
            .map(|(table, name)| Expected::new(table, name, "bigint"));
        let columns = [("x", "bigint"), ("y", "text"), ("more", "text")];
        let columns = columns.map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        let found = Found::from([("a".to_owned(), columns.into())]);
        let problems = problems("s", &expected, &found);
        let may_be_text = |one: Expected| one.or("text");
        assert_eq!(super::problems("s", &expected.clone().map(may_be_text), &found).len(), 1);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("the column y of s.a has type text instead of bigint; "));
        assert!(problems[1].starts_with("the table s.a has no column z, of type bigint; "));
    }
}
