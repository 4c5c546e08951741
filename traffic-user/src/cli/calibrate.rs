//! `trafctl calibrate`

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::{SignedDuration, Timestamp, Zoned, civil::Time, tz::TimeZone};

use crate::{
    calibration::{self, Calibration},
    cli::{
        Done, Format, Global,
        output::{print, print_error, print_message},
    },
    config::Config,
    render::calibration as render,
    time,
};

/// Longest sleep: the clock may be set meanwhile.
const NAP: Duration = Duration::from_secs(30);
/// Looks that are farther apart show that the clock was set, or the machine slept.
const FARTHEST: SignedDuration = SignedDuration::from_hours(1);
/// After a failure by which nothing was proved, it is tried again, and no more often.
const RETRY: Duration = Duration::from_secs(15 * 60);

/// Prove that the counters are right, with known traffic
///
/// Makes a throwaway container, sends packets of known sizes through it in both directions, to and from an address of
/// each class in force, and compares what was counted with what the packets add up to. Counting goes on for everybody
/// else. The interface is trafctl-cal, and the container trafctl-calibration; both are gone after a second, and the
/// traffic stays in the ledger under this id, as that of any container. Status 1 if a single byte differs.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl calibrate\n  \
    trafctl calibrate --format json | jq .exact\n  \
    systemctl enable --now trafctl-calibrate    each day at `[calibration] at`")]
pub struct Options {
    /// Stay, and do it each day at the time of `[calibration] at`
    #[arg(long, conflicts_with = "format")]
    daily: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<Done> {
    if options.daily {
        return daily(global).await;
    }
    let config = global.config_or_last_good()?;
    let calibration = calibration::calibrate(&global.pinned(), &config)?;
    print(&match options.format {
        Format::Table => render::table(&calibration),
        Format::Json => render::json(&calibration)?,
    })?;
    book(global, &config, &calibration)?;
    Ok(Done::success_if(calibration.is_exact()))
}

/// Records the result, if a ledger is kept.
fn book(global: &Global, config: &Config, calibration: &Calibration) -> anyhow::Result<()> {
    if config.ledger_enabled {
        let mut ledger = global.ledger_for_writing()?;
        ledger
            .record_calibration(&calibration.record())
            .context("cannot record the calibration in the ledger")?;
    }
    Ok(())
}

/// Each day until it is killed, which may be at any time: the container ends with the process. What fails is printed,
/// and nothing ends because of it.
async fn daily(global: &Global) -> anyhow::Result<Done> {
    let mut retry_at: Option<Timestamp> = None;
    let mut last = now();
    let mut announced = None;
    loop {
        let at = global.config_or_last_good().ok().map(|config| config.calibration_at);
        if announced != at && at.is_some() {
            announced = at;
            print_message(&match at.flatten() {
                Some(at) => format!("calibrating each day at {}", at.strftime("%H:%M")),
                None => "nothing to do: set `at` under [calibration] in the configuration".to_owned(),
            });
        }
        let now = now();
        let is_due = at.flatten().is_some_and(|at| came_between(&last, &now, at))
            || retry_at.is_some_and(|retry| retry <= now.timestamp());
        last = now.clone();
        if is_due {
            let done = global.config_or_last_good().and_then(|config| once(global, &config));
            retry_at = match done {
                Ok(()) => None,
                Err(error) => {
                    print_error(&error);
                    now.timestamp().checked_add(RETRY).ok()
                }
            };
        }
        tokio::time::sleep(NAP).await;
    }
}

/// The node's local time; the last one that there is, while the clock shows a later one.
fn now() -> Zoned {
    time::now_or_end().to_zoned(TimeZone::system())
}

fn once(global: &Global, config: &Config) -> anyhow::Result<()> {
    let calibration = calibration::calibrate(&global.pinned(), config)?;
    for line in render::lines(&calibration) {
        print_message(&line);
    }
    book(global, config, &calibration)
}

/// Whether the time of day came between two looks. None did where the clock was set back or by more than an hour.
fn came_between(last: &Zoned, now: &Zoned, at: Time) -> bool {
    let since = now.timestamp().duration_since(last.timestamp());
    if since <= SignedDuration::ZERO || since > FARTHEST {
        return false;
    }
    // Of yesterday if midnight is between them. In a night that skips the time, it comes after the skipped hour.
    [last.date(), now.date()].into_iter().any(|date| {
        let due = date.to_datetime(at).to_zoned(now.time_zone().clone());
        due.is_ok_and(|due| *last < due && due <= *now)
    })
}

#[cfg(test)]
mod tests {
    use jiff::{
        ToSpan as _,
        civil::{date, time},
    };

    use super::*;

    #[test]
    fn a_time_of_day_comes_once() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let at =
            |day, hour, minute| date(2026, 3, day).at(hour, minute, 0, 0).to_zoned(zone.clone()).unwrap();
        let due = time(3, 17, 0, 0);
        assert!(!came_between(&at(3, 3, 16), &at(3, 3, 16), due));
        assert!(came_between(&at(3, 3, 16), &at(3, 3, 17), due));
        assert!(!came_between(&at(3, 3, 17), &at(3, 3, 18), due));
        // Over midnight.
        assert!(came_between(&at(3, 23, 59), &at(4, 0, 1), time(0, 0, 0, 0)));
        assert!(came_between(&at(3, 23, 58), &at(4, 0, 1), time(23, 59, 0, 0)));
        // The clock was set back, or far ahead.
        assert!(!came_between(&at(3, 3, 18), &at(3, 3, 16), due));
        assert!(!came_between(&at(3, 3, 16), &at(4, 3, 20), due));
        // The night in which 02:30 does not exist.
        let skipped = time(2, 30, 0, 0);
        let minutes = (0..180).map(|minute| at(29, 1, 0) + minute.minutes());
        let looks: Vec<Zoned> = minutes.collect();
        let came = looks.windows(2).filter(|pair| came_between(&pair[0], &pair[1], skipped)).count();
        assert_eq!(came, 1);
    }
}
