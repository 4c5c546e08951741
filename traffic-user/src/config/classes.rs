//! `[classes]`: what is asked of a class file before it is put in force, and the names of classes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Spanned;
use traffic_classes::{HoldLimit, MAX_CLASS, check_name};

use super::check::{Problem, problem};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileClasses {
    hold_if_removed: Option<Spanned<String>>,
    names: BTreeMap<String, Spanned<String>>,
    bill: BTreeMap<String, Spanned<String>>,
}

/// What `[classes]` says.
pub(super) struct Classes {
    pub hold_limit: HoldLimit,
    pub names: BTreeMap<u8, String>,
    /// Those with `bill = "delivered"`.
    pub delivered: BTreeSet<u8>,
}

impl FileClasses {
    pub(super) fn check(self) -> Result<Classes, Problem> {
        let hold_limit = match &self.hold_if_removed {
            None => HoldLimit::default(),
            Some(text) => hold_limit(text)?,
        };
        let mut names = BTreeMap::new();
        for (class, name) in self.names {
            let number = class_number(&class, &name)?;
            if let Err(why) = check_name(name.get_ref()) {
                return Err(problem(&name, format!("the name of class {number} is not usable: {why}")));
            }
            names.insert(number, name.into_inner());
        }
        let mut delivered = BTreeSet::new();
        for (class, bill) in self.bill {
            let number = class_number(&class, &bill)?;
            match bill.get_ref().as_str() {
                "delivered" if number == 0 => {
                    return Err(problem(&bill, "class 0 is not billed".to_owned()));
                }
                "delivered" => drop(delivered.insert(number)),
                "counted" => {}
                other => {
                    let message =
                        format!("{other:?} is not what can be billed; write \"counted\" or \"delivered\"");
                    return Err(problem(&bill, message));
                }
            }
        }
        Ok(Classes { hold_limit, names, delivered })
    }
}

fn class_number(class: &str, of: &Spanned<String>) -> Result<u8, Problem> {
    let number = class.parse::<u8>().ok().filter(|number| *number <= MAX_CLASS);
    number
        .filter(|number| number.to_string() == class)
        .ok_or_else(|| problem(of, format!("{class:?} is not a class; write a number from 0 to {MAX_CLASS}")))
}

fn hold_limit(text: &Spanned<String>) -> Result<HoldLimit, Problem> {
    let number = text.get_ref().trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    number.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| HoldLimit { percent }).ok_or_else(|| {
        let message = format!(
            "hold_if_removed = {:?} is not a percentage; write \"0%\" to \"100%\", where \"100%\" lets any part \
             of the prefixes vanish",
            text.get_ref()
        );
        problem(text, message)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("t.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_limit_and_the_names_are_read() {
        let config = parse("").unwrap();
        assert!((config.hold_limit.percent - 20.0).abs() < f64::EPSILON && config.class_names.is_empty());
        let config =
            parse("[classes]\nhold_if_removed = \"7.5 %\"\n[classes.names]\n0 = \"Local\"\n2 = \"UA-IX\"\n")
                .unwrap();
        assert!((config.hold_limit.percent - 7.5).abs() < f64::EPSILON);
        assert_eq!(config.class_names.len(), 2);
        assert_eq!(config.class_names[&2], "UA-IX");
        let config = parse("[classes.bill]\n1 = \"counted\"\n3 = \"delivered\"\n").unwrap();
        assert_eq!(config.delivered_classes.into_iter().collect::<Vec<_>>(), [3]);
        for (text, expected) in [
            (
                "[classes]\nhold_if_removed = \"20\"\n",
                "t.toml:2:19: hold_if_removed = \"20\" is not a percentage",
            ),
            ("[classes]\nhold_if_removed = \"101%\"\n", "is not a percentage"),
            ("[classes]\nhold_if_removed = \"-1%\"\n", "is not a percentage"),
            ("[classes]\nhold_if_removed = \"NaN%\"\n", "is not a percentage"),
            ("[classes]\nhold = 1\n", "unknown field `hold`"),
            ("[classes.names]\n255 = \"x\"\n", "\"255\" is not a class"),
            ("[classes.bill]\n255 = \"counted\"\n", "\"255\" is not a class"),
            ("[classes.bill]\n0 = \"delivered\"\n", "t.toml:2:5: class 0 is not billed"),
            ("[classes.bill]\n2 = \"sent\"\n", "\"sent\" is not what can be billed"),
            ("[classes.names]\n02 = \"x\"\n", "\"02\" is not a class"),
            (
                "[classes.names]\n2 = \" x\"\n",
                "t.toml:2:5: the name of class 2 is not usable: it is empty or has",
            ),
            ("[classes.names]\n2 = \"a\\nb\"\n", "it has the character '\\n'"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
