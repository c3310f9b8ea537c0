//! A token bucket by its arrival time: the moment at which the bucket will be full again.

use super::Quota;

/// A bucket that holds one window's limit and refills in one window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gcra {
    pub(crate) full_at_ns: i64,
}

/// How long the bucket takes to refill `amount`, rounded up.
fn refill_ns(quota: Quota, amount: u32) -> i64 {
    let limit = i128::from(quota.limit.max(1));
    let ns = (i128::from(amount) * i128::from(quota.window_ns) + limit - 1) / limit;
    i64::try_from(ns).unwrap_or(i64::MAX)
}

impl Gcra {
    pub(super) fn available(&self, quota: Quota, now_ns: i64) -> u32 {
        let missing_ns = self.full_at_ns.saturating_sub(now_ns).max(0);
        let room_ns = quota.window_ns.saturating_sub(missing_ns).max(0);
        let amount = i128::from(room_ns) * i128::from(quota.limit) / i128::from(quota.window_ns);
        u32::try_from(amount).unwrap_or(u32::MAX)
    }

    pub(super) fn take(&mut self, quota: Quota, now_ns: i64, amount: u32) {
        let full_at = self.full_at_ns.max(now_ns);
        self.full_at_ns = full_at.saturating_add(refill_ns(quota, amount));
    }

    pub(super) fn correct(&mut self, quota: Quota, reserved: u32, actual: u32) {
        if actual > reserved {
            let more = refill_ns(quota, actual - reserved);
            self.full_at_ns = self.full_at_ns.saturating_add(more);
        } else if actual < reserved {
            // Both are rounded up, so never more is given back than was taken.
            let less = refill_ns(quota, reserved) - refill_ns(quota, actual);
            self.full_at_ns = self.full_at_ns.saturating_sub(less);
        }
    }

    pub(super) fn retry_after(&self, quota: Quota, now_ns: i64, amount: u32) -> i64 {
        if amount <= self.available(quota, now_ns) {
            return 0;
        }
        let full_at = self.full_at_ns.max(now_ns);
        let needed = full_at.saturating_add(refill_ns(quota, amount));
        needed
            .saturating_sub(quota.window_ns)
            .saturating_sub(now_ns)
            .max(0)
    }

    pub(super) fn is_idle(&self, now_ns: i64) -> bool {
        self.full_at_ns <= now_ns
    }
}
