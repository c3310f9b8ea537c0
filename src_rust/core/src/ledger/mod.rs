//! The ledger: money that cannot be overspent.
//!
//! A request *reserves* the most it can cost on every counter that pays for it, and its share of
//! every rate, all at once or not at all. When it is over, the hold is *settled* (posted),
//! *released* (provably not billed) or charged as *unknown* until there is evidence.
//!
//! Every change is first decided, from `&self`, as a [`Record`]; then the record is handed to the
//! caller's [`RecordSink`], for the journal, and applied. [`Ledger::apply`] is the only way in
//! which the state changes, so replaying the records gives the same state. There is no clock, no
//! I/O and no lock in here: whoever owns a ledger keeps it behind one mutex, and appends records
//! to the journal in the order in which they came.
//!
//! What must always hold is in the tests beside this: `P + H + X ≤ L + O`, and what a provider
//! billed is never more than `P + H + X`, at every instant and after every crash.

mod admit;
mod apply;
mod balance;
mod ceiling;
mod codec;
mod counters;
mod demand;
mod error;
mod gap;
mod holds;
mod limits;
mod lost;
mod policy;
mod rates;
mod record;
mod scope;
mod settle;
mod slab;
mod snapshot;
mod status;
mod sweep;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

pub use balance::Balance;
pub use ceiling::IDLE_NS;
pub use codec::{DecodeError, Since, MAX_NAME_BYTES};
pub use counters::{CounterKey, CounterSpec, Open, Roll, WindowTotal};
pub use demand::{
    Admission, Admitted, Choice, CounterRef, Demand, Existing, LimitView, Measure, Peek, RateRef,
    Reason, Refusal, Warning, MAX_COUNTERS, MAX_MENU, MAX_RATES, MAX_RUNGS,
};
pub use error::{LedgerError, Misfit};
pub use gap::Gap;
pub use holds::{
    Attempt, HoldState, Idempotency, Label, Outcome, KEY_LIFETIME_NS, LABEL_BYTES_MAX,
};
pub use limits::{LimitChange, MAX_LIMIT_CHANGES};
pub use lost::{ScopeEvidence, NUMBERS_SKIPPED};
pub use policy::{Mode, Origin, Policy, HYSTERESIS_BP, WHOLE_BP};
pub use rates::{RateChange, RateCharge, RateKey, RateOpen, RateSpec, Unit};
pub use record::{
    Adjust, AttemptEnd, Ceilings, Dispatch, Found, LateAdjust, Limits, Lost, NotTaken, PastWindow,
    PolicyChange, Record, RecordSink, Release, Reserve, Room, Settle, Shrink, Sweep, Unknown,
    RECORD_VERSION, RESERVED_TAGS, TAGS,
};
pub use scope::ScopeKind;
pub use settle::{AttemptResult, Crossing, Receipt, MAX_ATTEMPTS};
pub use slab::Handle;
pub use snapshot::{RestoreError, SnapshotChange};
pub use status::{Census, CounterStatus, HoldStatus, LOST_LISTED};
pub use sweep::SweepPlace;

use crate::planted::{planted, Bug};
use crate::window::Stamp;

/// How much a ledger may hold. What is beyond is refused with [`LedgerError::Full`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Counters.
    pub counters_max: usize,
    /// Rates.
    pub rates_max: usize,
    /// Users with a counter.
    pub users_max: usize,
    /// Runs with a counter, which is to say live ones.
    pub runs_max: usize,
    /// Holds that are not resolved.
    pub holds_max: usize,
    /// Idempotency keys of the last day.
    pub keys_max: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            counters_max: 8_000_000,
            rates_max: 8_000_000,
            users_max: 2_000_000,
            runs_max: 100_000,
            holds_max: 200_000,
            keys_max: 2_000_000,
        }
    }
}

/// Evidence about a window that the ledger has forgotten, for whoever keeps the totals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateTotal {
    /// Whose window.
    pub key: CounterKey,
    /// The window's first nanosecond.
    pub start_ns: i64,
    /// About which hold.
    pub hold: u64,
    /// It cost so much more, or less.
    pub posted: i64,
    /// When the evidence came.
    pub at: Stamp,
}

/// Counters, rates and holds. See the module's documentation.
#[derive(Debug, Default)]
pub struct Ledger {
    capacity: Capacity,
    counters: counters::Counters,
    rates: rates::Rates,
    holds: holds::Holds,
    late: Vec<LateTotal>,
    /// The latest moment of any record: time never goes back behind it.
    high_water: Stamp,
    /// Up to which record, by the owner's count, everything is on the disk.
    durable: u64,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    /// The latest moment that the ledger knows, for [`crate::window::TrustedTime::resume`].
    pub fn high_water(&self) -> Stamp {
        self.high_water
    }

    /// The moment to go by: time never goes back behind what the ledger has seen.
    fn moment(&self, at: Stamp) -> Stamp {
        if planted(Bug::ReopensWindow) {
            return at;
        }
        self.high_water.max(at)
    }

    /// What past windows came to, since this was last called. A window may come again when late
    /// evidence changed it; the latest word counts.
    pub fn take_window_totals(&mut self) -> Vec<WindowTotal> {
        std::mem::take(&mut self.counters.totals)
    }

    /// Evidence about windows that the ledger has forgotten, since this was last called.
    pub fn take_late_totals(&mut self) -> Vec<LateTotal> {
        std::mem::take(&mut self.late)
    }

    /// Hands what was decided to the journal, and applies it if it was taken. What this ledger
    /// decided fits it; if not, the ledger is broken and going on would lose money.
    fn commit(&mut self, record: Record, sink: &mut impl RecordSink) -> Result<(), LedgerError> {
        sink.push(&record)
            .map_err(|NotTaken| LedgerError::NotJournalled)?;
        if let Err(misfit) = self.apply(&record) {
            panic!("{misfit}: {record:?}");
        }
        Ok(())
    }

    /// Whether there is room for new counters with these keys.
    fn check_new_counters<'a>(
        &self,
        keys: impl Iterator<Item = &'a CounterKey>,
    ) -> Result<(), LedgerError> {
        let (mut counters, mut users, mut runs) = (0, HashSet::new(), HashSet::new());
        for key in keys {
            counters += 1;
            let new: &mut HashSet<&Arc<str>> = match key.scope {
                ScopeKind::User => &mut users,
                ScopeKind::Run => &mut runs,
                _ => continue,
            };
            if self.counters.scopes.find(key.scope, &key.id).is_none() {
                new.insert(&key.id);
            }
        }
        let scopes = &self.counters.scopes;
        let users = scopes.count(ScopeKind::User) + users.len();
        let runs = scopes.count(ScopeKind::Run) + runs.len();
        check_full(
            "counters",
            self.counters.slab.len() + counters,
            self.capacity.counters_max,
        )?;
        check_full("users", users, self.capacity.users_max)?;
        check_full("runs", runs, self.capacity.runs_max)
    }
}

fn check_full(what: &'static str, size: usize, max: usize) -> Result<(), LedgerError> {
    if size > max {
        return Err(LedgerError::Full { what, max });
    }
    Ok(())
}
