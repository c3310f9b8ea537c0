//! Time as the ledger sees it: a clock that can be trusted, and windows that open once.

mod calendar;
mod clock;

pub use calendar::{Bounds, UnknownZone, WindowKind, ZoneRules, Zones, ROLLING_SLOTS};
pub use clock::{Now, Reading, Stamp, TrustedTime};

/// Nanoseconds in a second.
pub const SECOND_NS: i64 = 1_000_000_000;
/// Nanoseconds in a minute.
pub const MINUTE_NS: i64 = 60 * SECOND_NS;
/// Nanoseconds in an hour.
pub const HOUR_NS: i64 = 60 * MINUTE_NS;
/// Nanoseconds in 24 hours; a calendar day may be longer or shorter.
pub const DAY_NS: i64 = 24 * HOUR_NS;
