//! Rate windows: how much of a quota is left at a moment, and when there will be more.
//!
//! Three methods. The slot log is the default and the only one that never admits more than its
//! limit in *any* trailing window. Users ask for the other two by name: a fixed window may admit
//! twice its limit around a boundary, and a full token bucket nearly so.
//!
//! Time here is elapsed time (see [`crate::window::Stamp`]), which never goes back.

mod fixed;
mod gcra;
mod slot_log;

pub use fixed::FixedWindow;
pub use gcra::Gcra;
pub(crate) use slot_log::Slot;
pub use slot_log::SlotLog;

use crate::window::{DAY_NS, SECOND_NS};

/// The largest limit of a rate; its counts are 32 bits wide.
pub const MAX_RATE_LIMIT: u32 = u32::MAX;
/// The shortest rate window.
pub const MIN_RATE_WINDOW_NS: i64 = SECOND_NS / 10;
/// The longest rate window.
pub const MAX_RATE_WINDOW_NS: i64 = 31 * DAY_NS;

/// How a rate is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Method {
    /// Never above the limit in any trailing window.
    SlidingWindow = 0,
    /// Never above the limit between two multiples of the window; up to twice around one.
    FixedWindow = 1,
    /// Refills evenly; a full bucket and what refills meanwhile pass within one window.
    TokenBucket = 2,
}

impl Method {
    /// Every method, in the order of its code.
    pub const ALL: [Self; 3] = [Self::SlidingWindow, Self::FixedWindow, Self::TokenBucket];

    /// The method with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The word for it in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::SlidingWindow => "sliding_window",
            Self::FixedWindow => "fixed_window",
            Self::TokenBucket => "token_bucket",
        }
    }
}

/// So much in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The most that a window admits.
    pub limit: u32,
    /// The window's length in nanoseconds.
    pub window_ns: i64,
}

impl Quota {
    /// Whether limit and window are within what a limiter can count.
    pub fn is_valid(self) -> bool {
        (MIN_RATE_WINDOW_NS..=MAX_RATE_WINDOW_NS).contains(&self.window_ns)
    }

    /// The short window that slows how fast this quota may be used, or `None` where it would be
    /// no slower: `multiplier_bp` (basis points; 15,000 is 1.5) times the even pace over
    /// `window_ns`. Never less than `floor`, so that a single call can pass.
    pub fn burst(self, multiplier_bp: u32, window_ns: i64, floor: u32) -> Option<Self> {
        if window_ns >= self.window_ns {
            return None;
        }
        let scaled = i128::from(self.limit) * i128::from(multiplier_bp) * i128::from(window_ns);
        let share = scaled / (10_000 * i128::from(self.window_ns));
        let limit = u32::try_from(share).unwrap_or(u32::MAX).max(floor).max(1);
        (limit < self.limit).then_some(Self { limit, window_ns })
    }
}

/// What one rate has admitted lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limiter {
    /// See [`Method::SlidingWindow`].
    Sliding(SlotLog),
    /// See [`Method::FixedWindow`].
    Fixed(FixedWindow),
    /// See [`Method::TokenBucket`].
    Bucket(Gcra),
}

impl Limiter {
    /// A limiter that has admitted nothing.
    pub fn new(method: Method) -> Self {
        match method {
            Method::SlidingWindow => Self::Sliding(SlotLog::default()),
            Method::FixedWindow => Self::Fixed(FixedWindow::default()),
            Method::TokenBucket => Self::Bucket(Gcra::default()),
        }
    }

    /// How much may be taken at this moment.
    pub fn available(&self, quota: Quota, now_ns: i64) -> u32 {
        match self {
            Self::Sliding(log) => log.available(quota, now_ns),
            Self::Fixed(window) => window.available(quota, now_ns),
            Self::Bucket(bucket) => bucket.available(quota, now_ns),
        }
    }

    /// Takes `amount`, whether or not it is available.
    pub fn take(&mut self, quota: Quota, now_ns: i64, amount: u32) {
        match self {
            Self::Sliding(log) => log.take(quota, now_ns, amount),
            Self::Fixed(window) => window.take(quota, now_ns, amount),
            Self::Bucket(bucket) => bucket.take(quota, now_ns, amount),
        }
    }

    /// Replaces `reserved`, which was taken at `taken_ns`, by what it really was. It counts when
    /// it was taken, not now.
    pub fn correct(&mut self, quota: Quota, taken_ns: i64, reserved: u32, actual: u32) {
        match self {
            Self::Sliding(log) => log.correct(quota, taken_ns, reserved, actual),
            Self::Fixed(window) => window.correct(quota, taken_ns, reserved, actual),
            Self::Bucket(bucket) => bucket.correct(quota, reserved, actual),
        }
    }

    /// Nanoseconds until `amount` will be available if nothing else is taken: 0 for now, `None`
    /// for never.
    pub fn retry_after(&self, quota: Quota, now_ns: i64, amount: u32) -> Option<i64> {
        if amount > quota.limit {
            return None;
        }
        Some(match self {
            Self::Sliding(log) => log.retry_after(quota, now_ns, amount),
            Self::Fixed(window) => window.retry_after(quota, now_ns, amount),
            Self::Bucket(bucket) => bucket.retry_after(quota, now_ns, amount),
        })
    }

    /// Whether nothing that was taken counts any more, so that forgetting it loses nothing.
    pub fn is_idle(&self, quota: Quota, now_ns: i64) -> bool {
        match self {
            Self::Sliding(log) => log.is_idle(quota, now_ns),
            Self::Fixed(window) => window.is_idle(quota, now_ns),
            Self::Bucket(bucket) => bucket.is_idle(now_ns),
        }
    }

    /// Carries what was taken over to another limit of the same window.
    pub fn change_limit(&mut self, from: Quota, to: Quota) {
        if let Self::Sliding(log) = self {
            log.change_resolution(from, to);
        }
    }
}

#[cfg(test)]
mod tests;
