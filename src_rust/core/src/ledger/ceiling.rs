//! Ceilings: how much may be reserved on a counter without waiting for the disk.
//!
//! The journal says for a counter how much *room* there is: what may be reserved after that record
//! and sent to a provider before its own record is on the disk. Every reservation takes from it,
//! and nothing gives it back but another such record: what a settlement returned may be lost with
//! the settlement, and the call that would have used it with it. So whatever a crash forgets of a
//! counter is at most the room that its journal still shows, and that is charged.
//!
//! A room counts once its record is durable (`safe`). A smaller one counts at once: the crash may
//! find either.

use crate::planted::{planted, Bug};
use crate::window::SECOND_NS;

/// How long an idle counter keeps its room.
pub const IDLE_NS: i64 = 60 * SECOND_NS;
/// A room has this many of the largest hold of late,
const HOLDS: i64 = 2;
/// and what is spent while so many commits are made,
const COMMITS: i64 = 3;
/// and in all at most so many of that hold: it is what a crash charges.
const HOLDS_MAX: i64 = 64;

/// The room on one counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ceiling {
    /// As the journal will have it: what is charged after a crash.
    pub room: i64,
    /// The least room of all records since the last durable one.
    safe: i64,
    /// The record that made the room larger.
    raised_by: u64,
    /// Whether the ledger looks now and then whether it is idle.
    pub warm: bool,
    /// The last use.
    used_ns: i64,
    /// The largest hold of late.
    largest: i64,
    /// Reserved since the room was last raised, and when that was.
    spent: i64,
    since_ns: i64,
    /// Nano-dollars reserved a second.
    pace: i64,
}

impl Ceiling {
    /// As a checkpoint has it.
    pub(crate) fn of(room: i64) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    /// Whether nothing is lost by forgetting it.
    pub(crate) fn is_over(&self) -> bool {
        self.room == 0 && !self.warm
    }

    /// What may be reserved and sent at once, when everything up to `durable` is on the disk.
    pub(crate) fn safe(&self, durable: u64) -> i64 {
        if self.raised_by <= durable || planted(Bug::TrustsUnwrittenRoom) {
            return self.room;
        }
        self.safe
    }

    /// A reservation takes what there is.
    pub(crate) fn take(&mut self, amount: i64) {
        self.room = (self.room - amount).max(0);
        self.safe = (self.safe - amount).max(0);
    }

    /// What was held comes back. It makes no room.
    pub(crate) fn give_back(&mut self, amount: i64) {
        if planted(Bug::ReusesReturns) {
            self.room = self.room.saturating_add(amount);
        }
    }

    /// The journal says another room.
    pub(crate) fn set(&mut self, room: i64) {
        if planted(Bug::LowersLate) && room < self.room {
            // What was safe stays so until the next raise.
            (self.safe, self.raised_by) = (self.room, u64::MAX);
        } else {
            self.safe = self.safe.min(room);
        }
        self.room = room;
    }

    /// Notes a reservation.
    pub(crate) fn note(&mut self, now_ns: i64, amount: i64) {
        if self.largest == 0 {
            self.since_ns = now_ns;
        }
        self.used_ns = now_ns;
        self.largest = self.largest.max(amount);
        self.spent = self.spent.saturating_add(amount);
    }

    /// The room to write now, given what the limit leaves; `None` while the present one will do or
    /// a larger one is on its way.
    pub(crate) fn wanted(&self, durable: u64, commit_ns: i64, left: i64) -> Option<i64> {
        let commits = i128::from(COMMITS) * i128::from(commit_ns) * i128::from(self.pace);
        let commits = i64::try_from(commits / i128::from(SECOND_NS)).unwrap_or(i64::MAX);
        let whole = self.largest.saturating_mul(HOLDS).saturating_add(commits);
        let whole = whole.min(self.largest.saturating_mul(HOLDS_MAX));
        let room = whole.min(left);
        let low = self.room < whole / 2 && self.room < room;
        (self.raised_by <= durable && low).then_some(room)
    }

    /// The record numbered `mark` has raised the room.
    pub(crate) fn raised(&mut self, mark: u64, safe: i64, now_ns: i64, commit_ns: i64) {
        let took = i128::from((now_ns - self.since_ns).max(commit_ns).max(1));
        let pace = i128::from(self.spent) * i128::from(SECOND_NS) / took;
        let pace = i64::try_from(pace).unwrap_or(i64::MAX);
        // Halfway to what was measured last: one burst is not a pace.
        self.pace = self.pace / 2 + pace / 2;
        (self.spent, self.since_ns) = (0, now_ns);
        self.largest -= self.largest / 8;
        (self.raised_by, self.safe) = (mark, safe);
    }

    pub(crate) fn is_idle(&self, now_ns: i64, idle_ns: i64) -> bool {
        now_ns.saturating_sub(self.used_ns) >= idle_ns
    }
}
