//! A clock that neither steps back nor leaps ahead.
//!
//! Calendar windows need the wall clock, which anyone may set. So it is believed only as far as
//! the machine's own passing of time explains it. Going back holds calendar time still, so no
//! window re-opens. Leaping ahead is refused until somebody confirms it, so no window is skipped.
//! Rate windows need only durations: they run on elapsed time, which the wall clock cannot stop.

use super::SECOND_NS;

/// How far the wall clock may be ahead of elapsed time before it counts as a leap.
const TOLERANCE_NS: i64 = 2 * SECOND_NS;
/// How fast a clock may be slewed while it is being corrected: 500 parts in a million.
const SLEW_PARTS: i64 = 2_000;

/// One look at the machine's clocks, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the Unix epoch; may be set by anyone, in either direction.
    pub wall_ns: i64,
    /// Monotonic; may stand still while the machine sleeps.
    pub mono_ns: i64,
    /// Since boot, sleep included. Where a system lacks it, the monotonic clock again.
    pub boot_ns: i64,
}

/// A moment of trusted time. Neither part ever goes back, not even over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds since the Unix epoch, for calendar windows. May stand still.
    pub calendar_ns: i64,
    /// Nanoseconds on a clock that runs on whatever the wall clock does, for rate windows.
    pub elapsed_ns: i64,
}

impl Stamp {
    /// Both clocks at the same figure, as they are while nobody touches the wall clock.
    pub fn at(ns: i64) -> Self {
        Self {
            calendar_ns: ns,
            elapsed_ns: ns,
        }
    }

    /// The later of two moments, each clock by itself.
    pub fn max(self, other: Self) -> Self {
        Self {
            calendar_ns: self.calendar_ns.max(other.calendar_ns),
            elapsed_ns: self.elapsed_ns.max(other.elapsed_ns),
        }
    }
}

/// What the trusted clock made of a look at the machine's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The wall clock is believed.
    Steady(Stamp),
    /// The wall clock is behind trusted time by this much; calendar time stands still.
    HeldStill(Stamp, i64),
    /// The wall clock is ahead of what can be explained by this much; it is not believed until
    /// [`TrustedTime::confirm`]. Calendar time goes on at the machine's own pace.
    LeapRefused(Stamp, i64),
}

impl Reading {
    /// The moment to use, whatever was made of the clock.
    pub fn stamp(self) -> Stamp {
        match self {
            Self::Steady(stamp) | Self::HeldStill(stamp, _) | Self::LeapRefused(stamp, _) => stamp,
        }
    }
}

/// Turns looks at the machine's clocks into moments that never go back.
#[derive(Clone, Debug)]
pub struct TrustedTime {
    /// Where the wall clock was last believed on its own word.
    anchor: Now,
    last: Now,
    stamp: Stamp,
}

impl TrustedTime {
    /// Starts from the clocks, but never before `high_water`, the ledger's latest moment.
    ///
    /// Time that passed while the daemon was down cannot be explained by this boot's clock, so
    /// at the start a wall clock that is ahead is believed. One that is behind is wrong, maybe
    /// not set yet: time goes on from the high water once it is put right.
    pub fn resume(high_water: Stamp, now: Now) -> Self {
        let stamp = high_water.max(Stamp::at(now.wall_ns));
        Self {
            anchor: Now {
                wall_ns: stamp.calendar_ns,
                ..now
            },
            last: now,
            stamp,
        }
    }

    /// The latest moment, without looking at the clocks.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Takes one look at the clocks.
    pub fn observe(&mut self, now: Now) -> Reading {
        let step = self.elapsed(now);
        self.stamp.elapsed_ns = self.stamp.elapsed_ns.saturating_add(step);
        self.last = now;
        let explained = self.explained_wall(now);
        let slack = TOLERANCE_NS + (now.boot_ns - self.anchor.boot_ns).max(0) / SLEW_PARTS;
        let ahead = now.wall_ns.saturating_sub(explained);
        if ahead > slack {
            self.stamp.calendar_ns = self.stamp.calendar_ns.max(explained);
            return Reading::LeapRefused(self.stamp, ahead);
        }
        let behind = self.stamp.calendar_ns.saturating_sub(now.wall_ns);
        if behind > 0 {
            return Reading::HeldStill(self.stamp, behind);
        }
        self.stamp.calendar_ns = now.wall_ns;
        Reading::Steady(self.stamp)
    }

    /// Believes the wall clock as it stands: an operator, or time synchronisation, vouches for it.
    /// Going back still only holds calendar time still.
    pub fn confirm(&mut self, now: Now) -> Stamp {
        self.observe(now);
        self.anchor = now;
        self.stamp.calendar_ns = self.stamp.calendar_ns.max(now.wall_ns);
        self.stamp
    }

    /// Nanoseconds that have passed since the last look, by the faster of the steady clocks.
    fn elapsed(&self, now: Now) -> i64 {
        let boot = now.boot_ns.saturating_sub(self.last.boot_ns);
        let mono = now.mono_ns.saturating_sub(self.last.mono_ns);
        boot.max(mono).max(0)
    }

    /// Where the wall clock would be had nobody touched it.
    fn explained_wall(&self, now: Now) -> i64 {
        let boot = now.boot_ns.saturating_sub(self.anchor.boot_ns);
        let mono = now.mono_ns.saturating_sub(self.anchor.mono_ns);
        self.anchor.wall_ns.saturating_add(boot.max(mono).max(0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DAY_NS, HOUR_NS};
    use super::*;

    const START: i64 = 1_780_000_000 * SECOND_NS;

    fn clocks(wall_ns: i64, passed_ns: i64) -> Now {
        Now {
            wall_ns,
            mono_ns: passed_ns,
            boot_ns: passed_ns,
        }
    }

    fn started() -> TrustedTime {
        TrustedTime::resume(Stamp::default(), clocks(START, 0))
    }

    #[test]
    fn follows_a_steady_clock() {
        let mut time = started();
        let reading = time.observe(clocks(START + HOUR_NS, HOUR_NS));
        assert_eq!(reading, Reading::Steady(Stamp::at(START + HOUR_NS)));
        assert_eq!(time.stamp(), reading.stamp());
    }

    #[test]
    fn a_step_back_holds_the_calendar_and_not_the_rates() {
        let mut time = started();
        let reading = time.observe(clocks(START - HOUR_NS, SECOND_NS));
        let Reading::HeldStill(stamp, behind) = reading else {
            panic!("{reading:?}")
        };
        assert_eq!((stamp.calendar_ns, behind), (START, HOUR_NS));
        assert_eq!(stamp.elapsed_ns, START + SECOND_NS);
        let later = time.observe(clocks(START + SECOND_NS, HOUR_NS + SECOND_NS));
        assert_eq!(
            later.stamp().calendar_ns,
            START + SECOND_NS,
            "caught up again"
        );
    }

    #[test]
    fn an_unexplained_leap_waits_for_a_word() {
        let mut time = started();
        let leapt = clocks(START + 40 * DAY_NS, SECOND_NS);
        let reading = time.observe(leapt);
        assert!(matches!(reading, Reading::LeapRefused(_, _)), "{reading:?}");
        assert_eq!(reading.stamp(), Stamp::at(START + SECOND_NS));
        assert_eq!(time.confirm(leapt).calendar_ns, START + 40 * DAY_NS);
        let after = time.observe(clocks(START + 40 * DAY_NS + SECOND_NS, 2 * SECOND_NS));
        assert!(matches!(after, Reading::Steady(_)), "{after:?}");
    }

    #[test]
    fn small_leaps_do_not_add_up() {
        let mut time = started();
        for second in 1..=100 {
            // The wall clock runs at twice the speed of time.
            time.observe(clocks(START + 2 * second * SECOND_NS, second * SECOND_NS));
        }
        let drift = time.stamp().calendar_ns - START - 100 * SECOND_NS;
        assert!(
            drift <= TOLERANCE_NS + 100 * SECOND_NS / SLEW_PARTS,
            "{drift}"
        );
    }

    #[test]
    fn sleep_explains_a_leap() {
        let mut time = started();
        let woken = Now {
            wall_ns: START + 9 * HOUR_NS,
            mono_ns: 1,
            boot_ns: 9 * HOUR_NS,
        };
        assert!(matches!(time.observe(woken), Reading::Steady(_)));
    }

    #[test]
    fn a_restart_never_goes_behind_the_ledger() {
        let high = Stamp {
            calendar_ns: START + DAY_NS,
            elapsed_ns: START + 2 * DAY_NS,
        };
        let mut time = TrustedTime::resume(high, clocks(START, 7));
        assert_eq!(time.stamp(), high);
        let reading = time.observe(clocks(START + SECOND_NS, 7 + SECOND_NS));
        assert_eq!(reading.stamp().calendar_ns, START + DAY_NS);
        assert_eq!(reading.stamp().elapsed_ns, START + 2 * DAY_NS + SECOND_NS);
        let ahead = TrustedTime::resume(high, clocks(START + 3 * DAY_NS, 0));
        assert_eq!(ahead.stamp(), Stamp::at(START + 3 * DAY_NS));
    }

    #[test]
    fn a_start_before_the_clock_is_set_goes_on_when_it_is() {
        let high = Stamp::at(START);
        let mut time = TrustedTime::resume(high, clocks(0, 0));
        let unset = time.observe(clocks(HOUR_NS, HOUR_NS));
        assert!(matches!(unset, Reading::HeldStill(_, _)), "{unset:?}");
        assert_eq!(unset.stamp().calendar_ns, START);
        // The daemon was down for a minute that nothing here explains.
        let minute = 60 * SECOND_NS;
        let set = time.observe(clocks(START + HOUR_NS + minute, HOUR_NS));
        assert!(
            matches!(set, Reading::LeapRefused(_, ahead) if ahead == minute),
            "{set:?}"
        );
        assert_eq!(set.stamp().calendar_ns, START + HOUR_NS);
        let later = time.observe(clocks(START + 2 * HOUR_NS + minute, 2 * HOUR_NS));
        assert_eq!(later.stamp().calendar_ns, START + 2 * HOUR_NS);
    }
}
