//! Changes of files as people keep them.

use proptest::prelude::*;

use super::*;
use crate::scope::NamePattern;

const FILE: &str = "\
# Kept by hand.

[[quota]]
name = \"traffic\"     # all of them
default = true
allowance = '1TB'    # since 2024
billing_day = 15
period = 'month'

# The shops.
[[quota]]
name = \"traffic\"
pattern = \"shop-*\"
classes = [
  1,   # world
  2,
]
commit = \"1Gbit/s\"
percentile = 95
";

fn change(scope: Scope, values: &[(&'static str, &str)]) -> Change {
    let values = values.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    Change { name: "traffic".to_owned(), scope, values }
}

fn shops() -> Scope {
    Scope::Pattern(NamePattern("shop-*".to_owned()))
}

#[test]
fn a_value_is_changed_in_its_place() {
    let new = set(FILE, &change(Scope::Default, &[("allowance", "\"2TB\"")])).unwrap();
    assert_eq!(new, FILE.replace("'1TB'    # since 2024", "\"2TB\"    # since 2024"));
    let new = set(FILE, &change(shops(), &[("classes", "[3]"), ("direction", "\"in\"")])).unwrap();
    let expected = FILE.replace("[\n  1,   # world\n  2,\n]", "[3]") + "direction = \"in\"\n";
    assert_eq!(new, expected);
}

#[test]
fn what_cannot_stay_beside_it_goes() {
    let new = set(FILE, &change(shops(), &[("allowance", "\"5GB\"")])).unwrap();
    assert_eq!(new, FILE.replace("commit = \"1Gbit/s\"\npercentile = 95\n", "allowance = \"5GB\"\n"));
    let new = set(FILE, &change(Scope::Default, &[("period", "\"week\"")])).unwrap();
    assert_eq!(new, FILE.replace("billing_day = 15\nperiod = 'month'", "period = \"week\""));
}

#[test]
fn a_new_quota_comes_at_the_end() {
    let values = [("thresholds", "[\"90%\"]"), ("allowance", "\"3GB\"")];
    let own = change(Scope::Container("101".to_owned()), &values);
    let lines =
        "[[quota]]\nname = \"traffic\"\ncontainer = \"101\"\nallowance = \"3GB\"\nthresholds = [\"90%\"]\n";
    assert_eq!(set(FILE, &own).unwrap(), format!("{FILE}\n{lines}"));
    assert_eq!(set("", &own).unwrap(), lines);
    assert_eq!(set("# none", &own).unwrap(), format!("# none\n\n{lines}"));
}

#[test]
fn a_quota_is_removed_and_the_comments_of_others_stay() {
    let (new, removed) = remove(FILE, "traffic", &Scope::Default).unwrap();
    assert!(removed.starts_with("[[quota]]\nname = \"traffic\"     # all of them\n"), "{removed}");
    assert!(removed.ends_with("period = 'month'\n"), "{removed}");
    assert!(new.starts_with("# Kept by hand.\n\n\n# The shops.\n[[quota]]\n"), "{new}");
    assert_eq!(Quotas::parse(&new).unwrap().quotas.len(), 1);
    let (new, _) = remove(FILE, "traffic", &shops()).unwrap();
    assert!(new.ends_with("period = 'month'\n\n# The shops.\n"), "{new}");
    assert_eq!(remove(FILE, "other", &Scope::Default), Err(NotChanged::Missing));
    assert_eq!(remove(FILE, "traffic", &Scope::Container("7".to_owned())), Err(NotChanged::Missing));
}

#[test]
fn a_mistake_changes_nothing() {
    let broken = FILE.replace("'1TB'", "'1Tb'");
    let Err(NotChanged::Mistakes(found)) = set(&broken, &change(Scope::Default, &[("allowance", "\"1TB\"")]))
    else {
        panic!("the file is broken")
    };
    assert_eq!(found[0].line, 6);
    for (values, problem) in [
        (&[("allowance", "\"1Gb\"")][..], "has an unknown unit"),
        (&[("billing_day", "32")], "not a number within 1 to 31"),
        (&[("period", "\"week\""), ("billing_day", "3")], "only a month has a billing day"),
        (&[("percentile", "95")], "belongs to a commit"),
    ] {
        let Err(NotChanged::Refused(message)) = set(FILE, &change(Scope::Default, values)) else {
            panic!("{values:?} is accepted")
        };
        assert!(message.contains(problem), "{message}");
    }
    // Without any limit, there is no quota.
    let new = change(Scope::Container("101".to_owned()), &[("direction", "\"in\"")]);
    assert!(matches!(set(FILE, &new), Err(NotChanged::Refused(message)) if message.contains("has no limit")));
}

#[test]
fn other_forms_are_left_to_their_owners() {
    let inline = "quota = [{ name = \"traffic\", default = true, allowance = \"1TB\" }]\n";
    let two = change(Scope::Default, &[("allowance", "\"2TB\"")]);
    assert_eq!(set(inline, &two), Err(NotChanged::Form));
    assert_eq!(remove(inline, "traffic", &Scope::Default), Err(NotChanged::Form));
    // A table cannot follow an inline list of the same name.
    let new = change(Scope::Container("101".to_owned()), &[("allowance", "\"2TB\"")]);
    assert!(matches!(set(inline, &new), Err(NotChanged::Refused(_))));
}

#[test]
fn quotes_and_backslashes_survive() {
    let text = "a\"b\\c";
    let file = format!(
        "[[quota]]\nname = \"x\"\npattern = {}\nallowance = \"1GB\"\n",
        quoted(text).replace("\\\\", "")
    );
    assert!(Quotas::parse(&file).is_ok(), "{file}");
    assert_eq!(quoted(text), "\"a\\\"b\\\\c\"");
}

fn values() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let one = |key: &'static str, all: &'static [&'static str]| {
        proptest::option::of(proptest::sample::select(all))
            .prop_map(move |value| value.map(|value| (key, value)))
    };
    (
        one("allowance", &["\"1GB\"", "\"7TB\""]),
        one("direction", &["\"in\"", "\"larger\""]),
        one("classes", &["[1]", "[2, 3]"]),
        one("period", &["\"week\"", "\"month\"", "\"30 days\""]),
        one("billing_day", &["1", "31"]),
        one("thresholds", &["[]", "[\"50%\"]"]),
    )
        .prop_map(|all| [all.0, all.1, all.2, all.3, all.4, all.5].into_iter().flatten().collect())
}

proptest! {
    /// A chain of changes, each of which is refused as a whole or has exactly what was asked for; every line
    /// that is not about the quota is still there.
    #[test]
    fn each_change_is_whole(steps in proptest::collection::vec((0_usize..4, values()), 1..6)) {
        let own = |id: &str| Scope::Container(id.to_owned());
        let scopes = [Scope::Default, shops(), own("101"), own("0")];
        let mut text = FILE.to_owned();
        for (which, values) in steps {
            let Ok(new) = set(&text, &change(scopes[which].clone(), &values)) else { continue };
            let quotas = Quotas::parse(&new).unwrap().quotas;
            let old = Quotas::parse(&text).unwrap().quotas;
            let others = |quotas: &[Quota]| {
                let others = quotas.iter().filter(|quota| quota.scope != scopes[which]);
                others.map(|quota| Quota { line: 0, ..quota.clone() }).collect::<Vec<_>>()
            };
            prop_assert_eq!(others(&quotas), others(&old));
            let own = quotas.iter().find(|quota| quota.scope == scopes[which]).unwrap();
            // The same values alone, in a file of their own.
            let alone = set("", &change(scopes[which].clone(), &values));
            if let Ok(alone) = alone {
                let alone = Quotas::parse(&alone).unwrap().quotas.remove(0);
                let is_set = |key: &str| values.iter().any(|(set, _)| *set == key);
                if is_set("direction") { prop_assert_eq!(own.direction, alone.direction); }
                if is_set("classes") { prop_assert_eq!(&own.classes, &alone.classes); }
                if is_set("allowance") { prop_assert_eq!(own.limit, alone.limit); }
                if is_set("thresholds") { prop_assert_eq!(&own.thresholds, &alone.thresholds); }
            }
            prop_assert!(new.contains("# Kept by hand.") && new.contains("# The shops."));
            text = new;
        }
    }
}
