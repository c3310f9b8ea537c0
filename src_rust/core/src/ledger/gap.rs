//! Spend that a restored backup, or a journal that was cut, has forgotten: somebody says what to
//! charge for it, and it stays unknown until there is evidence.

use super::balance::Change;
use super::codec::wire_struct;
use super::demand::{Choice, CounterRef, Demand};
use super::error::{LedgerError, Misfit};
use super::holds::Label;
use super::lost::NUMBERS_SKIPPED;
use super::record::{RecordSink, Reserve, Unknown};
use super::Ledger;
use crate::window::Stamp;

/// What was said about a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When.
    pub at: Stamp,
    /// The last record before it.
    pub upto_seq: u64,
    /// A hold that was never open; `None`: that was all.
    pub charge: Option<Reserve>,
}

wire_struct!(Gap {
    at,
    upto_seq,
    charge
});

impl Ledger {
    /// Charges forgotten spend to counters, as a hold whose bill is unknown. Limits do not stop
    /// it; what is above a hard one is its overrun. An amount of zero charges nothing: it puts on
    /// record that this was all. Returns the hold's number.
    pub fn charge_gap(
        &mut self,
        at: Stamp,
        upto_seq: u64,
        counters: &[CounterRef<'_>],
        amount: i64,
        label: &Label,
        sink: &mut impl RecordSink,
    ) -> Result<Option<u64>, LedgerError> {
        let at = self.moment(at);
        if amount > 0 && counters.is_empty() {
            return Err(LedgerError::Invalid("no budget to charge"));
        }
        let choice = Choice {
            ladder: 0,
            amount,
            rungs: &[],
            cheap: true,
            tokens: 0,
        };
        let demand = Demand {
            menu: &[choice],
            counters,
            rates: &[],
            idempotency: None,
            price_hash: 0,
            label: Some(label),
        };
        let charge = self.reserve_unasked(at, &demand)?;
        let charge = Some(charge).filter(|_| amount > 0);
        let hold = charge.as_ref().map(|charge| charge.hold);
        let gap = Gap {
            at,
            upto_seq,
            charge,
        };
        self.commit(gap.into(), sink)?;
        Ok(hold)
    }

    pub(crate) fn apply_gap(&mut self, gap: &Gap) -> Result<(), Misfit> {
        self.advance(gap.at);
        let Some(reserve) = &gap.charge else {
            let next = self.holds.next.checked_add(NUMBERS_SKIPPED);
            self.holds.next = next.ok_or(Misfit("too many holds"))?;
            return Ok(());
        };
        self.apply_reserve(reserve)?;
        let (at, hold) = (reserve.at, reserve.hold);
        self.apply_unknown(&Unknown { at, hold })?;
        let charges = self.holds.open.get(&hold).map(|hold| hold.charges.clone());
        for charge in charges.unwrap_or_default() {
            let counter = self.counters.slab.get(charge.counter);
            let counter = counter.ok_or(Misfit("no counter to charge"))?;
            let Some(limit) = counter
                .policy
                .limit
                .filter(|_| counter.policy.mode.is_hard())
            else {
                continue;
            };
            let balance = counter.balance_at(at.calendar_ns);
            let allowed = limit.saturating_add(balance.overrun);
            let overrun = balance.used().saturating_sub(allowed);
            let change = Change {
                overrun: overrun.clamp(0, reserve.amount),
                ..Change::default()
            };
            self.counters
                .change(at.calendar_ns, charge, change, false)?;
        }
        Ok(())
    }
}
