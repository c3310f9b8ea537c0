//! The slot log: what was taken, by slots of a hundredth of the window.
//!
//! A slot counts whole until all of it is outside the window. So a trailing window never admits
//! more than the limit, and what is lost against an exact log is at most one slot's worth. Small
//! limits afford an exact log: there the slots are so fine that each holds one moment.
//!
//! Slots are sparse and in order: 8 bytes for each slot in which something was taken.

use super::Quota;
use crate::planted::{planted, Bug};

/// Slots in a window.
const SLOTS: i64 = 100;
/// Up to this limit the log is exact.
const EXACT_LIMIT: u32 = 64;
/// An exact log's slots are this fraction (as a shift) of the window: 80 µs for a day.
const EXACT_SHIFT: u32 = 30;
/// Offsets beyond this are moved to a new base, so that they always fit 32 bits.
const REBASE_AT: u32 = 1 << 31;

/// What was taken in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Slots after the log's base.
    pub(crate) offset: u32,
    pub(crate) taken: u32,
}

/// What was taken, slot by slot, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotLog {
    /// Number of the slot that offsets count from.
    pub(crate) base: i64,
    /// Nothing taken up to here can be given back: its slot is no longer known for sure.
    pub(crate) settled_ns: i64,
    pub(crate) slots: Vec<Slot>,
}

/// The length of a slot.
fn slot_ns(quota: Quota) -> i64 {
    if quota.limit <= EXACT_LIMIT {
        (quota.window_ns >> EXACT_SHIFT).max(1)
    } else {
        (quota.window_ns + SLOTS - 1) / SLOTS
    }
}

impl SlotLog {
    fn number(&self, slot: Slot) -> i64 {
        self.base + i64::from(slot.offset)
    }

    /// When the last nanosecond of a slot has left the window.
    fn expires_ns(&self, quota: Quota, slot: Slot) -> i64 {
        (self.number(slot) + 1) * slot_ns(quota) + quota.window_ns
    }

    fn live(&self, quota: Quota, now_ns: i64) -> &[Slot] {
        let early = if planted(Bug::SlotExpiresEarly) {
            slot_ns(quota)
        } else {
            0
        };
        let first = self
            .slots
            .partition_point(|slot| self.expires_ns(quota, *slot) - early <= now_ns);
        self.slots.get(first..).unwrap_or_default()
    }

    fn taken(&self, quota: Quota, now_ns: i64) -> u64 {
        self.live(quota, now_ns)
            .iter()
            .map(|slot| u64::from(slot.taken))
            .sum()
    }

    pub(super) fn available(&self, quota: Quota, now_ns: i64) -> u32 {
        let left = u64::from(quota.limit).saturating_sub(self.taken(quota, now_ns));
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    pub(super) fn take(&mut self, quota: Quota, now_ns: i64, amount: u32) {
        self.expire(quota, now_ns);
        if amount == 0 {
            return;
        }
        let number = now_ns.div_euclid(slot_ns(quota));
        if self.slots.is_empty() {
            self.base = number;
        }
        // After a change of resolution the newest slot may end later than now.
        let newest = self.slots.last().map_or(0, |slot| slot.offset);
        let offset = u32::try_from(number - self.base).unwrap_or(0).max(newest);
        self.add(offset, amount);
    }

    fn add(&mut self, offset: u32, amount: u32) {
        match self.slots.last_mut() {
            Some(last) if last.offset == offset => last.taken = last.taken.saturating_add(amount),
            _ => self.slots.push(Slot {
                offset,
                taken: amount,
            }),
        }
    }

    fn expire(&mut self, quota: Quota, now_ns: i64) {
        let expired = self.slots.len() - self.live(quota, now_ns).len();
        self.slots.drain(..expired);
        let first = self.slots.first().map_or(0, |slot| slot.offset);
        if first >= REBASE_AT {
            self.base += i64::from(first);
            self.slots.iter_mut().for_each(|slot| slot.offset -= first);
        }
    }

    pub(super) fn correct(&mut self, quota: Quota, taken_ns: i64, reserved: u32, actual: u32) {
        let number = taken_ns.div_euclid(slot_ns(quota));
        let place = self
            .slots
            .binary_search_by_key(&number, |slot| self.number(*slot));
        let more = actual.saturating_sub(reserved);
        match place {
            Ok(at) if actual > reserved || taken_ns > self.settled_ns => {
                let Some(slot) = self.slots.get_mut(at) else {
                    return;
                };
                slot.taken = slot.taken.saturating_sub(reserved).saturating_add(actual);
            }
            // Its own slot is gone or was merged into a later one, where more still counts.
            Err(at) => match self.slots.get_mut(at) {
                Some(slot) => slot.taken = slot.taken.saturating_add(more),
                None => self.take(quota, taken_ns, more),
            },
            Ok(_) => {}
        }
    }

    pub(super) fn retry_after(&self, quota: Quota, now_ns: i64, amount: u32) -> i64 {
        let wanted = self.taken(quota, now_ns) + u64::from(amount);
        let mut missing = wanted.saturating_sub(u64::from(quota.limit));
        for slot in self.live(quota, now_ns) {
            if missing == 0 {
                return 0;
            }
            missing = missing.saturating_sub(u64::from(slot.taken));
            if missing == 0 {
                return self.expires_ns(quota, *slot) - now_ns;
            }
        }
        0
    }

    pub(super) fn is_idle(&self, quota: Quota, now_ns: i64) -> bool {
        self.live(quota, now_ns).is_empty()
    }

    /// Moves to the slots of another limit. Each slot is put where its end is, so that nothing
    /// expires early.
    pub(super) fn change_resolution(&mut self, from: Quota, to: Quota) {
        let (old_ns, new_ns) = (slot_ns(from), slot_ns(to));
        if old_ns == new_ns || self.slots.is_empty() {
            return;
        }
        let ends = |slot: &Slot| (self.base + i64::from(slot.offset) + 1) * old_ns - 1;
        let moved: Vec<(i64, u32)> = self
            .slots
            .iter()
            .map(|slot| (ends(slot).div_euclid(new_ns), slot.taken))
            .collect();
        self.settled_ns = self.slots.last().map_or(0, ends);
        self.base = moved.first().map_or(0, |(number, _)| *number);
        self.slots.clear();
        for (number, taken) in moved {
            let offset = u32::try_from(number - self.base).unwrap_or(u32::MAX);
            self.add(offset, taken);
        }
    }
}
