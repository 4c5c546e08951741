//! The clock that traffic is booked by: a line of time over `CLOCK_BOOTTIME`, which neither steps nor stops.
//! Pure.
//!
//! The line follows the wall clock as long as that is plausible. Small steps are followed at once. A large
//! step of a clock that was trusted is not: traffic stays on the line, until the wall clock returns to it or
//! has stood at its new time for a week. Then what was booked since the step moves along. A boot whose clock
//! does not continue the one before is on trial for a week: a large step within that time moves everything
//! that the boot booked. Time never runs back behind a reading that was trusted.

/// Larger steps, and larger differences after a reboot, are not followed without confirmation.
pub(crate) const LARGE_MS: i64 = 86_400_000;
/// How long a clock must be steady until it is trusted against an earlier one.
pub(crate) const TRUST_MS: i64 = 7 * 86_400_000;
/// How long the clock of a first start must be steady until rows may be dropped by it.
const SETTLED_MS: i64 = 86_400_000;
/// Smaller steps cannot be distinguished from a clock that is being slewed.
const TOLERANCE_MS: i64 = 2000;
/// A clock may be slewed by 500 parts per million; this allows twice that.
const SLEW_DIVISOR: i64 = 1000;
/// No clock that shows less is right: 2020-01-01.
const PLAUSIBLE_MS: i64 = 1_577_836_800_000;
/// An older reading of the same boot can only come from a node that was reverted together with its memory.
/// Smaller differences would come from two readers at once.
pub(crate) const REVERTED_MS: i64 = 10_000;

/// Whether the line is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// It continues a trusted clock, or has been steady for a week.
    None,
    /// Nothing is known about the clock of the first start, and nothing contradicts it.
    FirstStart,
    /// It does not continue the clock before.
    Jump,
}

/// The line after a reading. All times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClockLine {
    pub boot_id: String,
    /// `CLOCK_BOOTTIME` of the last reading.
    pub boot_ms: i64,
    /// Booked time minus `CLOCK_BOOTTIME`.
    pub offset_ms: i64,
    pub trial: Trial,
    /// Booked time since which the trial runs.
    pub since_ms: i64,
    /// The wall clock minus `CLOCK_BOOTTIME`, and since when, while it is not followed.
    pub distrusted: Option<Distrusted>,
    /// Booked time of the last reading with a trusted clock.
    pub trusted_ms: Option<i64>,
}

/// A wall clock that is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Distrusted {
    pub offset_ms: i64,
    /// `CLOCK_BOOTTIME`.
    pub since_boot_ms: i64,
}

/// Both clocks of a reading.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks<'a> {
    pub boot_id: &'a str,
    pub boot_ms: i64,
    pub wall_ms: i64,
    /// Whether it is an earlier boot than that of the last reading. Only a revert brings one back.
    pub of_earlier_boot: bool,
}

/// What a reading's clocks mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockEvent {
    /// Nothing happened to the clock.
    Steady,
    /// The wall clock was set, or stood behind after a reboot; the line follows.
    Stepped { by_ms: i64 },
    /// The wall clock was set by so much that it is not followed.
    Distrusted { by_ms: i64 },
    /// After a reboot the clock is far ahead. It is followed, on trial.
    Ahead { by_ms: i64 },
    /// A clock on trial was set. Everything that the boot booked moves.
    BootMoves { by_ms: i64 },
    /// A clock that was not followed is trusted now. What was booked since then moves.
    SinceMoves { by_ms: i64, since_ms: i64 },
    /// The node was reverted together with its memory: by so much, or into an earlier boot.
    Reverted { by_ms: Option<i64> },
}

impl ClockLine {
    /// Booked time of the last reading.
    pub const fn time_ms(&self) -> i64 {
        self.boot_ms + self.offset_ms
    }

    /// Whether rows may be dropped by this clock.
    pub const fn may_drop(&self) -> bool {
        let steady_ms = self.time_ms() - self.since_ms;
        self.distrusted.is_none()
            && match self.trial {
                Trial::None => true,
                Trial::FirstStart => steady_ms >= SETTLED_MS,
                Trial::Jump => false,
            }
    }

    /// Follows a reading.
    pub fn follow(last: Option<&Self>, now: Clocks<'_>) -> (Self, ClockEvent) {
        let offset_ms = now.wall_ms - now.boot_ms;
        let Some(last) = last else {
            let line = Self {
                boot_id: now.boot_id.to_owned(),
                boot_ms: now.boot_ms,
                offset_ms,
                trial: Trial::FirstStart,
                since_ms: now.wall_ms,
                distrusted: None,
                trusted_ms: None,
            };
            return (line, ClockEvent::Steady);
        };
        let same_boot = last.boot_id == now.boot_id;
        let reverted = now.of_earlier_boot || same_boot && now.boot_ms < last.boot_ms;
        let (mut line, event) = if reverted || !same_boot {
            let (mut line, event) = last.after_restart(now);
            let by_ms = same_boot.then_some(now.boot_ms - last.boot_ms);
            if reverted {
                // What the boot booked before it was reverted never moves.
                line.trial = Trial::None;
            }
            (line, if reverted { ClockEvent::Reverted { by_ms } } else { event })
        } else {
            last.same_boot(now)
        };
        line.boot_ms = now.boot_ms;
        if line.trial != Trial::None
            && line.distrusted.is_none()
            && line.time_ms() - line.since_ms >= TRUST_MS
        {
            line.trial = Trial::None;
        }
        if line.trial == Trial::None && line.distrusted.is_none() {
            line.trusted_ms = Some(line.time_ms());
        }
        (line, event)
    }

    fn same_boot(&self, now: Clocks<'_>) -> (Self, ClockEvent) {
        let mut line = self.clone();
        let by_ms = now.wall_ms - now.boot_ms - self.offset_ms;
        let steady_since = self.distrusted.map_or(self.boot_ms, |distrusted| distrusted.since_boot_ms);
        let tolerance_ms = TOLERANCE_MS + (now.boot_ms - steady_since) / SLEW_DIVISOR;
        if by_ms.abs() <= LARGE_MS {
            (line.offset_ms, line.distrusted) = (now.wall_ms - now.boot_ms, None);
            // It continues the last trusted reading after all.
            if let (Some(waited), Some(trusted_ms)) = (self.distrusted, self.trusted_ms)
                && self.time_ms() - trusted_ms <= LARGE_MS + self.boot_ms - waited.since_boot_ms
            {
                line.trial = Trial::None;
            }
            let steady = by_ms.abs() <= tolerance_ms;
            return (line, if steady { ClockEvent::Steady } else { ClockEvent::Stepped { by_ms } });
        }
        let offset_ms = now.wall_ms - now.boot_ms;
        let impossible = now.wall_ms < PLAUSIBLE_MS;
        let still = self.distrusted.filter(|before| (offset_ms - before.offset_ms).abs() <= LARGE_MS);
        let moves = |mut line: Self| {
            (line.offset_ms, line.distrusted, line.since_ms) = (offset_ms, None, now.wall_ms);
            line
        };
        if let Some(before) = still {
            if now.boot_ms - before.since_boot_ms < TRUST_MS || impossible {
                return (line, ClockEvent::Steady);
            }
            if self.trial == Trial::None {
                let since_ms = before.since_boot_ms + self.offset_ms;
                return (moves(line), ClockEvent::SinceMoves { by_ms, since_ms });
            }
            // Its own week is over.
            line.trial = Trial::None;
            return (moves(line), ClockEvent::BootMoves { by_ms });
        }
        let behind_trusted = self.trusted_ms.is_some_and(|trusted| now.wall_ms < trusted);
        if self.trial != Trial::None && !impossible && !behind_trusted {
            line.trial = Trial::Jump;
            return (moves(line), ClockEvent::BootMoves { by_ms });
        }
        line.distrusted = Some(Distrusted { offset_ms, since_boot_ms: now.boot_ms });
        (line, ClockEvent::Distrusted { by_ms })
    }

    /// The line of a new boot, or of a node that was reverted.
    fn after_restart(&self, now: Clocks<'_>) -> (Self, ClockEvent) {
        // The clock of a boot on trial proves nothing about the next one.
        let proven_ms = if self.trial == Trial::None { Some(self.time_ms()) } else { self.trusted_ms };
        let known_ms = proven_ms.unwrap_or_else(|| self.time_ms());
        let by_ms = now.wall_ms - known_ms;
        let mut line = Self {
            boot_id: now.boot_id.to_owned(),
            boot_ms: now.boot_ms,
            offset_ms: now.wall_ms - now.boot_ms,
            since_ms: now.wall_ms,
            distrusted: None,
            ..self.clone()
        };
        if by_ms > LARGE_MS || proven_ms.is_none() && by_ms < -LARGE_MS {
            line.trial = Trial::Jump;
            return (line, ClockEvent::Ahead { by_ms });
        }
        if by_ms < -LARGE_MS {
            // Time does not run back. The earliest possible time is that of the last trusted reading.
            line.offset_ms = known_ms - now.boot_ms;
            line.since_ms = known_ms;
            line.trial = Trial::Jump;
            line.distrusted =
                Some(Distrusted { offset_ms: now.wall_ms - now.boot_ms, since_boot_ms: now.boot_ms });
            return (line, ClockEvent::Distrusted { by_ms });
        }
        if proven_ms.is_some() {
            line.trial = Trial::None;
        } else {
            (line.trial, line.since_ms) = (self.trial, self.since_ms);
        }
        (line, if by_ms < 0 { ClockEvent::Stepped { by_ms } } else { ClockEvent::Steady })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: i64 = 1_800_000_000_000;
    const DAY: i64 = 86_400_000;
    const HOUR: i64 = 3_600_000;

    /// Follows readings of (boot, `CLOCK_BOOTTIME`, wall clock); returns the events and the line.
    fn follow(readings: &[(&str, i64, i64)]) -> (Vec<ClockEvent>, ClockLine) {
        let mut line = None;
        let mut events = Vec::new();
        for &(boot_id, boot_ms, wall_ms) in readings {
            let known = readings[..events.len()].iter().any(|reading| reading.0 == boot_id);
            let of_earlier_boot =
                known && line.as_ref().is_some_and(|line: &ClockLine| line.boot_id != boot_id);
            let clocks = Clocks { boot_id, boot_ms, wall_ms, of_earlier_boot };
            let (next, event) = ClockLine::follow(line.as_ref(), clocks);
            line = Some(next);
            events.push(event);
        }
        (events, line.unwrap())
    }

    /// A boot that ran for ten days with a right clock.
    const TRUSTED: [(&str, i64, i64); 2] = [("a", 0, T), ("a", 10 * DAY, T + 10 * DAY)];

    #[test]
    fn small_steps_are_followed() {
        let (events, line) = follow(&[("a", 0, T), ("a", HOUR, T + 3 * HOUR), ("a", 2 * HOUR, T + 2 * HOUR)]);
        let (there, back) =
            (ClockEvent::Stepped { by_ms: 2 * HOUR }, ClockEvent::Stepped { by_ms: -2 * HOUR });
        assert_eq!(events, [ClockEvent::Steady, there, back]);
        assert_eq!(line.time_ms(), T + 2 * HOUR);
        // A day at 500 ppm.
        assert_eq!(follow(&[("a", 0, T), ("a", DAY, T + DAY + 43_000)]).0[1], ClockEvent::Steady);
    }

    #[test]
    fn a_trusted_clock_that_jumps_is_not_followed_and_may_return() {
        let ahead = 60 * DAY;
        let mut readings = TRUSTED.to_vec();
        for day in 11..=12 {
            readings.push(("a", day * DAY, T + day * DAY + ahead));
        }
        let (events, line) = follow(&readings);
        assert_eq!(events[2..], [ClockEvent::Distrusted { by_ms: ahead }, ClockEvent::Steady]);
        assert_eq!(line.time_ms(), T + 12 * DAY);
        assert!(!line.may_drop());
        readings.push(("a", 13 * DAY, T + 13 * DAY));
        let (events, line) = follow(&readings);
        assert_eq!((events[4], line.time_ms(), line.may_drop()), (ClockEvent::Steady, T + 13 * DAY, true));
    }

    #[test]
    fn a_clock_that_stays_is_trusted_after_a_week() {
        let mut readings = TRUSTED.to_vec();
        for day in 11..=18 {
            readings.push(("a", day * DAY, T + day * DAY + 60 * DAY));
        }
        let (events, line) = follow(&readings);
        assert_eq!(events[9], ClockEvent::SinceMoves { by_ms: 60 * DAY, since_ms: T + 11 * DAY });
        assert_eq!((line.time_ms(), line.trial), (T + 78 * DAY, Trial::None));
    }

    #[test]
    fn the_first_clock_moves_everything_when_it_is_set() {
        for wrong in [0, T + 3650 * DAY] {
            let (events, line) = follow(&[("a", 0, wrong), ("a", HOUR, wrong + HOUR), ("a", 2 * HOUR, T)]);
            assert_eq!(events[2], ClockEvent::BootMoves { by_ms: T - wrong - 2 * HOUR });
            assert_eq!((line.time_ms(), line.trial), (T, Trial::Jump));
        }
    }

    #[test]
    fn a_clock_behind_after_a_reboot_waits_at_the_last_reading() {
        let mut readings = TRUSTED.to_vec();
        readings.extend([("b", 60_000, 60_000), ("b", 120_000, 120_000)]);
        let (events, line) = follow(&readings);
        assert_eq!(events[2], ClockEvent::Distrusted { by_ms: 60_000 - T - 10 * DAY });
        assert_eq!(line.time_ms(), T + 10 * DAY + 60_000);
        // Set after ten minutes: followed. Set after the node was off for a month: all of the boot moves.
        for (later, moves) in [(600_000, false), (30 * DAY, true)] {
            let mut readings = readings.clone();
            readings.push(("b", 180_000, T + 10 * DAY + later));
            let (events, line) = follow(&readings);
            assert_eq!(matches!(events[4], ClockEvent::BootMoves { .. }), moves, "{:?}", events[4]);
            assert_eq!(line.time_ms(), T + 10 * DAY + later);
        }
    }

    #[test]
    fn a_clock_ahead_after_a_reboot_is_on_trial() {
        let mut readings = TRUSTED.to_vec();
        readings.extend([
            ("b", 60_000, T + 70 * DAY),
            ("b", 2 * DAY, T + 72 * DAY),
            ("b", 3 * DAY, T + 13 * DAY),
        ]);
        let (events, line) = follow(&readings);
        assert_eq!(events[2], ClockEvent::Ahead { by_ms: 60 * DAY });
        assert!(matches!(events[4], ClockEvent::BootMoves { by_ms } if by_ms < -59 * DAY));
        assert_eq!((line.time_ms(), line.trial), (T + 13 * DAY, Trial::Jump));
    }

    #[test]
    fn one_boot_in_another_decade_does_not_bind_the_next() {
        let mut readings = TRUSTED.to_vec();
        readings.extend([("b", 60_000, T + 3650 * DAY), ("c", 60_000, T + 11 * DAY)]);
        let (events, line) = follow(&readings);
        assert_eq!((events[3], line.time_ms()), (ClockEvent::Steady, T + 11 * DAY));
        // The same before there was any trusted clock.
        let (_, line) = follow(&[("b", 60_000, T + 3650 * DAY), ("c", 60_000, T)]);
        assert_eq!((line.time_ms(), line.trial), (T, Trial::Jump));
    }

    #[test]
    fn a_reverted_node_continues_at_its_last_reading() {
        let mut readings = TRUSTED.to_vec();
        readings.extend([("a", 5 * DAY, T + 5 * DAY), ("a", 5 * DAY + HOUR, T + 10 * DAY + 2 * HOUR)]);
        let (events, line) = follow(&readings);
        assert_eq!(events[2], ClockEvent::Reverted { by_ms: Some(-5 * DAY) });
        assert_eq!(events[3], ClockEvent::Stepped { by_ms: HOUR });
        assert_eq!(line.time_ms(), T + 10 * DAY + 2 * HOUR);
    }

    #[test]
    fn a_node_reverted_into_an_earlier_boot_is_recognised() {
        let mut readings = TRUSTED.to_vec();
        readings.push(("b", 60_000, T + 11 * DAY));
        // The counters of that boot may even have been read earlier than they are now.
        readings.push(("a", 10 * DAY + HOUR, T + 12 * DAY));
        let (events, line) = follow(&readings);
        assert_eq!(events[3], ClockEvent::Reverted { by_ms: None });
        assert_eq!((line.time_ms(), line.trial), (T + 12 * DAY, Trial::None));
    }
}
