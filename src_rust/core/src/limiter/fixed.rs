//! A fixed window: a count that starts anew at every multiple of the window's length.

use super::Quota;

/// The count of one window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FixedWindow {
    pub(crate) start_ns: i64,
    pub(crate) taken: u64,
}

fn start_of(quota: Quota, at_ns: i64) -> i64 {
    at_ns.div_euclid(quota.window_ns) * quota.window_ns
}

impl FixedWindow {
    fn taken_at(&self, quota: Quota, now_ns: i64) -> u64 {
        if start_of(quota, now_ns) == self.start_ns {
            self.taken
        } else {
            0
        }
    }

    pub(super) fn available(&self, quota: Quota, now_ns: i64) -> u32 {
        let left = u64::from(quota.limit).saturating_sub(self.taken_at(quota, now_ns));
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    pub(super) fn take(&mut self, quota: Quota, now_ns: i64, amount: u32) {
        self.taken = self
            .taken_at(quota, now_ns)
            .saturating_add(u64::from(amount));
        self.start_ns = start_of(quota, now_ns);
    }

    pub(super) fn correct(&mut self, quota: Quota, taken_ns: i64, reserved: u32, actual: u32) {
        if start_of(quota, taken_ns) == self.start_ns {
            let rest = self.taken.saturating_sub(u64::from(reserved));
            self.taken = rest.saturating_add(u64::from(actual));
        }
    }

    pub(super) fn retry_after(&self, quota: Quota, now_ns: i64, amount: u32) -> i64 {
        if amount <= self.available(quota, now_ns) {
            return 0;
        }
        start_of(quota, now_ns).saturating_add(quota.window_ns) - now_ns
    }

    pub(super) fn is_idle(&self, quota: Quota, now_ns: i64) -> bool {
        self.taken_at(quota, now_ns) == 0
    }
}
