//! Limits at run time: created, raised, lowered, deleted, in one batch.

use std::collections::{HashMap, HashSet};

use super::counters::{CounterKey, CounterSpec, Open};
use super::error::LedgerError;
use super::policy::{Origin, Policy};
use super::rates::{RateChange, RateKey, RateOpen, RateSpec};
use super::record::{Limits, PolicyChange, RecordSink};
use super::{check_full, Ledger};
use crate::window::Stamp;

/// The most changes in one batch.
pub const MAX_LIMIT_CHANGES: usize = 100_000;

/// One change of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitChange {
    /// A counter has this limit, whether or not it exists; what it has counted stays.
    Set(CounterSpec),
    /// A counter has no limit any more and only counts.
    Remove(CounterKey),
    /// A counter has no limit any more and is forgotten once nothing is open on it.
    Retire(CounterKey),
    /// A rate has this limit, whether or not it exists; what it has admitted stays.
    SetRate(RateSpec),
}

/// A batch while it is put together.
struct Batch {
    limits: Limits,
    /// Places in it of what it creates.
    opens: HashMap<CounterKey, usize>,
    rate_opens: HashMap<RateKey, usize>,
}

impl Ledger {
    /// Applies a batch of limits, all at once. With `reload`, limits that a configuration or an
    /// administrator set before and that are not in the batch are removed.
    ///
    /// A limit comes as it is merged: whose word is the strongest was decided before. A lowered
    /// limit stops new holds; what is held stays held. Returns how many limits changed.
    pub fn set_limits(
        &mut self,
        at: Stamp,
        changes: &[LimitChange],
        reload: bool,
        sink: &mut impl RecordSink,
    ) -> Result<usize, LedgerError> {
        if changes.len() > MAX_LIMIT_CHANGES {
            return Err(LedgerError::TooMany {
                what: "limit changes",
                max: MAX_LIMIT_CHANGES,
            });
        }
        let at = self.moment(at);
        let limits = Limits {
            at,
            opens: Vec::new(),
            counters: Vec::new(),
            rate_opens: Vec::new(),
            rates: Vec::new(),
        };
        let (opens, rate_opens) = (HashMap::new(), HashMap::new());
        let mut batch = Batch {
            limits,
            opens,
            rate_opens,
        };
        for change in changes {
            self.add_change(&mut batch, change)?;
        }
        let mut limits = batch.limits;
        if reload {
            self.remove_absent(&mut limits);
        }
        self.check_new_counters(limits.opens.iter().map(|open| &open.spec.key))?;
        let rates = self.rates.slab.len() + limits.rate_opens.len();
        check_full("rates", rates, self.capacity.rates_max)?;
        let changed = limits.opens.len()
            + limits.counters.len()
            + limits.rate_opens.len()
            + limits.rates.len();
        if changed > 0 {
            self.commit(limits.into(), sink)?;
        }
        Ok(changed)
    }

    fn add_change(&self, batch: &mut Batch, change: &LimitChange) -> Result<(), LedgerError> {
        match change {
            LimitChange::Set(spec) => self.add_counter(batch, spec),
            LimitChange::Remove(key) => {
                self.add_policy(batch, key, Policy::unlimited());
                Ok(())
            }
            LimitChange::Retire(key) => {
                let origin = Origin::Retired;
                self.add_policy(
                    batch,
                    key,
                    Policy {
                        origin,
                        ..Policy::unlimited()
                    },
                );
                Ok(())
            }
            LimitChange::SetRate(spec) => self.add_rate(batch, spec),
        }
    }

    fn add_counter(&self, batch: &mut Batch, spec: &CounterSpec) -> Result<(), LedgerError> {
        spec.check()?;
        if let Some(counter) = self.counters.find(&spec.key) {
            // Even an unchanged limit is in the batch, or a reload would take it for an absent one.
            batch.limits.counters.push(PolicyChange {
                counter,
                policy: spec.policy,
            });
            return Ok(());
        }
        let place = batch.limits.opens.len();
        if let Some(earlier) = batch.opens.get(&spec.key) {
            if let Some(open) = batch.limits.opens.get_mut(*earlier) {
                open.spec.policy = spec.policy;
            }
            return Ok(());
        }
        let bounds = self
            .counters
            .first_window(&spec.key, batch.limits.at.calendar_ns)?;
        let nth = u32::try_from(place).map_err(|_| LedgerError::Overflow)?;
        let counter = self
            .counters
            .slab
            .upcoming(nth)
            .ok_or(LedgerError::Overflow)?;
        batch.opens.insert(spec.key.clone(), place);
        batch.limits.opens.push(Open {
            counter,
            spec: spec.clone(),
            bounds,
        });
        Ok(())
    }

    fn add_policy(&self, batch: &mut Batch, key: &CounterKey, policy: Policy) {
        if let Some(counter) = self.counters.find(key) {
            batch.limits.counters.push(PolicyChange { counter, policy });
        }
    }

    fn add_rate(&self, batch: &mut Batch, spec: &RateSpec) -> Result<(), LedgerError> {
        spec.check()?;
        let RateSpec { limit, block, .. } = *spec;
        if let Some(rate) = self.rates.find(&self.counters.scopes, &spec.key) {
            batch.limits.rates.push(RateChange { rate, limit, block });
            return Ok(());
        }
        let place = batch.limits.rate_opens.len();
        if let Some(earlier) = batch.rate_opens.get(&spec.key) {
            if let Some(open) = batch.limits.rate_opens.get_mut(*earlier) {
                open.spec = spec.clone();
            }
            return Ok(());
        }
        let nth = u32::try_from(place).map_err(|_| LedgerError::Overflow)?;
        let rate = self.rates.slab.upcoming(nth).ok_or(LedgerError::Overflow)?;
        batch.rate_opens.insert(spec.key.clone(), place);
        batch.limits.rate_opens.push(RateOpen {
            rate,
            spec: spec.clone(),
        });
        Ok(())
    }

    fn remove_absent(&self, limits: &mut Limits) {
        let named: HashSet<_> = limits
            .counters
            .iter()
            .map(|change| change.counter)
            .collect();
        for (counter, known) in self.counters.slab.iter() {
            let set = matches!(known.policy.origin, Origin::File | Origin::Api);
            if set && !named.contains(&counter) {
                limits.counters.push(PolicyChange {
                    counter,
                    policy: Policy::unlimited(),
                });
            }
        }
    }
}
