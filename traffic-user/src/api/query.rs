//! The parameters of `/api/v1/counters`: the same filter as the options of `trafctl dump`.

use traffic_common::Family;
use traffic_model::{ContainerId, Wanted};

use crate::queries::parameters::Pairs;

/// Parses `container`, `class` and `family`; the first two may be repeated.
///
/// # Errors
/// One line that names the parameter and what is accepted.
pub(super) fn parse(pairs: &Pairs) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    for (name, value) in pairs {
        match name.as_str() {
            "container" => {
                wanted.containers.push(ContainerId::new(value).map_err(|error| error.to_string())?);
            }
            "class" => {
                let class = value.parse();
                wanted
                    .classes
                    .push(class.map_err(|_| format!("class {value:?} is not a number from 0 to 255"))?);
            }
            "family" if wanted.family.is_some() => return Err("family appears twice".to_owned()),
            "family" => {
                let family = Family::ALL.into_iter().find(|family| family.name() == value);
                wanted.family =
                    Some(family.ok_or_else(|| format!("family {value:?} is unknown; write ipv4 or ipv6"))?);
            }
            _ => {
                return Err(format!("parameter {name:?} is unknown; write container, class or family"));
            }
        }
    }
    Ok(wanted)
}

/// Refuses every parameter, for a document that has no filter.
///
/// # Errors
/// One line that names the first parameter.
pub(super) fn none(pairs: &Pairs) -> Result<(), String> {
    match pairs.first() {
        Some((name, _)) => Err(format!("parameter {name:?} is unknown; this document takes none")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &[(&str, &str)]) -> Result<Wanted, String> {
        parse(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_filter_is_what_dump_takes() {
        let wanted = parsed(&[
            ("container", "101"),
            ("class", "2"),
            ("container", "{6D1E1C39-63E6-4A2B-8EF4-1B7A1D2F3C4D}"),
            ("family", "ipv6"),
            ("class", "0"),
        ])
        .unwrap();
        let ids: Vec<_> = wanted.containers.iter().map(ContainerId::as_str).collect();
        assert_eq!(ids, ["101", "6d1e1c39-63e6-4a2b-8ef4-1b7a1d2f3c4d"]);
        assert_eq!((wanted.classes, wanted.family), (vec![2, 0], Some(Family::Ipv6)));
        assert_eq!(parsed(&[]), Ok(Wanted::default()));
    }

    #[test]
    fn unknown_and_malformed_parameters_are_refused() {
        for (pair, message) in [
            (("containers", "101"), "parameter \"containers\" is unknown"),
            (("Container", "101"), "parameter \"Container\" is unknown"),
            (("class", "256"), "class \"256\" is not a number"),
            (("class", ""), "class \"\" is not a number"),
            (("family", "IPv4"), "family \"IPv4\" is unknown"),
            (("container", "a b"), "a b"),
        ] {
            let error = parsed(&[pair]).unwrap_err();
            assert!(error.contains(message), "{pair:?}: {error}");
        }
        assert_eq!(parsed(&[("family", "ipv4"), ("family", "ipv6")]), Err("family appears twice".to_owned()));
        assert!(none(&vec![("x".to_owned(), String::new())]).is_err());
        assert!(none(&Vec::new()).is_ok());
    }
}
