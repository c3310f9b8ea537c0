//! The ledger's tests. `world` and `model` are the heart: the invariants, at random, with crashes.

mod ceilings;
mod model;
mod records;
mod scenarios;
mod windows;
mod world;

use std::sync::Arc;

use super::*;
use crate::limiter::Method;
use crate::window::{WindowKind, SECOND_NS};

/// A Tuesday noon in 2026.
pub(super) const START: i64 = 1_780_401_600 * SECOND_NS;

pub(super) fn key(scope: ScopeKind, id: &str, window: WindowKind, zone: &str) -> CounterKey {
    CounterKey {
        scope,
        id: id.into(),
        window,
        zone: zone.into(),
    }
}

pub(super) fn counter(id: &str, window: WindowKind, limit: i64) -> CounterSpec {
    let policy = Policy {
        mode: Mode::Block,
        ..Policy::degrade(limit)
    };
    CounterSpec {
        key: key(ScopeKind::User, id, window, "UTC"),
        policy,
    }
}

pub(super) fn rate(id: &str, unit: Unit, limit: u32, window_ns: i64) -> RateSpec {
    let method = Method::SlidingWindow;
    let key = RateKey {
        scope: ScopeKind::User,
        id: id.into(),
        unit,
        method,
        window_ns,
    };
    RateSpec {
        key,
        limit,
        block: true,
    }
}

pub(super) fn choice(amount: i64) -> Choice<'static> {
    Choice {
        ladder: 0,
        amount,
        rungs: &[],
        cheap: false,
        tokens: 0,
    }
}

/// A ledger, its journal and its time.
pub(super) struct Bench {
    pub ledger: Ledger,
    pub journal: Vec<Record>,
    pub at: Stamp,
}

impl Bench {
    pub fn new() -> Self {
        let ledger = Ledger::new(Capacity::default());
        Self {
            ledger,
            journal: Vec::new(),
            at: Stamp::at(START),
        }
    }

    pub fn pass(&mut self, ns: i64) {
        self.at = Stamp::at(self.at.calendar_ns + ns);
    }

    pub fn ask(
        &mut self,
        menu: &[Choice<'_>],
        counters: &[&CounterSpec],
        rates: &[&RateSpec],
    ) -> Result<Admission, LedgerError> {
        let counters: Vec<_> = counters.iter().map(|spec| CounterRef::Spec(spec)).collect();
        let rates: Vec<_> = rates.iter().map(|spec| RateRef::Spec(spec)).collect();
        let demand = Demand {
            menu,
            counters: &counters,
            rates: &rates,
            idempotency: None,
            price_hash: 7,
            label: None,
        };
        self.ledger.admit(self.at, &demand, &mut self.journal)
    }

    pub fn admit(&mut self, amount: i64, counters: &[&CounterSpec]) -> Admitted {
        match self.ask(&[choice(amount)], counters, &[]) {
            Ok(Admission::Admitted(admitted)) => admitted,
            other => panic!("{other:?}"),
        }
    }

    pub fn refused(&mut self, amount: i64, counters: &[&CounterSpec]) -> Refusal {
        let before = self.ledger.snapshot();
        match self.ask(&[choice(amount)], counters, &[]) {
            Ok(Admission::Refused(refusal)) => {
                assert_eq!(self.ledger.snapshot(), before, "a refusal takes nothing");
                *refusal
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn settle(&mut self, hold: u64, outcome: Outcome) -> Receipt {
        let result = AttemptResult {
            attempt: None,
            outcome,
        };
        self.ledger
            .settle(self.at, hold, &[result], None, &mut self.journal)
            .expect("settles")
    }

    pub fn balance(&self, spec: &CounterSpec) -> Balance {
        let handle = self.ledger.find_counter(&spec.key).expect("a counter");
        self.ledger
            .counter_status(self.at, handle)
            .expect("its status")
            .balance
    }

    /// I6: replaying the journal gives this state.
    pub fn check_replay(&self) {
        let mut replayed = Ledger::new(Capacity::default());
        for record in &self.journal {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            replayed
                .apply(&Record::decode(&bytes).expect("decodes"))
                .expect("fits");
        }
        assert_eq!(sorted(replayed.snapshot()), sorted(self.ledger.snapshot()));
    }
}

pub(super) fn sorted(mut changes: Vec<SnapshotChange>) -> Vec<SnapshotChange> {
    changes.sort();
    changes
}

pub(super) fn name(text: &str) -> Arc<str> {
    text.into()
}
