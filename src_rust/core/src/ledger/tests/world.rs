//! A daemon, a disk that may crash and a provider that keeps its own bill, at random.
//!
//! Every step is done to the ledger and to the model, and then everything that must hold is
//! checked. The same run with a bug planted, or with the daemon misusing the ledger in a way that
//! other gateways do, must fail.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::model::{Model, Place};
use super::*;
use crate::planted::{self, Bug};
use crate::window::{WindowKind, DAY_NS, HOUR_NS, MINUTE_NS};

const REQUESTS: u32 = 5;
const TOKENS: u32 = 1_000;

/// What a daemon may do wrong around a ledger that is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misuse {
    DispatchBeforeDurable,
    LowerAfterWrite,
}

#[derive(Clone, Debug)]
enum Action {
    Admit {
        mask: u8,
        amounts: [i64; 2],
        tokens: u32,
        key: Option<(u8, u8)>,
    },
    Flush,
    Send {
        pick: usize,
        parts: i64,
    },
    Finish {
        pick: usize,
        overrun: i64,
    },
    TimeOut {
        pick: usize,
    },
    GiveBack {
        pick: usize,
    },
    Shrink {
        pick: usize,
        parts: i64,
    },
    Again {
        pick: usize,
    },
    Evidence {
        pick: usize,
    },
    Limit {
        counter: usize,
        limit: Option<i64>,
    },
    Pass(i64),
    StepBack(i64),
    Sweep,
    Checkpoint,
    Crash {
        keep: usize,
    },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let pick = 0..64usize;
    let times = prop_oneof![
        4 => 0..10 * SECOND_NS,
        2 => 0..2 * HOUR_NS,
        2 => 0..2 * DAY_NS,
        1 => 20 * DAY_NS..40 * DAY_NS,
    ];
    let key = prop::option::weighted(0.3, (0..4u8, 0..2u8));
    let action = prop_oneof![
        10 => (1..64u8, [0..60i64, 0..20i64], 0..600u32, key).prop_map(|(mask, amounts, tokens, key)| {
            Action::Admit { mask, amounts, tokens, key }
        }),
        5 => Just(Action::Flush),
        8 => (pick.clone(), 0..=100i64).prop_map(|(pick, parts)| Action::Send { pick, parts }),
        5 => (pick.clone(), prop_oneof![4 => Just(0i64), 1 => 1..40i64])
            .prop_map(|(pick, overrun)| Action::Finish { pick, overrun }),
        3 => pick.clone().prop_map(|pick| Action::TimeOut { pick }),
        2 => pick.clone().prop_map(|pick| Action::GiveBack { pick }),
        2 => (pick.clone(), 0..=100i64).prop_map(|(pick, parts)| Action::Shrink { pick, parts }),
        2 => pick.clone().prop_map(|pick| Action::Again { pick }),
        3 => pick.prop_map(|pick| Action::Evidence { pick }),
        2 => (0..6usize, prop::option::of(0..300i64))
            .prop_map(|(counter, limit)| Action::Limit { counter, limit }),
        5 => times.clone().prop_map(Action::Pass),
        1 => times.prop_map(Action::StepBack),
        2 => Just(Action::Sweep),
        1 => Just(Action::Checkpoint),
        2 => (0..8usize).prop_map(|keep| Action::Crash { keep }),
    ];
    prop::collection::vec(action, 1..80)
}

fn pool() -> Vec<CounterSpec> {
    let hard = |limit| Policy {
        mode: Mode::Block,
        ..Policy::degrade(limit)
    };
    let specs = [
        (
            key(ScopeKind::Global, "", WindowKind::Total, "UTC"),
            hard(400),
        ),
        (
            key(ScopeKind::User, "u", WindowKind::Day, "Africa/Cairo"),
            Policy::degrade(100),
        ),
        (
            key(
                ScopeKind::Organisation,
                "o",
                WindowKind::Month,
                "Asia/Beirut",
            ),
            hard(300),
        ),
        (
            key(ScopeKind::Team, "t", WindowKind::RollingDay, "UTC"),
            hard(120),
        ),
        (
            key(ScopeKind::User, "u", WindowKind::Week, "Atlantic/Azores"),
            Policy::unlimited(),
        ),
        (
            key(ScopeKind::Tag, "a=b", WindowKind::Day, "UTC"),
            Policy {
                mode: Mode::Shadow,
                ..hard(50)
            },
        ),
    ];
    specs
        .into_iter()
        .map(|(key, policy)| CounterSpec { key, policy })
        .collect()
}

/// A hold as the daemon remembers it, and what the provider knows of it.
#[derive(Clone, Debug)]
struct Call {
    hold: u64,
    /// Length of the journal when its hold is in it.
    journalled: usize,
    places: Vec<Place>,
    amount: i64,
    tokens: u32,
    /// The attempt and what it will cost, once it was sent.
    sent: Option<(u16, i64)>,
    done: bool,
}

struct World {
    misuse: Option<Misuse>,
    pool: Vec<CounterSpec>,
    rates: [RateSpec; 2],
    ledger: Ledger,
    journal: Vec<Vec<u8>>,
    /// The model as it was before each record of the journal, and after the last.
    models: Vec<Model>,
    durable: usize,
    checkpoint: (BTreeMap<Vec<u8>, Vec<u8>>, usize),
    calls: Vec<Call>,
    bill: HashMap<Place, i64>,
    /// Limits that were written and are not applied yet (a misuse).
    late_limits: Vec<LimitChange>,
    /// Trusted time, and how far the calendar is behind it.
    at: Stamp,
}

type Check = Result<(), String>;

fn records(bytes: &[Vec<u8>]) -> impl Iterator<Item = Record> + '_ {
    bytes
        .iter()
        .map(|bytes| Record::decode(bytes).expect("our own record"))
}

impl World {
    fn new(misuse: Option<Misuse>) -> Self {
        let pool = pool();
        let rates = [
            rate("u", Unit::Requests, REQUESTS, MINUTE_NS),
            rate("u", Unit::Tokens, TOKENS, MINUTE_NS),
        ];
        let models = vec![Model::new(&pool)];
        Self {
            misuse,
            pool,
            rates,
            ledger: Ledger::new(Capacity::default()),
            journal: Vec::new(),
            models,
            durable: 0,
            checkpoint: (BTreeMap::new(), 0),
            calls: Vec::new(),
            bill: HashMap::new(),
            late_limits: Vec::new(),
            at: Stamp::at(START),
        }
    }

    fn model(&mut self) -> &mut Model {
        self.models.last_mut().expect("always one")
    }

    /// Does something to the ledger; for each record, the model moves on by a step.
    fn act<T>(&mut self, act: impl FnOnce(&mut Ledger, Stamp, &mut Vec<Record>) -> T) -> T {
        let mut sink = Vec::new();
        let done = act(&mut self.ledger, self.at, &mut sink);
        for record in sink {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            self.journal.push(bytes);
            let model = self.model().clone();
            self.models.push(model);
        }
        done
    }

    fn now(&self) -> i64 {
        self.at.max(self.ledger.high_water()).calendar_ns
    }

    fn step(&mut self, action: &Action) -> Check {
        match *action {
            Action::Admit {
                mask,
                amounts,
                tokens,
                key,
            } => self.admit(mask, amounts, tokens, key)?,
            Action::Flush => self.flush(),
            Action::Send { pick, parts } => self.send(pick, parts),
            Action::Finish { pick, overrun } => self.finish(pick, overrun)?,
            Action::TimeOut { pick } => self.time_out(pick)?,
            Action::GiveBack { pick } => self.give_back(pick)?,
            Action::Shrink { pick, parts } => self.shrink(pick, parts),
            Action::Again { pick } => self.again(pick)?,
            Action::Evidence { pick } => self.evidence(pick)?,
            Action::Limit { counter, limit } => self.limit(counter, limit),
            Action::Pass(ns) => {
                self.at.calendar_ns += ns;
                self.at.elapsed_ns += ns;
            }
            // A daemon that passed the wall clock on as it is.
            Action::StepBack(ns) => self.at.calendar_ns -= ns,
            Action::Sweep => {
                self.act(|ledger, at, sink| ledger.sweep(at, SweepPlace::default(), 100, sink))
                    .map_err(|error| error.to_string())?;
            }
            Action::Checkpoint => self.take_checkpoint(),
            Action::Crash { keep } => self.crash(keep)?,
        }
        self.check()
    }

    fn admit(&mut self, mask: u8, amounts: [i64; 2], tokens: u32, key: Option<(u8, u8)>) -> Check {
        let counters: Vec<usize> = (0..self.pool.len())
            .filter(|i| mask & (1 << i) != 0)
            .collect();
        let pool = self.pool.clone();
        let specs: Vec<_> = counters
            .iter()
            .map(|i| CounterRef::Spec(&pool[*i]))
            .collect();
        let rates = self.rates.clone();
        let rates = [RateRef::Spec(&rates[0]), RateRef::Spec(&rates[1])];
        let [dear, cheap] = amounts;
        let menu = [
            Choice {
                ladder: 1,
                amount: dear,
                rungs: &[dear],
                cheap: false,
                tokens,
            },
            Choice {
                ladder: 2,
                amount: cheap,
                rungs: &[cheap],
                cheap: true,
                tokens: tokens / 2,
            },
        ];
        let idempotency = key.map(|(key, body)| Idempotency {
            key: [key; 16],
            body: [body; 16],
        });
        let demand = Demand {
            menu: &menu,
            counters: &specs,
            rates: &rates,
            idempotency,
            price_hash: 1,
            label: None,
        };
        let before = sorted(self.ledger.snapshot());
        let peek = self
            .ledger
            .peek(self.at, &demand)
            .map_err(|error| error.to_string())?;
        let answer = self.act(|ledger, at, sink| ledger.admit(at, &demand, sink));
        let known = key.and_then(|(key, _)| self.model().keys_used.get(&key).copied());
        match answer {
            Ok(Admission::Admitted(admitted)) => {
                if let (Some((body, hold)), Some(key)) = (known, key) {
                    let alive = self.ledger.holds.key(&[key.0; 16], self.now()).is_some();
                    let fresh = alive && self.ledger.holds.keys[&[key.0; 16]].hold == admitted.hold;
                    if !fresh || self.key_is_young(hold) {
                        return Err(format!("I10: key {key:?} of {hold} ({body}) took another"));
                    }
                }
                if peek.outcome != Ok(admitted.choice) {
                    return Err(format!("{peek:?} but {admitted:?}"));
                }
                self.admitted(&counters, &menu[admitted.choice], admitted.hold, key)
            }
            Ok(Admission::Existing(existing)) => match (known, key) {
                (Some((body, hold)), Some((_, asked)))
                    if body == asked && hold == existing.hold =>
                {
                    self.unchanged(&before)
                }
                _ => Err(format!("I10: {existing:?} for {key:?}, known {known:?}")),
            },
            Err(LedgerError::Conflict(hold)) => match (known, key) {
                (Some((body, first)), Some((_, asked))) if body != asked && first == hold => {
                    self.unchanged(&before)
                }
                _ => Err(format!(
                    "I10: conflict with {hold} for {key:?}, known {known:?}"
                )),
            },
            Ok(Admission::Refused(_)) if peek.outcome.is_err() => self.unchanged(&before),
            other => Err(format!("{other:?} but {peek:?}")),
        }
    }

    fn key_is_young(&mut self, hold: u64) -> bool {
        let now = self.now();
        let reserved = records(&self.journal).find_map(|record| match record {
            Record::Reserve(reserve) if reserve.hold == hold => Some(reserve.at.calendar_ns),
            _ => None,
        });
        reserved.is_some_and(|at| at + KEY_LIFETIME_NS > now)
    }

    fn unchanged(&self, before: &[SnapshotChange]) -> Check {
        if sorted(self.ledger.snapshot()) == before {
            return Ok(());
        }
        Err("I3: something was taken without a reservation".into())
    }

    fn admitted(
        &mut self,
        counters: &[usize],
        choice: &Choice<'_>,
        hold: u64,
        key: Option<(u8, u8)>,
    ) -> Check {
        let at_ns = self.now();
        let elapsed_ns = self.at.max(self.ledger.high_water()).elapsed_ns;
        let amount = choice.amount;
        let journalled = self.journal.len();
        let model = self.model();
        model.admit(hold, at_ns, counters, amount)?;
        if let Some((key, body)) = key {
            model.keys_used.insert(key, (body, hold));
        }
        model.taken.push((elapsed_ns, hold, choice.tokens));
        model
            .taken
            .retain(|(at, _, _)| *at > elapsed_ns - MINUTE_NS);
        let tokens: u32 = model.taken.iter().map(|(_, _, tokens)| tokens).sum();
        if model.taken.len() > REQUESTS as usize || tokens > TOKENS {
            return Err(format!(
                "I8: {} requests, {tokens} tokens",
                model.taken.len()
            ));
        }
        let places = model.holds[&hold].places.clone();
        let (sent, done) = (None, false);
        let tokens = choice.tokens;
        self.calls.push(Call {
            hold,
            journalled,
            places,
            amount,
            tokens,
            sent,
            done,
        });
        Ok(())
    }

    fn flush(&mut self) {
        self.durable = self.journal.len();
        let late = std::mem::take(&mut self.late_limits);
        if !late.is_empty() {
            self.act(|ledger, at, sink| ledger.set_limits(at, &late, false, sink))
                .unwrap();
        }
    }

    fn pick(&self, pick: usize, wanted: impl Fn(&Call) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.calls.len())
            .filter(|i| wanted(&self.calls[*i]))
            .collect();
        all.get(pick % all.len().max(1)).copied()
    }

    fn send(&mut self, pick: usize, parts: i64) {
        let careless = self.misuse == Some(Misuse::DispatchBeforeDurable);
        let durable = self.durable;
        let ready = |call: &Call| {
            call.sent.is_none() && !call.done && (careless || call.journalled <= durable)
        };
        let Some(index) = self.pick(pick, ready) else {
            return;
        };
        let Call {
            hold,
            amount,
            places,
            ..
        } = self.calls[index].clone();
        let attempt = self.act(|ledger, _, sink| ledger.dispatch(hold, 0, Some(amount), sink));
        let Ok(attempt) = attempt else { return };
        let cost = amount * parts / 100;
        for place in places {
            *self.bill.entry(place).or_default() += cost;
        }
        self.calls[index].sent = Some((attempt, cost));
    }

    fn finish(&mut self, pick: usize, overrun: i64) -> Check {
        let Some(index) = self.pick(pick, |call| call.sent.is_some() && !call.done) else {
            return Ok(());
        };
        let Call {
            hold,
            places,
            sent,
            tokens,
            amount,
            ..
        } = self.calls[index].clone();
        let (attempt, cost) = sent.expect("picked for it");
        // Above the hold only when all of the hold is used up: such is an overrun.
        let actual = if overrun > 0 { amount + overrun } else { cost };
        for place in places {
            *self.bill.entry(place).or_default() += actual - cost;
        }
        let result = AttemptResult {
            attempt: Some(attempt),
            outcome: Outcome::Billed(actual),
        };
        let used = tokens / 2;
        let receipt = self
            .act(|ledger, at, sink| ledger.settle(at, hold, &[result], Some(used), sink))
            .map_err(|error| format!("settle: {error}"))?;
        let held = self.model().holds[&hold].amount;
        self.model().settle(hold, actual, 0);
        self.correct(hold, used);
        self.calls[index].done = true;
        if overrun > 0 {
            // The promise is for bills within the hold: what is above is safe once it is written.
            self.flush();
        }
        if receipt.overrun != (actual - held).max(0) {
            return Err(format!("{receipt:?} of {actual} on {held}"));
        }
        Ok(())
    }

    fn correct(&mut self, hold: u64, tokens: u32) {
        for taken in self
            .model()
            .taken
            .iter_mut()
            .filter(|taken| taken.1 == hold)
        {
            taken.2 = tokens;
        }
    }

    fn time_out(&mut self, pick: usize) -> Check {
        let Some(index) = self.pick(pick, |call| call.sent.is_some() && !call.done) else {
            return Ok(());
        };
        let hold = self.calls[index].hold;
        // A careless daemon would give it back; the ledger must not let it.
        let given_back = self
            .act(|ledger, at, sink| ledger.release(at, hold, sink))
            .is_ok();
        if given_back {
            self.model().settle(hold, 0, 0);
            self.correct(hold, 0);
            self.calls[index].done = true;
            return Ok(());
        }
        self.act(|ledger, at, sink| ledger.mark_unknown(at, hold, sink))
            .map_err(|error| format!("unknown: {error}"))?;
        let amount = self.model().holds[&hold].amount;
        self.model().settle(hold, 0, amount);
        self.calls[index].done = true;
        Ok(())
    }

    fn give_back(&mut self, pick: usize) -> Check {
        let Some(index) = self.pick(pick, |call| call.sent.is_none() && !call.done) else {
            return Ok(());
        };
        let hold = self.calls[index].hold;
        self.act(|ledger, at, sink| ledger.release(at, hold, sink))
            .map_err(|error| format!("release: {error}"))?;
        self.model().settle(hold, 0, 0);
        self.correct(hold, 0);
        self.calls[index].done = true;
        Ok(())
    }

    fn shrink(&mut self, pick: usize, parts: i64) {
        let Some(index) = self.pick(pick, |call| !call.done) else {
            return;
        };
        let Call { hold, amount, .. } = self.calls[index];
        let to = amount * parts / 100;
        let shrunk = self.act(|ledger, at, sink| ledger.shrink(at, hold, to, sink));
        if shrunk.is_ok() {
            self.model().shrink(hold, to);
            self.calls[index].amount = to;
        }
    }

    /// I4: nothing that is resolved is resolved again.
    fn again(&mut self, pick: usize) -> Check {
        let Some(index) = self.pick(pick, |call| call.done) else {
            return Ok(());
        };
        let hold = self.calls[index].hold;
        let before = sorted(self.ledger.snapshot());
        let result = AttemptResult {
            attempt: None,
            outcome: Outcome::Billed(5),
        };
        let settled = self.act(|ledger, at, sink| ledger.settle(at, hold, &[result], None, sink));
        let released = self.act(|ledger, at, sink| ledger.release(at, hold, sink));
        let unknown = self.act(|ledger, at, sink| ledger.mark_unknown(at, hold, sink));
        if settled.is_ok() || released.is_ok() || unknown.is_ok() {
            return Err(format!("I4: hold {hold} was resolved twice"));
        }
        self.unchanged(&before)
    }

    fn evidence(&mut self, pick: usize) -> Check {
        let unknown: Vec<u64> = {
            let holds = &self.model().holds;
            let mut unknown: Vec<u64> = holds
                .iter()
                .filter(|(_, hold)| hold.unknown > 0)
                .map(|(id, _)| *id)
                .collect();
            unknown.sort_unstable();
            unknown
        };
        let Some(hold) = unknown.get(pick % unknown.len().max(1)).copied() else {
            return Ok(());
        };
        let call = self.calls.iter().find(|call| call.hold == hold);
        let cost = call.and_then(|call| call.sent).map_or(0, |(_, cost)| cost);
        self.act(|ledger, at, sink| ledger.adjust(at, hold, None, cost, sink))
            .map_err(|error| format!("adjust: {error}"))?;
        self.model().adjust(hold, cost);
        Ok(())
    }

    fn limit(&mut self, counter: usize, limit: Option<i64>) {
        let spec = CounterSpec {
            key: self.pool[counter].key.clone(),
            policy: Policy {
                limit,
                ..self.pool[counter].policy
            },
        };
        let lower = limit.is_some_and(|limit| {
            self.model().policies[counter]
                .limit
                .is_none_or(|present| limit < present)
        });
        self.pool[counter] = spec.clone();
        let change = LimitChange::Set(spec.clone());
        if self.misuse == Some(Misuse::LowerAfterWrite) && lower {
            self.late_limits.push(change);
        } else {
            self.act(|ledger, at, sink| ledger.set_limits(at, &[change], false, sink))
                .unwrap();
        }
        self.model().policies[counter] = spec.policy;
    }

    fn take_checkpoint(&mut self) {
        self.flush();
        for SnapshotChange { key, value } in self.ledger.take_snapshot_changes() {
            match value {
                Some(value) => self.checkpoint.0.insert(key, value),
                None => self.checkpoint.0.remove(&key),
            };
        }
        self.checkpoint.1 = self.journal.len();
    }

    /// What a new process finds: the checkpoint and the journal behind it.
    fn restored(&self) -> Result<Ledger, String> {
        let (entries, position) = &self.checkpoint;
        let entries = entries
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_slice()));
        let mut ledger =
            Ledger::restore(Capacity::default(), entries).map_err(|error| error.to_string())?;
        for record in records(&self.journal[*position..]) {
            ledger
                .apply(&record)
                .map_err(|misfit| format!("I6: {misfit}"))?;
        }
        Ok(ledger)
    }

    fn replayed(&self) -> Result<Ledger, String> {
        let mut ledger = Ledger::new(Capacity::default());
        for record in records(&self.journal) {
            ledger
                .apply(&record)
                .map_err(|misfit| format!("I6: {misfit}"))?;
        }
        Ok(ledger)
    }

    /// I6: the journal, with or without a checkpoint, gives the state.
    fn check_replay(&self) -> Check {
        let state = sorted(self.ledger.snapshot());
        if sorted(self.replayed()?.snapshot()) != state {
            return Err("I6: the journal gives another state".into());
        }
        if sorted(self.restored()?.snapshot()) != state {
            return Err("I6: the checkpoint gives another state".into());
        }
        Ok(())
    }

    /// Loses what was not durable, but for up to `keep` records, and starts anew.
    fn crash(&mut self, keep: usize) -> Check {
        self.check_replay()?;
        let kept = (self.durable + keep).min(self.journal.len());
        self.journal.truncate(kept);
        self.models.truncate(kept + 1);
        self.calls.retain(|call| call.journalled <= kept);
        self.late_limits.clear();
        self.ledger = self.restored()?;
        // What is in the file is what counts, so the pool starts from that.
        let policies = self.model().policies.clone();
        for (spec, policy) in self.pool.iter_mut().zip(policies) {
            spec.policy = policy;
        }
        self.check_bill()?;
        let open: Vec<u64> = {
            let unresolved = self.ledger.unresolved_holds();
            let held = unresolved
                .iter()
                .filter(|hold| hold.state != HoldState::Unknown);
            held.map(|hold| hold.hold).collect()
        };
        self.act(|ledger, at, sink| ledger.recover(at, sink))
            .map_err(|error| error.to_string())?;
        for hold in open {
            let amount = self.model().holds[&hold].amount;
            self.model().settle(hold, 0, amount);
        }
        self.calls.iter_mut().for_each(|call| call.done = true);
        // A crash during recovery starts it again, and finds nothing left to do.
        let before = self.journal.len();
        self.act(|ledger, at, sink| ledger.recover(at, sink))
            .map_err(|error| error.to_string())?;
        if self.journal.len() != before {
            return Err("I6: recovery is not idempotent".into());
        }
        self.durable = self.journal.len();
        Ok(())
    }

    /// I2: what the provider billed is never above what the ledger charges.
    fn check_bill(&mut self) -> Check {
        let bills: Vec<(Place, i64)> = self
            .bill
            .iter()
            .map(|(place, bill)| (*place, *bill))
            .collect();
        for (place, bill) in bills {
            let charged = self.model().balances.get(&place).map_or(0, Balance::used);
            if bill > charged {
                return Err(format!("I2: billed {bill} at {place:?}, charged {charged}"));
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Check {
        let at_ns = self.now();
        self.check_bill()?;
        self.model().check_limits(at_ns)?;
        for index in 0..self.pool.len() {
            let expected = self.model().balance(index, at_ns);
            let handle = self.ledger.find_counter(&self.pool[index].key);
            let status = handle.and_then(|handle| self.ledger.counter_status(self.at, handle));
            let found = status.map_or_else(Balance::default, |status| status.balance);
            if found != expected {
                return Err(format!("counter {index} has {found:?}, not {expected:?}"));
            }
        }
        // Windows that are over, too.
        for (place, balance) in self.model().balances.clone() {
            let key = self.pool[place.0].key.clone();
            let Some(charge) = self.ledger.counters.charge_of(&key, place.1) else {
                continue;
            };
            if let Some(past) = self
                .ledger
                .counters
                .past
                .get(&(charge.counter, charge.period))
            {
                if past.balance != balance {
                    return Err(format!(
                        "past {place:?} has {:?}, not {balance:?}",
                        past.balance
                    ));
                }
            }
        }
        Ok(())
    }
}

fn run(misuse: Option<Misuse>, actions: &[Action]) -> Check {
    let mut world = World::new(misuse);
    for (number, action) in actions.iter().enumerate() {
        world
            .step(action)
            .map_err(|error| format!("step {number}, {action:?}: {error}"))?;
    }
    world.check_replay()
}

fn explore(cases: u32, misuse: Option<Misuse>, shrink: bool) -> Result<(), TestError<Vec<Action>>> {
    let max_shrink_iters = if shrink { 20_000 } else { 0 };
    let config = Config {
        cases,
        max_shrink_iters,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng).run(&actions(), |actions| {
        run(misuse, &actions).map_err(TestCaseError::fail)
    })
}

/// How many runs: more on demand, as `CASCADED_LEDGER_CASES`.
fn cases() -> u32 {
    let asked = std::env::var("CASCADED_LEDGER_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    asked.unwrap_or(600)
}

#[test]
fn the_invariants_hold() {
    explore(cases(), None, true).unwrap_or_else(|error| panic!("{error}"));
}

/// How a bug shows first.
fn symptom(bug: Option<Bug>, misuse: Option<Misuse>) -> String {
    // A ledger whose record does not fit its own state stops, which is being caught, too.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = planted::with(bug, || explore(cases(), misuse, false));
    std::panic::set_hook(hook);
    match found {
        Ok(()) => panic!("{bug:?} {misuse:?} went unnoticed"),
        Err(TestError::Fail(reason, _)) => reason.message().to_owned(),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

#[test]
fn every_planted_bug_is_caught() {
    let bugs = [
        (Bug::TakesSome, "admitted over"),
        (Bug::CutsOverrun, "overrun"),
        (Bug::PostsToNewWindow, "would not fit"),
        (Bug::RollsOverHolds, "tables disagree"),
        (Bug::ReopensWindow, "counter"),
        (Bug::SettlesTwice, "I4"),
        (Bug::ReleasesTimeouts, "I2"),
        (Bug::ExpiresToFree, "Crash"),
        (Bug::ShrinksToFit, "I2"),
        (Bug::ForgetsKeys, "I10"),
    ];
    for (bug, expected) in bugs {
        let found = symptom(Some(bug), None);
        assert!(found.contains(expected), "{bug:?}: {found}");
    }
}

#[test]
fn every_misuse_is_caught() {
    let misuses = [
        (Misuse::DispatchBeforeDurable, "I2"),
        (Misuse::LowerAfterWrite, "admitted over"),
    ];
    for (misuse, expected) in misuses {
        let found = symptom(None, Some(misuse));
        assert!(found.contains(expected), "{misuse:?}: {found}");
    }
}
