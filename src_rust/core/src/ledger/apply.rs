//! Applying records: the only way in which the ledger changes, live or in a replay.

use super::balance::Change;
use super::error::Misfit;
use super::holds::{Attempt, Hold, HoldState, KeyEntry, LostCalls, Outcome, KEY_LIFETIME_NS};
use super::record::{
    Adjust, AttemptEnd, Ceilings, Dispatch, Found, LateAdjust, Limits, Lost, PastWindow, Record,
    Release, Reserve, Room, Settle, Shrink, Sweep, Unknown,
};
use super::{LateTotal, Ledger};
use crate::planted::{planted, Bug};
use crate::window::Stamp;

const GONE: Misfit = Misfit("no such hold");

fn check(amounts_fit: bool) -> Result<(), Misfit> {
    if amounts_fit {
        return Ok(());
    }
    Err(Misfit("an amount is out of range"))
}

impl Ledger {
    /// Applies a record, from this ledger's decision or from its journal.
    ///
    /// Records that were decided by this ledger always fit. One that does not is from another
    /// ledger or damaged: the state is then of no use and must be thrown away.
    pub fn apply(&mut self, record: &Record) -> Result<(), Misfit> {
        match record {
            Record::Reserve(reserve) => self.apply_reserve(reserve),
            Record::Dispatch(dispatch) => self.apply_dispatch(dispatch),
            Record::AttemptEnd(end) => self.apply_attempt_end(end),
            Record::Shrink(shrink) => self.apply_shrink(shrink),
            Record::Settle(settle) => self.apply_settle(settle),
            Record::Release(release) => self.apply_release(release),
            Record::Unknown(unknown) => self.apply_unknown(unknown),
            Record::Adjust(adjust) => self.apply_adjust(adjust),
            Record::LateAdjust(adjust) => self.apply_late_adjust(adjust),
            Record::Limits(limits) => self.apply_limits(limits),
            Record::Sweep(sweep) => self.apply_sweep(sweep),
            Record::Ceilings(ceilings) => self.apply_ceilings(ceilings),
            Record::Lost(lost) => self.apply_lost(lost),
            Record::Found(found) => self.apply_found(found),
            Record::Gap(gap) => self.apply_gap(gap),
        }
    }

    pub(super) fn advance(&mut self, at: Stamp) {
        self.high_water = self.high_water.max(at);
    }

    pub(super) fn apply_reserve(&mut self, reserve: &Reserve) -> Result<(), Misfit> {
        check(reserve.amount >= 0)?;
        self.advance(reserve.at);
        let at_ns = reserve.at.calendar_ns;
        self.holds.forget_expired_keys(at_ns);
        for open in &reserve.opens {
            self.counters.open(open)?;
        }
        for roll in &reserve.rolls {
            self.counters.roll(roll)?;
        }
        for open in &reserve.rate_opens {
            self.rates.open(&mut self.counters.scopes, open)?;
        }
        let mut charges = Vec::with_capacity(reserve.counters.len());
        for counter in &reserve.counters {
            charges.push(self.counters.reserve(at_ns, *counter, reserve.amount)?);
        }
        for charge in &reserve.rates {
            self.rates.take(reserve.at.elapsed_ns, *charge)?;
        }
        self.remember_key(reserve);
        let hold = Hold {
            state: HoldState::Open,
            amount: reserve.amount,
            unknown: 0,
            at: reserve.at,
            price_hash: reserve.price_hash,
            ladder: reserve.ladder,
            charges,
            rates: reserve.rates.clone(),
            rungs: reserve.rungs.clone(),
            attempts: Vec::new(),
            key: reserve.idempotency.map(|idempotency| idempotency.key),
            label: reserve.label.clone(),
        };
        self.holds.next = reserve
            .hold
            .checked_add(1)
            .ok_or(Misfit("too many holds"))?;
        let taken = self.holds.open.insert(reserve.hold, hold).is_some();
        self.holds.touch(reserve.hold);
        if taken {
            return Err(Misfit("a hold's number is taken"));
        }
        Ok(())
    }

    fn remember_key(&mut self, reserve: &Reserve) {
        let Some(idempotency) = reserve.idempotency else {
            return;
        };
        let entry = KeyEntry {
            body: idempotency.body,
            hold: reserve.hold,
            amount: reserve.amount,
            choice: reserve.choice,
            ladder: reserve.ladder,
            state: HoldState::Open,
            expires_ns: reserve.at.calendar_ns.saturating_add(KEY_LIFETIME_NS),
        };
        self.holds.remember_key(idempotency.key, entry);
    }

    fn apply_dispatch(&mut self, dispatch: &Dispatch) -> Result<(), Misfit> {
        let hold = self.holds.touch(dispatch.hold).ok_or(GONE)?;
        hold.state = HoldState::Dispatched;
        let Dispatch { rung, amount, .. } = *dispatch;
        hold.attempts.push(Attempt {
            rung,
            amount,
            outcome: Outcome::InFlight,
        });
        let key = hold.key;
        self.holds
            .note_state(key, dispatch.hold, HoldState::Dispatched);
        Ok(())
    }

    fn apply_attempt_end(&mut self, end: &AttemptEnd) -> Result<(), Misfit> {
        let hold = self.holds.touch(end.hold).ok_or(GONE)?;
        let attempt = hold.attempts.get_mut(usize::from(end.attempt));
        attempt.ok_or(Misfit("no such attempt"))?.outcome = end.outcome;
        Ok(())
    }

    fn apply_shrink(&mut self, shrink: &Shrink) -> Result<(), Misfit> {
        self.advance(shrink.at);
        let hold = self.holds.touch(shrink.hold).ok_or(GONE)?;
        check((0..=hold.amount).contains(&shrink.amount))?;
        let change = Change::hold(shrink.amount - hold.amount);
        hold.amount = shrink.amount;
        let charges = hold.charges.clone();
        for charge in charges {
            self.counters
                .change(shrink.at.calendar_ns, charge, change, false)?;
        }
        Ok(())
    }

    fn apply_settle(&mut self, settle: &Settle) -> Result<(), Misfit> {
        check(settle.posted >= 0 && settle.unknown >= 0)?;
        self.advance(settle.at);
        let hold = self.holds.open.get(&settle.hold).ok_or(GONE)?;
        let mut change = Change::settle(hold.amount, settle.posted, settle.unknown)
            .ok_or(Misfit("a sum overflows"))?;
        if planted(Bug::CutsOverrun) {
            change.posted = change
                .posted
                .min(hold.amount - change.unknown.min(hold.amount));
        }
        if let Some(tokens) = settle.tokens {
            let (at, rates) = (hold.at.elapsed_ns, hold.rates.clone());
            rates
                .iter()
                .for_each(|charge| self.rates.correct(at, *charge, tokens));
        }
        let state = if settle.unknown > 0 {
            HoldState::Unknown
        } else {
            HoldState::Settled
        };
        self.resolve(settle.at, settle.hold, change, state)
    }

    fn apply_release(&mut self, release: &Release) -> Result<(), Misfit> {
        self.advance(release.at);
        let hold = self.holds.open.get(&release.hold).ok_or(GONE)?;
        let change = Change::hold(-hold.amount);
        let (at, rates) = (hold.at.elapsed_ns, hold.rates.clone());
        rates
            .iter()
            .for_each(|charge| self.rates.correct(at, *charge, 0));
        self.resolve(release.at, release.hold, change, HoldState::Released)
    }

    pub(super) fn apply_unknown(&mut self, unknown: &Unknown) -> Result<(), Misfit> {
        self.advance(unknown.at);
        let hold = self.holds.open.get(&unknown.hold).ok_or(GONE)?;
        let change =
            Change::settle(hold.amount, 0, hold.amount).ok_or(Misfit("a sum overflows"))?;
        self.resolve(unknown.at, unknown.hold, change, HoldState::Unknown)
    }

    fn apply_adjust(&mut self, adjust: &Adjust) -> Result<(), Misfit> {
        self.advance(adjust.at);
        let hold = self.holds.open.get(&adjust.hold).ok_or(GONE)?;
        check(adjust.posted >= 0 && (0..=hold.unknown).contains(&adjust.unknown))?;
        let change = Change::adjust(adjust.unknown, adjust.posted);
        let left = hold.unknown - adjust.unknown;
        let state = if left > 0 {
            HoldState::Unknown
        } else {
            HoldState::Adjusted
        };
        self.resolve(adjust.at, adjust.hold, change, state)
    }

    /// Changes all windows a hold is charged to, and forgets it unless something stays unknown.
    fn resolve(
        &mut self,
        at: Stamp,
        id: u64,
        change: Change,
        state: HoldState,
    ) -> Result<(), Misfit> {
        let last = state != HoldState::Unknown && !planted(Bug::SettlesTwice);
        let hold = self.holds.touch(id).ok_or(GONE)?;
        hold.state = state;
        hold.amount += change.held;
        hold.unknown += change.unknown;
        let (key, charges) = (hold.key, std::mem::take(&mut hold.charges));
        for charge in &charges {
            self.counters
                .change(at.calendar_ns, *charge, change, last)?;
        }
        self.holds.note_state(key, id, state);
        if last {
            self.holds.remove(id);
        } else if let Some(hold) = self.holds.touch(id) {
            hold.charges = charges;
        }
        Ok(())
    }

    fn apply_late_adjust(&mut self, adjust: &LateAdjust) -> Result<(), Misfit> {
        self.advance(adjust.at);
        let change = Change::late(adjust.posted);
        for window in &adjust.windows {
            let present = self.counters.charge_of(&window.key, window.start_ns);
            if let Some(charge) = present {
                self.counters
                    .change(adjust.at.calendar_ns, charge, change, false)?;
                continue;
            }
            let PastWindow { key, start_ns } = window.clone();
            let (hold, posted, at) = (adjust.hold, adjust.posted, adjust.at);
            self.late.push(LateTotal {
                key,
                start_ns,
                hold,
                posted,
                at,
            });
        }
        Ok(())
    }

    fn apply_limits(&mut self, limits: &Limits) -> Result<(), Misfit> {
        self.advance(limits.at);
        for open in &limits.opens {
            self.counters.open(open)?;
        }
        for change in &limits.counters {
            self.counters.set_policy(change.counter, change.policy)?;
        }
        for open in &limits.rate_opens {
            self.rates.open(&mut self.counters.scopes, open)?;
        }
        limits
            .rates
            .iter()
            .try_for_each(|change| self.rates.set_limit(*change))
    }

    fn apply_ceilings(&mut self, ceilings: &Ceilings) -> Result<(), Misfit> {
        for Room { counter, room } in &ceilings.rooms {
            check(*room >= 0)?;
            self.counters.set_room(*counter, *room)?;
        }
        Ok(())
    }

    fn apply_lost(&mut self, lost: &Lost) -> Result<(), Misfit> {
        self.advance(lost.at);
        let at_ns = lost.at.calendar_ns;
        let mut charges = Vec::with_capacity(lost.rooms.len());
        for Room { counter, room } in &lost.rooms {
            check(*room > 0)?;
            charges.push((self.counters.lose(at_ns, *counter, *room)?, *room));
        }
        let all = self.holds.lost.entry(lost.hold).or_insert(LostCalls {
            at: lost.at,
            charges: Vec::new(),
        });
        all.charges.append(&mut charges);
        self.holds.dirty_lost.insert(lost.hold);
        self.holds.next = lost.hold.checked_add(1).ok_or(Misfit("too many holds"))?;
        Ok(())
    }

    /// What is known of a counter for itself counts there; of the others no more than all lost
    /// calls together cost, and no more than was charged.
    fn apply_found(&mut self, found: &Found) -> Result<(), Misfit> {
        self.advance(found.at);
        let lost = self.holds.lost.remove(&found.hold).ok_or(GONE)?;
        self.holds.dirty_lost.insert(found.hold);
        let most = lost.unknown();
        for (charge, amount) in lost.charges {
            let posted = found.posted_on(charge.counter, amount, most);
            check(posted >= 0)?;
            let change = Change::adjust(amount, posted);
            self.counters
                .change(found.at.calendar_ns, charge, change, true)?;
        }
        Ok(())
    }

    fn apply_sweep(&mut self, sweep: &Sweep) -> Result<(), Misfit> {
        self.advance(sweep.at);
        for roll in &sweep.rolls {
            self.counters.roll(roll)?;
        }
        for counter in &sweep.counters {
            self.counters.evict(*counter)?;
        }
        for rate in &sweep.rates {
            self.rates.evict(&mut self.counters.scopes, *rate)?;
        }
        Ok(())
    }
}
