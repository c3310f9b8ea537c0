//! The limits of one kind of call, looked up once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cascaded_core::ledger::{
    CounterKey, CounterRef, CounterSpec, Handle, Ledger, LedgerError, LimitChange, Policy, RateRef,
    RateSpec, ScopeKind, MAX_COUNTERS, MAX_RATES,
};
use cascaded_core::window::{WindowKind, Zones};

use crate::days::NAME_BYTES_MAX;

/// What a call is charged to, with the places in the ledger where it was last found.
///
/// It belongs to the engine that compiled it.
#[derive(Debug)]
pub struct LimitSet {
    pub(crate) engine: u64,
    counters: Vec<Found<CounterSpec>>,
    /// How many of them are the caller's own.
    named: usize,
    rates: Vec<Found<RateSpec>>,
}

/// A limit and its place. No handle is 0: generations count from 1.
#[derive(Debug)]
struct Found<T> {
    spec: T,
    handle: AtomicU64,
}

impl<T> Found<T> {
    fn new(spec: T) -> Self {
        let handle = AtomicU64::new(0);
        Self { spec, handle }
    }

    fn handle(&self) -> Option<Handle> {
        match self.handle.load(Relaxed) {
            0 => None,
            bits => Some(Handle::from_bits(bits)),
        }
    }

    fn keep(&self, handle: Option<Handle>) {
        self.handle
            .store(handle.map_or(0, Handle::to_bits), Relaxed);
    }

    /// Its place, looked up again if it is not there any more.
    fn find<V>(
        &self,
        value: impl Fn(Handle) -> Option<V>,
        find: impl FnOnce() -> Option<Handle>,
    ) -> Option<V> {
        if let Some(value) = self.handle().and_then(&value) {
            return Some(value);
        }
        let handle = find();
        self.keep(handle);
        handle.and_then(value)
    }
}

pub(crate) fn check_counter(zones: &Zones, spec: &CounterSpec) -> Result<(), LedgerError> {
    check_name(&spec.key.id)?;
    zones
        .rules(&spec.key.zone)
        .map_err(|zone| LedgerError::UnknownZone(zone.0))?;
    spec.policy
        .fault()
        .map_or(Ok(()), |why| Err(LedgerError::Invalid(why)))
}

pub(crate) fn check_name(id: &str) -> Result<(), LedgerError> {
    if id.len() > NAME_BYTES_MAX {
        let why = "the name of a scope is longer than 256 bytes";
        return Err(LedgerError::Invalid(why));
    }
    Ok(())
}

/// The counter that all calls are charged to, so that what a crash loses is lost from it.
fn every_call() -> CounterSpec {
    CounterSpec {
        key: CounterKey {
            scope: ScopeKind::Global,
            id: "*".into(),
            window: WindowKind::Total,
            zone: "UTC".into(),
        },
        policy: Policy::unlimited(),
    }
}

fn check_count(what: &'static str, count: usize, max: usize) -> Result<(), LedgerError> {
    if count > max {
        return Err(LedgerError::TooMany { what, max });
    }
    Ok(())
}

impl LimitSet {
    pub(crate) fn new(
        engine: u64,
        zones: &Zones,
        mut counters: Vec<CounterSpec>,
        rates: Vec<RateSpec>,
        count_all: bool,
    ) -> Result<Self, LedgerError> {
        let named = counters.len();
        check_count("counters", named, MAX_COUNTERS - 1)?;
        check_count("rates", rates.len(), MAX_RATES)?;
        for (position, spec) in counters.iter().enumerate() {
            check_counter(zones, spec)?;
            if counters[..position].iter().any(|one| one.key == spec.key) {
                return Err(LedgerError::SameCounter(position));
            }
        }
        for (position, spec) in rates.iter().enumerate() {
            check_name(&spec.key.id)?;
            if rates[..position].iter().any(|one| one.key == spec.key) {
                return Err(LedgerError::SameRate(position));
            }
        }
        let all = every_call();
        if count_all && counters.iter().all(|one| one.key != all.key) {
            counters.push(all);
        }
        Ok(Self {
            engine,
            named,
            counters: counters.into_iter().map(Found::new).collect(),
            rates: rates.into_iter().map(Found::new).collect(),
        })
    }

    /// Looks everything up. Returns the limits that the ledger has otherwise: those that were
    /// changed since.
    pub(crate) fn resolve(&self, ledger: &Ledger) -> Vec<LimitChange> {
        let mut changes = Vec::new();
        for one in &self.counters {
            let policy = one.find(
                |handle| ledger.counter_policy(handle),
                || ledger.find_counter(&one.spec.key),
            );
            if policy.is_some_and(|policy| policy != one.spec.policy) {
                changes.push(LimitChange::Set(one.spec.clone()));
            }
        }
        for one in &self.rates {
            let limit = one.find(
                |handle| ledger.rate_limit(handle),
                || ledger.find_rate(&one.spec.key),
            );
            if limit.is_some_and(|limit| limit != (one.spec.limit, one.spec.block)) {
                changes.push(LimitChange::SetRate(one.spec.clone()));
            }
        }
        changes
    }

    pub(crate) fn counter_refs(&self) -> Vec<CounterRef<'_>> {
        let refer = |one| {
            let Found { spec, .. }: &Found<CounterSpec> = one;
            one.handle()
                .map_or(CounterRef::Spec(spec), CounterRef::Handle)
        };
        self.counters.iter().map(refer).collect()
    }

    /// Without the counter of all calls.
    pub(crate) fn named_refs(&self) -> Vec<CounterRef<'_>> {
        let mut refs = self.counter_refs();
        refs.truncate(self.named);
        refs
    }

    pub(crate) fn rate_refs(&self) -> Vec<RateRef<'_>> {
        let refer = |one| {
            let Found { spec, .. }: &Found<RateSpec> = one;
            one.handle().map_or(RateRef::Spec(spec), RateRef::Handle)
        };
        self.rates.iter().map(refer).collect()
    }

    /// Remembers where an admission found or created everything.
    pub(crate) fn learn(&self, counters: &[Handle], rates: &[Handle]) {
        for (one, handle) in self.counters.iter().zip(counters) {
            one.keep(Some(*handle));
        }
        for (one, handle) in self.rates.iter().zip(rates) {
            one.keep(Some(*handle));
        }
    }
}
