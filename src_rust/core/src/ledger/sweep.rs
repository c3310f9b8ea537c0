//! What time does by itself: windows roll, and what is idle is forgotten.

use super::counters::Roll;
use super::error::LedgerError;
use super::record::{RecordSink, Sweep};
use super::Ledger;
use crate::window::Stamp;

/// Where a sweep is. Begin with the default and pass on what [`Ledger::sweep`] returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepPlace {
    counter: u32,
    rate: u32,
}

impl Ledger {
    /// Looks at `budget` counters and as many rates from `place` on: windows that are over roll,
    /// and counters and rates whose past no longer matters are forgotten. Returns where to go on;
    /// at the end, the beginning.
    ///
    /// Nothing depends on it: an admission rolls what it touches. It only keeps totals prompt and
    /// memory small.
    pub fn sweep(
        &mut self,
        at: Stamp,
        place: SweepPlace,
        budget: u32,
        sink: &mut impl RecordSink,
    ) -> Result<SweepPlace, LedgerError> {
        let at = self.moment(at);
        let mut sweep = Sweep {
            at,
            rolls: Vec::new(),
            counters: Vec::new(),
            rates: Vec::new(),
        };
        let counters_end = place
            .counter
            .saturating_add(budget)
            .min(self.counters.slab.end());
        for index in place.counter..counters_end {
            self.sweep_counter(&mut sweep, index)?;
        }
        let rates_end = place.rate.saturating_add(budget).min(self.rates.slab.end());
        for index in place.rate..rates_end {
            let Some((handle, rate)) = self.rates.slab.at(index) else {
                continue;
            };
            if rate.limiter.is_idle(rate.quota(), at.elapsed_ns) {
                sweep.rates.push(handle);
            }
        }
        let next = SweepPlace {
            counter: counters_end,
            rate: rates_end,
        };
        let done = SweepPlace {
            counter: self.counters.slab.end(),
            rate: self.rates.slab.end(),
        };
        if !(sweep.rolls.is_empty() && sweep.counters.is_empty() && sweep.rates.is_empty()) {
            self.commit(sweep.into(), sink)?;
        }
        Ok(if next == done {
            SweepPlace::default()
        } else {
            next
        })
    }

    fn sweep_counter(&self, sweep: &mut Sweep, index: u32) -> Result<(), LedgerError> {
        let at_ns = sweep.at.calendar_ns;
        let Some((handle, counter)) = self.counters.slab.at(index) else {
            return Ok(());
        };
        if self.counters.is_idle(handle, counter, at_ns) {
            sweep.counters.push(handle);
        } else if counter.ended(at_ns) {
            let bounds = self.counters.next_window(counter, at_ns)?;
            sweep.rolls.push(Roll {
                counter: handle,
                bounds,
            });
        }
        Ok(())
    }
}
