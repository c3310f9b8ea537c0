//! Where a window begins and ends.
//!
//! A day is from the first instant of a date in its zone to the first instant of the next date:
//! 23, 24 or 25 hours, and it need not begin at midnight, which some zones skip. Weeks begin on
//! Monday. Whoever opens a window stores its bounds, so that a later time zone database cannot
//! move them.

use std::fmt;

use jiff::civil::{Date, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};

use super::DAY_NS;

/// Slots that a rolling window is divided into. An expiring slot counts whole, so spend stays
/// for at most one part in this many longer than the window says.
pub const ROLLING_SLOTS: i64 = 96;

/// How long a counter counts before it starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum WindowKind {
    /// A date in the counter's zone.
    Day = 0,
    /// Monday to Sunday in the counter's zone.
    Week = 1,
    /// A calendar month in the counter's zone.
    Month = 2,
    /// For ever.
    Total = 3,
    /// The last 24 hours.
    RollingDay = 4,
    /// The last 7 × 24 hours.
    RollingWeek = 5,
    /// The last 30 × 24 hours.
    RollingMonth = 6,
}

impl WindowKind {
    /// Every kind, in the order of its code.
    pub const ALL: [Self; 7] = [
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Total,
        Self::RollingDay,
        Self::RollingWeek,
        Self::RollingMonth,
    ];

    /// The kind with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The word for it in configuration and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Total => "total",
            Self::RollingDay => "rolling_day",
            Self::RollingWeek => "rolling_week",
            Self::RollingMonth => "rolling_month",
        }
    }

    /// The length of a rolling window; `None` for the others.
    pub fn rolling_ns(self) -> Option<i64> {
        match self {
            Self::RollingDay => Some(DAY_NS),
            Self::RollingWeek => Some(7 * DAY_NS),
            Self::RollingMonth => Some(30 * DAY_NS),
            Self::Day | Self::Week | Self::Month | Self::Total => None,
        }
    }

    /// The length of one slot of a rolling window; `None` for the others.
    pub fn slot_ns(self) -> Option<i64> {
        self.rolling_ns().map(|window| window / ROLLING_SLOTS)
    }
}

/// One window: from `start_ns`, up to but not including `end_ns`, since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its first nanosecond.
    pub start_ns: i64,
    /// The first nanosecond after it; `i64::MAX` for windows that never end.
    pub end_ns: i64,
}

/// The time zone database does not have this zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownZone(pub String);

impl fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown time zone {:?}: use an IANA name such as UTC or Europe/Berlin",
            self.0
        )
    }
}

impl std::error::Error for UnknownZone {}

/// The rules of one zone.
#[derive(Clone, Debug)]
pub struct ZoneRules(TimeZone);

impl ZoneRules {
    /// The window of this kind that the instant is in.
    pub fn bounds(&self, kind: WindowKind, at_ns: i64) -> Bounds {
        let open_ended = |start_ns| Bounds {
            start_ns,
            end_ns: i64::MAX,
        };
        let date = self.date(at_ns);
        match kind {
            WindowKind::Day => self.between(date, date.saturating_add(1.day())),
            WindowKind::Week => {
                let monday = date.saturating_sub(i64::from(since_monday(date)).days());
                self.between(monday, monday.saturating_add(7.days()))
            }
            WindowKind::Month => {
                let first = date.first_of_month();
                self.between(first, first.saturating_add(1.month()))
            }
            WindowKind::Total
            | WindowKind::RollingDay
            | WindowKind::RollingWeek
            | WindowKind::RollingMonth => open_ended(at_ns),
        }
    }

    fn date(&self, at_ns: i64) -> Date {
        // Every i64 of nanoseconds is between the years 1677 and 2262, so this cannot fail.
        let instant =
            Timestamp::from_nanosecond(i128::from(at_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
        self.0.to_datetime(instant).date()
    }

    fn between(&self, from: Date, to: Date) -> Bounds {
        Bounds {
            start_ns: self.first_instant(from),
            end_ns: self.first_instant(to),
        }
    }

    /// The first instant of a date. Where midnight is skipped, the end of the gap; where it comes
    /// twice, the earlier one.
    fn first_instant(&self, date: Date) -> i64 {
        let midnight = self.0.to_ambiguous_timestamp(date.at(0, 0, 0, 0));
        let skipped = matches!(midnight.offset(), AmbiguousOffset::Gap { .. });
        let Ok(instant) = midnight.compatible() else {
            return i64::MAX;
        };
        // A gap may begin before midnight, and then midnight's stand-in is past the gap's end.
        let gap_end = skipped
            .then(|| {
                self.0
                    .preceding(instant + 1.nanosecond())
                    .next()
                    .map(|t| t.timestamp())
            })
            .flatten();
        let ns = gap_end.unwrap_or(instant).as_nanosecond();
        i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
    }
}

fn since_monday(date: Date) -> i8 {
    date.weekday().since(Weekday::Monday)
}

/// The bundled time zone database.
#[derive(Clone, Debug)]
pub struct Zones(TimeZoneDatabase);

impl Default for Zones {
    fn default() -> Self {
        Self(TimeZoneDatabase::bundled())
    }
}

impl Zones {
    /// The rules of a zone by its IANA name.
    pub fn rules(&self, name: &str) -> Result<ZoneRules, UnknownZone> {
        self.0
            .get(name)
            .map(ZoneRules)
            .map_err(|_| UnknownZone(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HOUR_NS, SECOND_NS};
    use super::*;

    fn rules(zone: &str) -> ZoneRules {
        Zones::default().rules(zone).expect(zone)
    }

    fn ns(text: &str) -> i64 {
        let instant: Timestamp = text.parse().expect(text);
        i64::try_from(instant.as_nanosecond()).expect(text)
    }

    fn day(zone: &str, at: &str) -> (i64, i64, i64) {
        let Bounds { start_ns, end_ns } = rules(zone).bounds(WindowKind::Day, ns(at));
        (start_ns, end_ns, (end_ns - start_ns) / HOUR_NS)
    }

    /// Days that begin late, or are longer or shorter: zone, an instant, its window, its hours.
    #[test]
    fn days_at_clock_changes() {
        let fixtures = [
            // Midnight is skipped: the day begins at 01:00.
            (
                "Africa/Cairo",
                "2026-04-24T12:00:00Z",
                "2026-04-23T22:00:00Z",
                "2026-04-24T21:00:00Z",
                23,
            ),
            (
                "America/Havana",
                "2026-03-08T12:00:00Z",
                "2026-03-08T05:00:00Z",
                "2026-03-09T04:00:00Z",
                23,
            ),
            (
                "America/Santiago",
                "2026-09-06T12:00:00Z",
                "2026-09-06T04:00:00Z",
                "2026-09-07T03:00:00Z",
                23,
            ),
            (
                "Asia/Beirut",
                "2026-03-29T12:00:00Z",
                "2026-03-28T22:00:00Z",
                "2026-03-29T21:00:00Z",
                23,
            ),
            (
                "Atlantic/Azores",
                "2027-03-28T12:00:00Z",
                "2027-03-28T01:00:00Z",
                "2027-03-29T00:00:00Z",
                23,
            ),
            // 23:00 to midnight comes twice, so the day is the longer for it.
            (
                "Africa/Cairo",
                "2026-10-29T12:00:00Z",
                "2026-10-28T21:00:00Z",
                "2026-10-29T22:00:00Z",
                25,
            ),
            (
                "America/Santiago",
                "2026-04-04T12:00:00Z",
                "2026-04-04T03:00:00Z",
                "2026-04-05T04:00:00Z",
                25,
            ),
            (
                "Asia/Beirut",
                "2026-10-24T12:00:00Z",
                "2026-10-23T21:00:00Z",
                "2026-10-24T22:00:00Z",
                25,
            ),
            // Midnight comes twice: the day begins at the earlier one.
            (
                "America/Havana",
                "2026-11-01T12:00:00Z",
                "2026-11-01T04:00:00Z",
                "2026-11-02T05:00:00Z",
                25,
            ),
            (
                "Atlantic/Azores",
                "2026-10-25T12:00:00Z",
                "2026-10-25T00:00:00Z",
                "2026-10-26T01:00:00Z",
                25,
            ),
            // The usual kind, at night but not at midnight.
            (
                "Europe/Berlin",
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
                23,
            ),
            (
                "Australia/Lord_Howe",
                "2026-10-04T00:00:00Z",
                "2026-10-03T13:30:00Z",
                "2026-10-04T13:00:00Z",
                23,
            ),
            (
                "UTC",
                "2026-03-29T12:00:00Z",
                "2026-03-29T00:00:00Z",
                "2026-03-30T00:00:00Z",
                24,
            ),
        ];
        for (zone, at, start, end, hours) in fixtures {
            assert_eq!(day(zone, at), (ns(start), ns(end), hours), "{zone} {at}");
        }
    }

    #[test]
    fn the_hour_that_comes_twice_is_one_day() {
        // Beirut, 25 October 2026: 23:30 of the 24th, twice, then the 25th.
        let first = day("Asia/Beirut", "2026-10-24T20:30:00Z");
        let second = day("Asia/Beirut", "2026-10-24T21:30:00Z");
        let next = day("Asia/Beirut", "2026-10-24T22:00:00Z");
        assert_eq!(first, second);
        assert_eq!(next.0, second.1);
    }

    #[test]
    fn a_gap_that_begins_before_midnight() {
        // Toronto, 1919: 23:30 on 30 March became 00:30 on the 31st.
        let zone = rules("America/Toronto");
        let change = ns("1919-03-31T04:30:00Z");
        let after = zone.bounds(WindowKind::Day, change);
        assert_eq!(after.start_ns, change);
        assert_eq!(zone.bounds(WindowKind::Day, change - 1).end_ns, change);
    }

    #[test]
    fn a_date_that_never_was() {
        // Samoa skipped 30 December 2011.
        let zone = rules("Pacific/Apia");
        let eve = zone.bounds(WindowKind::Day, ns("2011-12-30T09:00:00Z"));
        let next = zone.bounds(WindowKind::Day, ns("2011-12-30T10:00:00Z"));
        assert_eq!(eve.end_ns, next.start_ns);
        assert_eq!(next.start_ns, ns("2011-12-30T10:00:00Z"));
    }

    #[test]
    fn weeks_months_years() {
        let utc = rules("UTC");
        let window = |kind, at: &str| utc.bounds(kind, ns(at));
        let between = |from: &str, to: &str| Bounds {
            start_ns: ns(from),
            end_ns: ns(to),
        };
        let week = window(WindowKind::Week, "2026-01-01T00:00:00Z");
        assert_eq!(
            week,
            between("2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z")
        );
        let monday = window(WindowKind::Week, "2026-01-05T00:00:00Z");
        assert_eq!(monday.start_ns, week.end_ns);
        let leap = window(WindowKind::Month, "2028-02-29T23:59:59.999999999Z");
        assert_eq!(
            leap,
            between("2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z")
        );
        let leap_day = window(WindowKind::Day, "2028-02-29T13:00:00Z");
        assert_eq!(
            leap_day,
            between("2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z")
        );
        let short = window(WindowKind::Month, "2027-02-28T23:59:59Z");
        assert_eq!(short.end_ns, ns("2027-03-01T00:00:00Z"));
        let december = window(WindowKind::Month, "2026-12-31T23:59:59Z");
        assert_eq!(december.end_ns, ns("2027-01-01T00:00:00Z"));
        let eve = rules("Pacific/Auckland").bounds(WindowKind::Day, ns("2026-12-31T10:59:59Z"));
        assert_eq!(eve.end_ns, ns("2026-12-31T11:00:00Z"));
    }

    #[test]
    fn months_with_a_clock_change_differ_by_an_hour() {
        let Bounds { start_ns, end_ns } =
            rules("Africa/Cairo").bounds(WindowKind::Month, ns("2026-04-30T12:00:00Z"));
        assert_eq!((end_ns - start_ns) / HOUR_NS, 30 * 24 - 1);
    }

    #[test]
    fn windows_follow_one_another_without_gap_or_overlap() {
        let zones = [
            "Africa/Cairo",
            "America/Havana",
            "America/Santiago",
            "Asia/Beirut",
            "Atlantic/Azores",
            "America/Scoresbysund",
            "Australia/Lord_Howe",
            "Africa/Casablanca",
            "Asia/Kolkata",
            "UTC",
        ];
        for name in zones {
            let zone = rules(name);
            for kind in [WindowKind::Day, WindowKind::Week, WindowKind::Month] {
                let mut at = ns("2025-12-31T12:00:00Z");
                let mut window = zone.bounds(kind, at);
                while at < ns("2028-03-02T00:00:00Z") {
                    assert!(
                        window.start_ns <= at && at < window.end_ns,
                        "{name} {kind:?} {at}"
                    );
                    let last = zone.bounds(kind, window.end_ns - 1);
                    assert_eq!(last, window, "{name} {kind:?}: its last instant is its own");
                    let next = zone.bounds(kind, window.end_ns);
                    assert_eq!(next.start_ns, window.end_ns, "{name} {kind:?}");
                    (at, window) = (window.end_ns + 7 * SECOND_NS, next);
                }
            }
        }
    }

    #[test]
    fn windows_that_never_end() {
        for kind in [WindowKind::Total, WindowKind::RollingDay] {
            assert_eq!(
                rules("UTC").bounds(kind, 5),
                Bounds {
                    start_ns: 5,
                    end_ns: i64::MAX
                }
            );
        }
        for at in [i64::MIN, i64::MAX] {
            rules("Pacific/Apia").bounds(WindowKind::Month, at);
        }
    }

    #[test]
    fn an_unknown_zone_says_what_to_use() {
        let error = Zones::default()
            .rules("Mars/Olympus")
            .expect_err("no such zone");
        assert!(error.to_string().contains("IANA"), "{error}");
    }

    #[test]
    fn kinds_have_codes_names_and_slots() {
        for (code, kind) in (0..).zip(WindowKind::ALL) {
            assert_eq!(WindowKind::from_code(code), Some(kind));
            assert!(!kind.name().is_empty());
            assert_eq!(kind.slot_ns().is_some(), kind.rolling_ns().is_some());
        }
        assert_eq!(WindowKind::from_code(7), None);
    }
}
