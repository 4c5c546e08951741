//! `[calibration]`: when the counters are proved right with known traffic.

use jiff::civil::Time;
use serde::Deserialize;
use toml::Spanned;

use super::check::{Problem, problem};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileCalibration {
    at: Option<Spanned<String>>,
}

impl FileCalibration {
    pub(super) fn check(self) -> Result<Option<Time>, Problem> {
        let Some(at) = self.at else { return Ok(None) };
        // In this form only: others of ISO 8601 have meanings of their own.
        let is_plain = at.get_ref().len() == 5;
        match Time::strptime("%H:%M", at.get_ref()) {
            Ok(time) if is_plain => Ok(Some(time)),
            _ => Err(problem(
                &at,
                format!("{:?} is not a time of day; write one such as \"03:17\"", at.get_ref()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::civil::time;

    use crate::config::Config;

    #[test]
    fn a_time_of_day_is_hours_and_minutes() {
        let parse = |text: &str| {
            let parsed = Config::parse(text, Path::new("t.toml"));
            parsed.map(|config| config.calibration_at).map_err(|error| error.to_string())
        };
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("[calibration]\nat = \"03:17\""), Ok(Some(time(3, 17, 0, 0))));
        assert_eq!(parse("[calibration]\nat = \"00:00\""), Ok(Some(time(0, 0, 0, 0))));
        for wrong in ["", "3:17", "24:00", "03:60", "03:17:00", "03.17", "0317Z"] {
            let error = parse(&format!("[calibration]\nat = {wrong:?}")).unwrap_err();
            assert!(
                error.starts_with("t.toml:2:6: ") && error.contains("write one such as \"03:17\""),
                "{error}"
            );
        }
    }
}
