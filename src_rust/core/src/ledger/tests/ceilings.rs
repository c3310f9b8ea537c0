//! Calls that are sent before their record is on the disk, a disk that crashes, and a provider
//! that keeps its own bill, at random: nothing that was billed is ever missing, also once all
//! evidence is in.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::*;
use crate::planted::{self, Bug};
use crate::window::{WindowKind, DAY_NS, HOUR_NS, MINUTE_NS};

const COMMIT_NS: i64 = 2_000_000;
/// The counter that every call is charged to.
const ALL: usize = 0;

#[derive(Clone, Debug)]
enum Action {
    Admit { mask: u8, amount: i64, parts: i64 },
    Flush { records: usize },
    Tell,
    Commit,
    Settle { pick: usize },
    TimeOut { pick: usize },
    GiveBack { pick: usize },
    Limit { counter: usize, limit: i64 },
    Pass(i64),
    Sweep,
    Lower,
    Checkpoint,
    Crash { keep: usize },
    Close,
    Evidence { named: bool },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let pick = 0..64usize;
    let times = prop_oneof![
        6 => 0..10 * COMMIT_NS,
        3 => 0..10 * SECOND_NS,
        2 => 0..5 * MINUTE_NS,
        1 => 0..2 * HOUR_NS,
        3 => 0..2 * DAY_NS,
    ];
    let parts = prop_oneof![Just(100i64), 0..=100i64];
    let action = prop_oneof![
        20 => (prop_oneof![Just(1u8), 0..16u8], 0..12i64, parts)
            .prop_map(|(mask, amount, parts)| Action::Admit { mask, amount, parts }),
        4 => (0..12usize).prop_map(|records| Action::Flush { records }),
        3 => Just(Action::Tell),
        10 => Just(Action::Commit),
        8 => pick.clone().prop_map(|pick| Action::Settle { pick }),
        2 => pick.clone().prop_map(|pick| Action::TimeOut { pick }),
        1 => pick.prop_map(|pick| Action::GiveBack { pick }),
        2 => (0..4usize, 0..200i64).prop_map(|(counter, limit)| Action::Limit { counter, limit }),
        5 => times.prop_map(Action::Pass),
        1 => Just(Action::Sweep),
        2 => Just(Action::Lower),
        1 => Just(Action::Checkpoint),
        2 => (0..8usize).prop_map(|keep| Action::Crash { keep }),
        1 => Just(Action::Close),
        2 => any::<bool>().prop_map(|named| Action::Evidence { named }),
    ];
    prop::collection::vec(action, 1..80)
}

fn pool() -> Vec<CounterSpec> {
    let hard = |limit| Policy {
        mode: Mode::Block,
        ..Policy::degrade(limit)
    };
    let shadow = Policy {
        mode: Mode::Shadow,
        ..hard(50)
    };
    let specs = [
        (
            key(ScopeKind::Global, "", WindowKind::Total, "UTC"),
            Policy::unlimited(),
        ),
        (key(ScopeKind::User, "u", WindowKind::Day, "UTC"), hard(120)),
        (
            key(ScopeKind::Team, "t", WindowKind::RollingDay, "UTC"),
            hard(200),
        ),
        (key(ScopeKind::Tag, "a=b", WindowKind::Day, "UTC"), shadow),
        (
            key(ScopeKind::User, "v", WindowKind::Week, "UTC"),
            Policy::degrade(150),
        ),
    ];
    let spec = |(key, policy)| CounterSpec { key, policy };
    specs.into_iter().map(spec).collect()
}

/// A counter of the pool and the first nanosecond of its window, or of a rolling one's slot.
type Place = (usize, i64);

#[derive(Clone, Debug)]
struct Call {
    hold: u64,
    /// Length of the journal when its hold is in it.
    journalled: usize,
    places: Vec<Place>,
    cost: i64,
    sent: bool,
    /// Settled, or known to be unknown.
    done: bool,
    /// The unknown of the crash that lost it.
    lost: Option<u64>,
}

struct World {
    pool: Vec<CounterSpec>,
    ledger: Ledger,
    journal: Vec<Vec<u8>>,
    /// Records that the disk has, and of how many the daemon knows it.
    flushed: usize,
    checkpoint: (BTreeMap<Vec<u8>, Vec<u8>>, usize),
    calls: Vec<Call>,
    bill: HashMap<Place, i64>,
    /// What windows came to that the ledger has forgotten.
    totals: HashMap<Place, Balance>,
    /// The highest limit that each counter ever had.
    highest: Vec<i64>,
    at: Stamp,
    /// How often something was sent before its record was on the disk.
    early: usize,
}

type Check = Result<(), String>;

impl World {
    fn new() -> Self {
        let pool = pool();
        let highest = pool.iter().map(|spec| spec.policy.limit.unwrap_or(0));
        Self {
            highest: highest.collect(),
            pool,
            ledger: Ledger::new(Capacity::default()),
            journal: Vec::new(),
            flushed: 0,
            checkpoint: (BTreeMap::new(), 0),
            calls: Vec::new(),
            bill: HashMap::new(),
            totals: HashMap::new(),
            at: Stamp::at(START),
            early: 0,
        }
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Ledger, Stamp, &mut Vec<Record>) -> T) -> T {
        let mut sink = Vec::new();
        let done = act(&mut self.ledger, self.at, &mut sink);
        for record in sink {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            self.journal.push(bytes);
        }
        done
    }

    fn step(&mut self, action: &Action) -> Check {
        let wrong = |error: LedgerError| error.to_string();
        match *action {
            Action::Admit {
                mask,
                amount,
                parts,
            } => self.admit(mask, amount, parts)?,
            Action::Flush { records } => {
                self.flushed = self.journal.len().min(self.flushed + records);
            }
            Action::Tell => self.tell(),
            Action::Commit => {
                self.flushed = self.journal.len();
                self.tell();
            }
            Action::Settle { pick } => self.settle(pick)?,
            Action::TimeOut { pick } => {
                if let Some(hold) = self.finish(pick, |call| call.sent) {
                    self.act(|ledger, at, sink| ledger.mark_unknown(at, hold, sink))
                        .map_err(wrong)?;
                }
            }
            Action::GiveBack { pick } => {
                if let Some(hold) = self.finish(pick, |call| !call.sent) {
                    self.act(|ledger, at, sink| ledger.release(at, hold, sink))
                        .map_err(wrong)?;
                }
            }
            Action::Limit { counter, limit } => self.limit(counter, limit)?,
            Action::Pass(ns) => {
                self.at.calendar_ns += ns;
                self.at.elapsed_ns += ns;
            }
            Action::Sweep => {
                self.act(|ledger, at, sink| ledger.sweep(at, SweepPlace::default(), 100, sink))
                    .map_err(wrong)?;
            }
            Action::Lower => self
                .act(|ledger, at, sink| ledger.lower_ceilings(at, IDLE_NS, 3, sink))
                .map_err(wrong)?,
            Action::Checkpoint => self.take_checkpoint(),
            Action::Crash { keep } => self.crash(keep)?,
            Action::Close => self.close()?,
            Action::Evidence { named } => self.evidence(named)?,
        }
        self.check()
    }

    fn admit(&mut self, mask: u8, amount: i64, parts: i64) -> Check {
        let counters: Vec<usize> = (0..self.pool.len())
            .filter(|i| *i == ALL || mask & (1 << (i - 1)) != 0)
            .collect();
        let pool = self.pool.clone();
        let specs: Vec<_> = counters
            .iter()
            .map(|i| CounterRef::Spec(&pool[*i]))
            .collect();
        let demand = Demand {
            menu: &[choice(amount)],
            counters: &specs,
            rates: &[],
            idempotency: None,
            price_hash: 1,
            label: None,
        };
        let answer = self.act(|ledger, at, sink| ledger.admit(at, &demand, sink));
        let Admission::Admitted(admitted) = answer.map_err(|error| error.to_string())? else {
            return Ok(());
        };
        let at = self.at.max(self.ledger.high_water());
        let place = |(index, handle): (&usize, &Handle)| {
            let status = self.ledger.counter_status(at, *handle);
            let start = status.map_or(0, |status| status.bounds.start_ns);
            match self.pool[*index].key.window.slot_ns() {
                Some(slot) => (*index, at.calendar_ns.div_euclid(slot) * slot),
                None => (*index, start),
            }
        };
        let places = counters.iter().zip(&admitted.counters).map(place).collect();
        let journalled = self.journal.len();
        self.calls.push(Call {
            hold: admitted.hold,
            journalled,
            places,
            cost: amount * parts / 100,
            sent: false,
            done: false,
            lost: None,
        });
        if admitted.clear {
            self.early += 1;
            self.send(self.calls.len() - 1);
        }
        let mark = self.journal.len() as u64 + 1;
        self.act(|ledger, at, sink| {
            ledger.raise_ceilings(at, &admitted.counters, amount, COMMIT_NS, mark, sink)
        })
        .map_err(|error| error.to_string())
    }

    fn send(&mut self, index: usize) {
        let call = &mut self.calls[index];
        call.sent = true;
        for place in &call.places {
            *self.bill.entry(*place).or_default() += call.cost;
        }
    }

    /// The daemon hears what is on the disk, and sends what waited for it.
    fn tell(&mut self) {
        self.ledger.note_durable(self.flushed as u64);
        for index in 0..self.calls.len() {
            let call = &self.calls[index];
            if !call.sent && !call.done && call.journalled <= self.flushed {
                self.send(index);
            }
        }
    }

    fn finish(&mut self, pick: usize, wanted: impl Fn(&Call) -> bool) -> Option<u64> {
        let mut all: Vec<&mut Call> = self
            .calls
            .iter_mut()
            .filter(|call| !call.done && wanted(call))
            .collect();
        let count = all.len();
        let call = all.get_mut(pick % count.max(1))?;
        call.done = true;
        Some(call.hold)
    }

    fn settle(&mut self, pick: usize) -> Check {
        let Some(hold) = self.finish(pick, |call| call.sent) else {
            return Ok(());
        };
        let call = self.calls.iter().rfind(|call| call.hold == hold);
        let result = AttemptResult {
            attempt: None,
            outcome: Outcome::Billed(call.map_or(0, |call| call.cost)),
        };
        self.act(|ledger, at, sink| ledger.settle(at, hold, &[result], None, sink))
            .map(drop)
            .map_err(|error| error.to_string())
    }

    fn limit(&mut self, counter: usize, limit: i64) -> Check {
        // The first only counts.
        let mut spec = self.pool[counter + 1].clone();
        spec.policy.limit = Some(limit);
        self.pool[counter + 1] = spec.clone();
        self.highest[counter + 1] = self.highest[counter + 1].max(limit);
        let changes = [LimitChange::Set(spec)];
        self.act(|ledger, at, sink| ledger.set_limits(at, &changes, false, sink))
            .map(drop)
            .map_err(|error| error.to_string())
    }

    fn take_checkpoint(&mut self) {
        // The keeper waits until all of it is on the disk.
        self.flushed = self.journal.len();
        self.checkpoint.1 = self.journal.len();
        for SnapshotChange { key, value } in self.ledger.take_snapshot_changes() {
            match value {
                Some(value) => self.checkpoint.0.insert(key, value),
                None => self.checkpoint.0.remove(&key),
            };
        }
    }

    fn restored(&self) -> Ledger {
        let mut ledger = Ledger::restore(Capacity::default(), &self.checkpoint.0).unwrap();
        for bytes in &self.journal[self.checkpoint.1..] {
            ledger.apply(&Record::decode(bytes).unwrap()).unwrap();
        }
        ledger
    }

    /// What the disk has by now is anything from what was flushed to everything.
    fn crash(&mut self, keep: usize) -> Check {
        let unwritten = self.journal.len() - self.flushed;
        let kept = self.flushed + keep % (unwritten + 1);
        self.journal.truncate(kept);
        let wrong = |error: LedgerError| error.to_string();
        // A recovery that dies before anything of it is on the disk leaves no trace.
        self.ledger = self.restored();
        self.act(|ledger, at, sink| {
            ledger.recover(at, sink)?;
            ledger.charge_lost(at, sink)
        })
        .map_err(wrong)?;
        let first = sorted(self.ledger.snapshot());
        self.journal.truncate(kept);
        self.ledger = self.restored();
        let sum = self
            .act(|ledger, at, sink| {
                ledger.recover(at, sink)?;
                ledger.charge_lost(at, sink)
            })
            .map_err(wrong)?;
        if sorted(self.ledger.snapshot()) != first {
            return Err("I6: two recoveries differ".into());
        }
        self.flushed = self.journal.len();
        // One that dies when all of it is on the disk finds nothing left to do.
        self.ledger = self.restored();
        let again = self
            .act(|ledger, at, sink| {
                let holds = ledger.recover(at, sink)?;
                Ok((holds, ledger.charge_lost(at, sink)?))
            })
            .map_err(wrong)?;
        if again != (0, 0) || sorted(self.ledger.snapshot()) != first {
            return Err("I6: recovery is not idempotent".into());
        }
        let crash = self.ledger.holds.lost.keys().last().copied();
        let crash = crash.filter(|_| sum > 0);
        for call in &mut self.calls {
            if call.journalled > kept {
                if call.lost.is_none() {
                    call.lost = Some(crash.unwrap_or(0));
                }
                // What waited for the disk was never sent.
                call.journalled = 0;
            }
            call.done = true;
        }
        Ok(())
    }

    /// An orderly end leaves nothing to be charged but what was under way.
    fn close(&mut self) -> Check {
        self.act(|ledger, at, sink| ledger.lower_ceilings(at, 0, usize::MAX, sink))
            .map_err(|error| error.to_string())?;
        self.flushed = self.journal.len();
        let before = self.ledger.holds.lost.len();
        self.crash(0)?;
        // That bug makes room behind the back of whoever takes it back: it must show otherwise.
        let excused = planted::planted(Bug::ReusesReturns);
        if self.ledger.holds.lost.len() > before && !excused {
            return Err("an orderly end was charged".into());
        }
        Ok(())
    }

    /// The provider's bill comes in: everything unknown is resolved.
    fn evidence(&mut self, named: bool) -> Check {
        let wrong = |error: LedgerError| error.to_string();
        for status in self.ledger.unresolved_holds() {
            if status.state != HoldState::Unknown {
                continue;
            }
            let hold = status.hold;
            if !status.lost {
                let call = self
                    .calls
                    .iter()
                    .rfind(|call| call.hold == hold && call.lost.is_none());
                let cost = call.filter(|call| call.sent).map_or(0, |call| call.cost);
                self.act(|ledger, at, sink| ledger.adjust(at, hold, None, cost, sink))
                    .map_err(wrong)?;
                continue;
            }
            let lost = self.calls.iter().filter(|call| call.lost == Some(hold));
            let lost: Vec<Call> = lost.filter(|call| call.sent).cloned().collect();
            let total: i64 = lost.iter().map(|call| call.cost).sum();
            let pool = self.pool.clone();
            let mut scopes = Vec::new();
            if named {
                let all = pool.iter().enumerate().map(|(index, spec)| {
                    let on = |call: &&Call| call.places.iter().any(|place| place.0 == index);
                    ScopeEvidence {
                        scope: spec.key.scope,
                        id: &spec.key.id,
                        posted: lost.iter().filter(on).map(|call| call.cost).sum(),
                    }
                });
                scopes.extend(all);
            }
            self.act(|ledger, at, sink| ledger.find_lost(at, hold, total, &scopes, sink))
                .map_err(wrong)?;
        }
        Ok(())
    }

    fn used(&self, (index, start_ns): Place) -> Option<Balance> {
        let handle = self.ledger.find_counter(&self.pool[index].key)?;
        let counter = self.ledger.counters.slab.get(handle)?;
        if counter.bounds.start_ns == start_ns {
            return Some(counter.balance);
        }
        let past = self
            .ledger
            .counters
            .past
            .range((handle, 0)..=(handle, u32::MAX));
        let mut found = past.filter(|(_, past)| past.bounds.start_ns == start_ns);
        found.next().map(|(_, past)| past.balance)
    }

    fn check(&mut self) -> Check {
        for total in self.ledger.take_window_totals() {
            let index = self.pool.iter().position(|spec| spec.key == total.key);
            let place = (index.expect("of the pool"), total.bounds.start_ns);
            self.totals.insert(place, total.balance);
        }
        let now = self.at.max(self.ledger.high_water()).calendar_ns;
        let mut rolling = 0;
        for (place, bill) in &self.bill {
            let window = self.pool[place.0].key.window;
            if let (Some(length), Some(slot)) = (window.rolling_ns(), window.slot_ns()) {
                if place.1 >= now - length + 1 - (slot - 1) {
                    rolling += bill;
                }
                continue;
            }
            let known = self.used(*place).or(self.totals.get(place).copied());
            let used = known.unwrap_or_default().used();
            if *bill > used {
                return Err(format!("I2: billed {bill} at {place:?}, charged {used}"));
            }
        }
        for (index, spec) in self.pool.iter().enumerate() {
            let handle = self.ledger.find_counter(&spec.key);
            let status = handle.and_then(|handle| self.ledger.counter_status(self.at, handle));
            let balance = status.map_or_else(Balance::default, |status| status.balance);
            if spec.key.window.slot_ns().is_some() && rolling > balance.used() {
                return Err(format!("I2: billed {rolling}, charged {balance:?}"));
            }
            let most = self.highest[index].saturating_add(balance.overrun);
            if spec.policy.limit.is_some() && spec.policy.mode.is_hard() && balance.used() > most {
                return Err(format!("I1: counter {index} has {balance:?} of {most}"));
            }
        }
        Ok(())
    }

    /// When all is known, the books are the provider's.
    fn finish_books(&mut self) -> Check {
        self.step(&Action::Crash { keep: 3 })?;
        self.step(&Action::Evidence { named: true })?;
        let posted = self.used((ALL, self.pool_start())).unwrap_or_default();
        let all = self.bill.iter().filter(|(place, _)| place.0 == ALL);
        let bill: i64 = all.map(|(_, bill)| bill).sum();
        if posted.used() != posted.posted || posted.posted != bill {
            return Err(format!("{posted:?} when {bill} was billed"));
        }
        Ok(())
    }

    fn pool_start(&self) -> i64 {
        let handle = self.ledger.find_counter(&self.pool[ALL].key);
        let status = handle.and_then(|handle| self.ledger.counter_status(self.at, handle));
        status.map_or(0, |status| status.bounds.start_ns)
    }
}

fn run(actions: &[Action]) -> Result<usize, String> {
    let mut world = World::new();
    for (number, action) in actions.iter().enumerate() {
        world
            .step(action)
            .map_err(|error| format!("step {number}, {action:?}: {error}"))?;
    }
    world.finish_books()?;
    Ok(world.early)
}

fn explore(shrink: bool) -> Result<usize, TestError<Vec<Action>>> {
    let asked = std::env::var("CASCADED_LEDGER_CASES").ok();
    let config = Config {
        cases: asked.and_then(|cases| cases.parse().ok()).unwrap_or(800),
        max_shrink_iters: if shrink { 20_000 } else { 0 },
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let early = std::cell::Cell::new(0);
    let found = TestRunner::new_with_rng(config, rng).run(&actions(), |actions| {
        let sent = run(&actions).map_err(TestCaseError::fail)?;
        early.set(early.get() + sent);
        Ok(())
    });
    found.map(|()| early.get())
}

#[test]
fn nothing_that_was_billed_is_missing() {
    let early = explore(true).unwrap_or_else(|error| panic!("{error}"));
    assert!(early > 1_000, "only {early} calls did not wait");
}

#[test]
fn every_planted_bug_is_caught() {
    let bugs = [
        Bug::TrustsUnwrittenRoom,
        Bug::LowersLate,
        Bug::ReusesReturns,
        Bug::RoomOutlivesWindow,
        Bug::ForgetsRooms,
    ];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = bugs.map(|bug| (bug, planted::with(Some(bug), || explore(false))));
    std::panic::set_hook(hook);
    for (bug, found) in found {
        match found {
            Err(TestError::Fail(reason, _)) => {
                let reason = reason.message();
                assert!(
                    reason.contains("I2") || reason.contains("I1"),
                    "{bug:?}: {reason}"
                );
            }
            other => panic!("{bug:?}: {other:?}"),
        }
    }
}
