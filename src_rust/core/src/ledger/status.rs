//! Looking at the ledger without changing it.

use std::sync::Arc;

use super::balance::Balance;
use super::counters::{Counter, CounterKey};
use super::holds::{HoldState, Label};
use super::policy::Policy;
use super::rates::{RateKey, RateSpec};
use super::scope::ScopeKind;
use super::slab::Handle;
use super::Ledger;
use crate::window::{Bounds, Stamp};

/// Counters that a [`HoldStatus`] lists of what a crash lost.
pub const LOST_LISTED: usize = 256;

/// How a counter stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterStatus {
    /// Its name in demands.
    pub counter: Handle,
    /// What it is.
    pub key: CounterKey,
    /// Its limit.
    pub policy: Policy,
    /// Its window; one that is over and was not rolled yet shows as empty and over.
    pub bounds: Bounds,
    /// What is on it.
    pub balance: Balance,
    /// Whether only cheap choices pass it.
    pub degraded: bool,
}

/// How a hold stands that is not resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldStatus {
    /// Its number.
    pub hold: u64,
    /// Where it is in its life.
    pub state: HoldState,
    /// What is held on each of its counters.
    pub held: i64,
    /// What is charged as unknown on each of its counters.
    pub unknown: i64,
    /// When it was reserved.
    pub at: Stamp,
    /// Hash of the price table it was costed by.
    pub price_hash: u64,
    /// The caller's number for its ladder.
    pub ladder: u16,
    /// The counters it is charged to.
    pub counters: Vec<Handle>,
    /// What it is about.
    pub label: Option<Label>,
    /// Not one hold, but what a crash may have lost: `unknown` is the most on any counter.
    pub lost: bool,
    /// What a crash may have lost of each counter: the [`LOST_LISTED`] largest.
    pub charges: Vec<(CounterKey, i64)>,
}

/// What the ledger holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Counters.
    pub counters: usize,
    /// Rates.
    pub rates: usize,
    /// Users with a counter or a rate.
    pub users: usize,
    /// Runs with a counter or a rate.
    pub runs: usize,
    /// Holds whose money is held.
    pub holds_open: usize,
    /// Holds, and crashes, that are charged as unknown.
    pub holds_unknown: usize,
    /// The sum of those unknown charges, each counted once.
    pub unknown: i64,
    /// Idempotency keys.
    pub keys: usize,
    /// The number of the next hold.
    pub next_hold: u64,
}

impl Ledger {
    /// The handle of a counter, for demands.
    pub fn find_counter(&self, key: &CounterKey) -> Option<Handle> {
        self.counters.find(key)
    }

    /// The handle of a rate, for demands.
    pub fn find_rate(&self, key: &RateKey) -> Option<Handle> {
        self.rates.find(&self.counters.scopes, key)
    }

    /// A rate's limit, and how much of it may be taken now.
    pub fn rate_status(&self, at: Stamp, rate: Handle) -> Option<(RateSpec, u32)> {
        let found = self.rates.slab.get(rate)?;
        let now_ns = self.moment(at).elapsed_ns;
        let spec = self.rates.spec(&self.counters.scopes, found)?;
        Some((spec, found.limiter.available(found.quota(), now_ns)))
    }

    /// A counter's limit; `None` for one that is gone.
    pub fn counter_policy(&self, counter: Handle) -> Option<Policy> {
        Some(self.counters.slab.get(counter)?.policy)
    }

    /// A rate's limit and whether what is above is refused; `None` for one that is gone.
    pub fn rate_limit(&self, rate: Handle) -> Option<(u32, bool)> {
        let found = self.rates.slab.get(rate)?;
        Some((found.limit, found.block))
    }

    /// The zones of all counters that there ever were.
    pub fn zones(&self) -> &[Arc<str>] {
        &self.counters.zone_names
    }

    /// How a counter stands at a moment.
    pub fn counter_status(&self, at: Stamp, counter: Handle) -> Option<CounterStatus> {
        let found = self.counters.slab.get(counter)?;
        self.status(self.moment(at).calendar_ns, counter, found)
    }

    /// All counters of a scope, or of every scope.
    pub fn counters_of<'a>(
        &'a self,
        at: Stamp,
        of: Option<(ScopeKind, &Arc<str>)>,
    ) -> impl Iterator<Item = CounterStatus> + 'a {
        let at_ns = self.moment(at).calendar_ns;
        let wanted = of.map(|(kind, id)| self.counters.scopes.find(kind, id));
        self.counters
            .slab
            .iter()
            .filter(move |(_, found)| wanted.is_none_or(|scope| scope == Some(found.key.scope)))
            .filter_map(move |(handle, found)| self.status(at_ns, handle, found))
    }

    fn status(&self, at_ns: i64, counter: Handle, found: &Counter) -> Option<CounterStatus> {
        let over = found.ended(at_ns);
        let balance = if over {
            Balance::default()
        } else {
            found.balance_at(at_ns)
        };
        Some(CounterStatus {
            counter,
            key: self.counters.key(found)?,
            policy: found.policy,
            bounds: found.bounds,
            balance,
            degraded: found.policy.degraded(balance, found.degraded && !over),
        })
    }

    /// How a hold stands; `None` once it is resolved.
    pub fn hold_status(&self, hold: u64) -> Option<HoldStatus> {
        if let Some(lost) = self.holds.lost.get(&hold) {
            let charges = lost.charges.iter();
            let mut largest = lost.charges.clone();
            largest.sort_by_key(|(_, amount)| -amount);
            let listed = largest
                .iter()
                .take(LOST_LISTED)
                .filter_map(|(charge, amount)| {
                    let found = self.counters.slab.get(charge.counter)?;
                    Some((self.counters.key(found)?, *amount))
                });
            return Some(HoldStatus {
                hold,
                state: HoldState::Unknown,
                held: 0,
                unknown: lost.unknown(),
                at: lost.at,
                price_hash: 0,
                ladder: 0,
                counters: charges.map(|(charge, _)| charge.counter).collect(),
                label: None,
                lost: true,
                charges: listed.collect(),
            });
        }
        let found = self.holds.open.get(&hold)?;
        Some(HoldStatus {
            hold,
            state: found.state,
            held: found.amount,
            unknown: found.unknown,
            at: found.at,
            price_hash: found.price_hash,
            ladder: found.ladder,
            counters: found.charges.iter().map(|charge| charge.counter).collect(),
            label: found.label.0.clone(),
            lost: false,
            charges: Vec::new(),
        })
    }

    /// All holds that are not resolved, oldest first.
    pub fn unresolved_holds(&self) -> Vec<HoldStatus> {
        let numbers = self.holds.open.keys().chain(self.holds.lost.keys());
        let mut holds: Vec<u64> = numbers.copied().collect();
        holds.sort_unstable();
        holds
            .into_iter()
            .filter_map(|hold| self.hold_status(hold))
            .collect()
    }

    /// What the ledger holds, in numbers.
    pub fn census(&self) -> Census {
        let unknown = self
            .holds
            .open
            .values()
            .filter(|hold| hold.state == HoldState::Unknown);
        let (holds_unknown, sum) = unknown.fold((0, 0_i64), |(n, sum), hold| {
            (n + 1, sum.saturating_add(hold.unknown))
        });
        let lost = self.holds.lost.values().map(|lost| lost.unknown());
        let lost = lost.fold(0, i64::saturating_add);
        Census {
            counters: self.counters.slab.len(),
            rates: self.rates.slab.len(),
            users: self.counters.scopes.count(ScopeKind::User),
            runs: self.counters.scopes.count(ScopeKind::Run),
            holds_open: self.holds.open.len() - holds_unknown,
            holds_unknown: holds_unknown + self.holds.lost.len(),
            unknown: sum.saturating_add(lost),
            keys: self.holds.keys.len(),
            next_hold: self.holds.next,
        }
    }
}
