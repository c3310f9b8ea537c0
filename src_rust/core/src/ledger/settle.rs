//! The life of a hold after it was reserved. A hold resolves once.

use std::sync::Arc;

use super::balance::Change;
use super::counters::CounterKey;
use super::error::LedgerError;
use super::holds::{Hold, HoldState, Outcome};
use super::record::{
    Adjust, AttemptEnd, Dispatch, LateAdjust, PastWindow, RecordSink, Release, Settle, Shrink,
    Unknown,
};
use super::scope::ScopeKind;
use super::Ledger;
use crate::planted::{planted, Bug};
use crate::window::{Stamp, WindowKind};

/// The most attempts under one hold.
pub const MAX_ATTEMPTS: usize = 256;

/// How one attempt ended, as a settlement is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptResult {
    /// Its number, if it was dispatched through the ledger.
    pub attempt: Option<u16>,
    /// How it ended; `InFlight` is charged as unknown.
    pub outcome: Outcome,
}

/// A threshold of a budget that posted and unknown spend has just reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Whose.
    pub scope: ScopeKind,
    /// Which one's.
    pub id: Arc<str>,
    /// In which window.
    pub window: WindowKind,
    /// The threshold in basis points of the limit.
    pub threshold_bp: u16,
    /// The limit.
    pub limit: i64,
    /// What is posted and unknown now.
    pub spent: i64,
}

/// What became of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which hold.
    pub hold: u64,
    /// How it stands now.
    pub state: HoldState,
    /// What was posted to each of its counters by this.
    pub posted: i64,
    /// What is charged as unknown on each of its counters now.
    pub unknown: i64,
    /// What was given back.
    pub returned: i64,
    /// What it cost above what was held. Not zero is an alarm: the estimate was wrong.
    pub overrun: i64,
    /// Thresholds that were reached by this.
    pub crossings: Vec<Crossing>,
}

impl Ledger {
    /// A call to a provider is about to be made under a hold. Returns the attempt's number.
    ///
    /// `amount` is the most it can cost; `None` takes it from the hold's rungs. It is refused when
    /// the hold does not cover it beside what earlier attempts may have cost.
    pub fn dispatch(
        &mut self,
        hold: u64,
        rung: u8,
        amount: Option<i64>,
        sink: &mut impl RecordSink,
    ) -> Result<u16, LedgerError> {
        let found = self.holds.held(hold)?;
        let amount = amount.or_else(|| found.rungs.get(usize::from(rung)).copied());
        let amount = amount.ok_or(LedgerError::Invalid("no such rung: say what it can cost"))?;
        if amount < 0 {
            return Err(LedgerError::NegativeAmount(amount));
        }
        let number = found.attempts.len();
        if number >= MAX_ATTEMPTS {
            return Err(LedgerError::TooMany {
                what: "attempts",
                max: MAX_ATTEMPTS,
            });
        }
        let left = found
            .amount
            .saturating_sub(found.worst().ok_or(LedgerError::Overflow)?);
        if amount > left {
            return Err(LedgerError::BeyondHold { hold, left });
        }
        self.commit(Dispatch { hold, rung, amount }.into(), sink)?;
        u16::try_from(number).map_err(|_| LedgerError::Inconsistent)
    }

    /// A call to a provider has ended; the request may go on.
    pub fn end_attempt(
        &mut self,
        hold: u64,
        attempt: u16,
        outcome: Outcome,
        sink: &mut impl RecordSink,
    ) -> Result<(), LedgerError> {
        let found = self.holds.held(hold)?;
        check_outcome(outcome)?;
        if found.attempts.get(usize::from(attempt)).is_none() {
            return Err(LedgerError::NoSuchAttempt(hold));
        }
        self.commit(
            AttemptEnd {
                hold,
                attempt,
                outcome,
            }
            .into(),
            sink,
        )?;
        Ok(())
    }

    /// Gives back what finished rungs no longer need. Never below what the attempts so far may
    /// have cost: a hold is shrunk because less can happen, not to make room.
    pub fn shrink(
        &mut self,
        at: Stamp,
        hold: u64,
        amount: i64,
        sink: &mut impl RecordSink,
    ) -> Result<(), LedgerError> {
        let found = self.holds.held(hold)?;
        let floor = found.worst().ok_or(LedgerError::Overflow)?;
        if amount < floor && !planted(Bug::ShrinksToFit) {
            return Err(LedgerError::MayBeBilled(hold));
        }
        if amount > found.amount {
            return Err(LedgerError::BeyondHold {
                hold,
                left: found.amount,
            });
        }
        let at = self.moment(at);
        self.commit(Shrink { at, hold, amount }.into(), sink)?;
        Ok(())
    }

    /// Posts what a request really cost and gives back the rest.
    ///
    /// Attempts that were dispatched through the ledger and are not in `results` are charged as
    /// they last stood: those still in flight as unknown, at the most they can cost. `tokens`
    /// corrects the rates that count tokens.
    pub fn settle(
        &mut self,
        at: Stamp,
        hold: u64,
        results: &[AttemptResult],
        tokens: Option<u32>,
        sink: &mut impl RecordSink,
    ) -> Result<Receipt, LedgerError> {
        let found = self.holds.held(hold)?;
        let (attempts, posted, unknown) = final_outcomes(hold, found, results)?;
        let change = Change::settle(found.amount, posted, unknown).ok_or(LedgerError::Overflow)?;
        let at = self.moment(at);
        let crossings = self.check_change(at, found, change)?;
        let returned = found
            .amount
            .saturating_sub(posted)
            .saturating_sub(unknown)
            .max(0);
        let state = if unknown > 0 {
            HoldState::Unknown
        } else {
            HoldState::Settled
        };
        let overrun = change.overrun;
        self.commit(
            Settle {
                at,
                hold,
                posted,
                unknown,
                tokens,
                attempts,
            }
            .into(),
            sink,
        )?;
        Ok(Receipt {
            hold,
            state,
            posted,
            unknown,
            returned,
            overrun,
            crossings,
        })
    }

    /// Gives a hold back in full. Only when nothing under it can have been billed; what it took of
    /// token rates is given back too, the request stays counted.
    pub fn release(
        &mut self,
        at: Stamp,
        hold: u64,
        sink: &mut impl RecordSink,
    ) -> Result<Receipt, LedgerError> {
        let found = self.holds.held(hold)?;
        let billed = found
            .attempts
            .iter()
            .any(|attempt| attempt.outcome != Outcome::NotBilled);
        if billed && !planted(Bug::ReleasesTimeouts) {
            return Err(LedgerError::MayBeBilled(hold));
        }
        let returned = found.amount;
        let at = self.moment(at);
        self.commit(Release { at, hold }.into(), sink)?;
        let (state, crossings) = (HoldState::Released, Vec::new());
        Ok(Receipt {
            hold,
            state,
            posted: 0,
            unknown: 0,
            returned,
            overrun: 0,
            crossings,
        })
    }

    /// Charges a hold in full, until there is evidence of what it cost: a timeout, a broken
    /// stream, a caller's cancel, a crash.
    pub fn mark_unknown(
        &mut self,
        at: Stamp,
        hold: u64,
        sink: &mut impl RecordSink,
    ) -> Result<Receipt, LedgerError> {
        let found = self.holds.held(hold)?;
        let unknown = found.amount;
        let change = Change::settle(unknown, 0, unknown).ok_or(LedgerError::Overflow)?;
        let at = self.moment(at);
        let crossings = self.check_change(at, found, change)?;
        self.commit(Unknown { at, hold }.into(), sink)?;
        let state = HoldState::Unknown;
        Ok(Receipt {
            hold,
            state,
            posted: 0,
            unknown,
            returned: 0,
            overrun: 0,
            crossings,
        })
    }

    /// Evidence about a hold that is charged as unknown: `unknown` of it (`None` for all) really
    /// cost `posted`. It changes the windows that the hold was charged to.
    pub fn adjust(
        &mut self,
        at: Stamp,
        hold: u64,
        unknown: Option<i64>,
        posted: i64,
        sink: &mut impl RecordSink,
    ) -> Result<Receipt, LedgerError> {
        if unknown.is_none() && self.holds.lost.contains_key(&hold) {
            return self.find_lost(at, hold, posted, &[], sink);
        }
        let found = self.holds.unresolved(hold)?;
        let unknown = unknown.unwrap_or(found.unknown);
        let within = (0..=found.unknown).contains(&unknown);
        if found.state != HoldState::Unknown || !within {
            return Err(LedgerError::NothingUnknown(hold));
        }
        if posted < 0 {
            return Err(LedgerError::NegativeAmount(posted));
        }
        let change = Change::adjust(unknown, posted);
        let at = self.moment(at);
        let crossings = self.check_change(at, found, change)?;
        let left = found.unknown - unknown;
        let (overrun, returned) = (change.overrun, unknown.saturating_sub(posted).max(0));
        self.commit(
            Adjust {
                at,
                hold,
                unknown,
                posted,
            }
            .into(),
            sink,
        )?;
        let state = if left > 0 {
            HoldState::Unknown
        } else {
            HoldState::Adjusted
        };
        Ok(Receipt {
            hold,
            state,
            posted,
            unknown: left,
            returned,
            overrun,
            crossings,
        })
    }

    /// Evidence about a hold that was settled before: it cost `posted` more (or less, below zero)
    /// than was posted then. `windows` are those the hold was charged to; those that the ledger
    /// has forgotten are told by [`Ledger::take_late_totals`].
    pub fn adjust_late(
        &mut self,
        at: Stamp,
        hold: u64,
        windows: &[PastWindow],
        posted: i64,
        sink: &mut impl RecordSink,
    ) -> Result<(), LedgerError> {
        match self.holds.unresolved(hold) {
            Err(LedgerError::AlreadyResolved(_)) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(LedgerError::Invalid("the hold is not resolved: settle it")),
        }
        let at = self.moment(at);
        for (position, window) in windows.iter().enumerate() {
            if windows
                .iter()
                .take(position)
                .any(|other| other.key == window.key)
            {
                return Err(LedgerError::SameCounter(position));
            }
            let charge = self.counters.charge_of(&window.key, window.start_ns);
            if let Some(charge) = charge {
                self.counters
                    .check(at.calendar_ns, charge, Change::late(posted))?;
            }
        }
        let windows = windows.to_vec();
        self.commit(
            LateAdjust {
                at,
                hold,
                windows,
                posted,
            }
            .into(),
            sink,
        )?;
        Ok(())
    }

    /// Charges every open hold in full, as after a crash nobody knows what became of it. May be
    /// interrupted and done again. Returns how many there were.
    pub fn recover(&mut self, at: Stamp, sink: &mut impl RecordSink) -> Result<usize, LedgerError> {
        let held = self
            .holds
            .open
            .iter()
            .filter(|(_, hold)| hold.state != HoldState::Unknown);
        let mut open: Vec<u64> = held.map(|(id, _)| *id).collect();
        open.sort_unstable();
        for hold in &open {
            if planted(Bug::ExpiresToFree) {
                let at = self.moment(at);
                self.commit(Release { at, hold: *hold }.into(), sink)?;
            } else {
                self.mark_unknown(at, *hold, sink)?;
            }
        }
        Ok(open.len())
    }

    /// Settles every unknown charge that is at least `age_ns` old at `share_bp` (basis points) of
    /// what is charged: 0 gives it back, 10,000 posts it in full. Returns how many there were and
    /// their sum.
    pub fn resolve_unknowns(
        &mut self,
        at: Stamp,
        age_ns: i64,
        share_bp: u16,
        sink: &mut impl RecordSink,
    ) -> Result<(usize, i64), LedgerError> {
        let at = self.moment(at);
        let until = at.elapsed_ns.saturating_sub(age_ns);
        let old =
            self.holds.open.iter().filter(|(_, hold)| {
                hold.state == HoldState::Unknown && hold.at.elapsed_ns <= until
            });
        let mut unknowns: Vec<(u64, i64)> = old.map(|(id, hold)| (*id, hold.unknown)).collect();
        unknowns.sort_unstable();
        let mut sum = 0_i64;
        for (hold, unknown) in &unknowns {
            let share = i128::from(*unknown) * i128::from(share_bp);
            let posted = i64::try_from((share + 9_999) / 10_000).unwrap_or(i64::MAX);
            self.adjust(at, *hold, None, posted, sink)?;
            sum = sum.saturating_add(*unknown);
        }
        Ok((unknowns.len(), sum))
    }

    /// Whether all windows of a hold can take a change, and which thresholds it makes them reach.
    fn check_change(
        &self,
        at: Stamp,
        hold: &Hold,
        change: Change,
    ) -> Result<Vec<Crossing>, LedgerError> {
        let mut crossings = Vec::new();
        for charge in &hold.charges {
            let spent = self.counters.check(at.calendar_ns, *charge, change)?;
            let counter = self.counters.slab.get(charge.counter);
            let (Some((before, after)), Some(counter)) = (spent, counter) else {
                continue;
            };
            let policy = counter.policy;
            for threshold_bp in [policy.warn_bp, policy.degrade_bp, policy.block_bp] {
                let reached = |amount| policy.reaches(amount, threshold_bp);
                if reached(before) || !reached(after) {
                    continue;
                }
                let Some(limit) = policy.limit else { continue };
                let Some(key) = self.counters.key(counter) else {
                    continue;
                };
                let CounterKey {
                    scope, id, window, ..
                } = key;
                crossings.push(Crossing {
                    scope,
                    id,
                    window,
                    threshold_bp,
                    limit,
                    spent: after,
                });
            }
        }
        Ok(crossings)
    }
}

fn check_outcome(outcome: Outcome) -> Result<(), LedgerError> {
    match outcome {
        Outcome::Billed(amount) | Outcome::Unknown(amount) if amount < 0 => {
            Err(LedgerError::NegativeAmount(amount))
        }
        _ => Ok(()),
    }
}

/// How all attempts of a hold ended, with the sums of what was billed and what is unknown.
fn final_outcomes(
    id: u64,
    hold: &Hold,
    results: &[AttemptResult],
) -> Result<(Vec<Outcome>, i64, i64), LedgerError> {
    let mut attempts = hold.attempts.clone();
    let mut outcomes = Vec::with_capacity(attempts.len().max(results.len()));
    if attempts.len() + results.len() > 2 * MAX_ATTEMPTS {
        return Err(LedgerError::TooMany {
            what: "attempts",
            max: MAX_ATTEMPTS,
        });
    }
    for result in results {
        check_outcome(result.outcome)?;
        match result.attempt {
            Some(number) => {
                let known = attempts.get_mut(usize::from(number));
                known.ok_or(LedgerError::NoSuchAttempt(id))?.outcome = result.outcome;
            }
            // The ledger does not know how much of the hold it was for.
            None if result.outcome == Outcome::InFlight => {
                outcomes.push(Outcome::Unknown(hold.amount));
            }
            None => outcomes.push(result.outcome),
        }
    }
    outcomes.extend(attempts.iter().map(|attempt| match attempt.outcome {
        Outcome::InFlight => Outcome::Unknown(attempt.amount),
        ended => ended,
    }));
    let (mut posted, mut unknown) = (0_i64, 0_i64);
    for outcome in &outcomes {
        let (sum, amount) = match *outcome {
            Outcome::Billed(amount) => (&mut posted, amount),
            Outcome::Unknown(amount) => (&mut unknown, amount),
            Outcome::InFlight | Outcome::NotBilled => continue,
        };
        *sum = sum.checked_add(amount).ok_or(LedgerError::Overflow)?;
    }
    Ok((outcomes, posted, unknown))
}
