//! Ceilings at work: room is written as calls come, taken back when they stay away, and charged
//! after a crash.

use super::balance::Change;
use super::counters::CounterKey;
use super::error::LedgerError;
use super::holds::HoldState;
use super::record::{Ceilings, Found, Lost, RecordSink, Room};
use super::scope::ScopeKind;
use super::settle::Receipt;
use super::slab::Handle;
use super::Ledger;
use crate::planted::{planted, Bug};
use crate::window::Stamp;

/// The most counters in one record.
const ROOMS_MAX: usize = 256;
/// Numbers of holds that a crash may have lost: they are not given again, so that evidence about
/// one of them is not taken for evidence about another.
const NUMBERS_SKIPPED: u64 = 1 << 20;

/// What one scope's lost calls cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeEvidence<'a> {
    /// What kind of scope.
    pub scope: ScopeKind,
    /// Which one.
    pub id: &'a str,
    /// Nano-dollars.
    pub posted: i64,
}

impl Found {
    /// What is posted on a counter by this; `None` if nothing is known of it yet.
    pub(crate) fn posted_on(&self, counter: Handle, charged: i64, most: i64) -> Option<i64> {
        let known = self.known.iter().find(|one| one.counter == counter);
        if let Some(known) = known {
            return Some(known.room);
        }
        let posted = self.posted?;
        // More than was thought possible is posted in full where all calls are counted.
        Some(if charged == most {
            posted
        } else {
            posted.min(charged)
        })
    }
}

impl Ledger {
    /// Everything up to this record, by the owner's count, is on the disk.
    pub fn note_durable(&mut self, mark: u64) {
        self.durable = self.durable.max(mark);
    }

    /// How many counters have room that will be taken back.
    pub fn warm(&self) -> usize {
        self.counters.warm.len()
    }

    /// After a reservation: writes more room for those of its counters that need it, if any do.
    /// `mark` is the number that the record will have, and `commit_ns` how long one takes to be
    /// on the disk.
    pub fn raise_ceilings(
        &mut self,
        at: Stamp,
        counters: &[Handle],
        amount: i64,
        commit_ns: i64,
        mark: u64,
        sink: &mut impl RecordSink,
    ) -> Result<(), LedgerError> {
        if amount == 0 {
            return Ok(());
        }
        let at = self.moment(at);
        let mut rooms = Vec::new();
        for counter in counters {
            self.counters.note_use(*counter, at.elapsed_ns, amount);
            let found = self.counters.slab.get(*counter);
            let wanted =
                found.and_then(|found| found.wanted_room(at.calendar_ns, self.durable, commit_ns));
            if let Some(room) = wanted {
                let safe = found.map_or(0, |found| found.safe(self.durable));
                rooms.push((*counter, room, safe));
            }
        }
        if rooms.is_empty() {
            return Ok(());
        }
        let written = rooms
            .iter()
            .map(|&(counter, room, _)| Room { counter, room });
        let record = Ceilings {
            rooms: written.collect(),
        };
        self.commit(record.into(), sink)?;
        for (counter, _, safe) in rooms {
            let found = self.counters.slab.get_mut(counter);
            if let Some(ceiling) = found.and_then(|found| found.ceiling.as_mut()) {
                ceiling.raised(mark, safe, at.elapsed_ns, commit_ns);
            }
        }
        Ok(())
    }

    /// Takes back the room of counters that were not used for so long; looks at `budget` of them.
    /// With an age of 0 and no bound: nothing is left to be charged after an orderly end.
    pub fn lower_ceilings(
        &mut self,
        at: Stamp,
        idle_ns: i64,
        budget: usize,
        sink: &mut impl RecordSink,
    ) -> Result<(), LedgerError> {
        let now_ns = self.moment(at).elapsed_ns;
        let mut left = budget.min(self.counters.warm.len());
        while left > 0 {
            let step = left.min(ROOMS_MAX);
            left -= step;
            let looked: Vec<_> = self.counters.warm.drain(..step).collect();
            let mut rooms = Vec::new();
            for counter in looked {
                let found = self.counters.slab.get_mut(counter);
                let Some(ceiling) = found.and_then(|found| found.ceiling.as_mut()) else {
                    continue;
                };
                if !ceiling.is_idle(now_ns, idle_ns) {
                    self.counters.warm.push_back(counter);
                    continue;
                }
                ceiling.warm = false;
                if ceiling.room > 0 {
                    rooms.push(Room { counter, room: 0 });
                } else {
                    // The next checkpoint forgets it.
                    self.counters.touch(counter);
                }
            }
            if !rooms.is_empty() {
                self.commit(Ceilings { rooms }.into(), sink)?;
            }
        }
        Ok(())
    }

    /// After a crash: charges what the journal may not know of. May be interrupted and done again.
    /// Returns the most that it can be.
    pub fn charge_lost(
        &mut self,
        at: Stamp,
        sink: &mut impl RecordSink,
    ) -> Result<i64, LedgerError> {
        let at = self.moment(at);
        let all = self.counters.slab.iter().map(|(counter, found)| Room {
            counter,
            room: found.room(),
        });
        let rooms: Vec<_> = all.filter(|one| one.room > 0).collect();
        if planted(Bug::ForgetsRooms) || rooms.is_empty() {
            return Ok(0);
        }
        let hold = self.holds.next.saturating_add(NUMBERS_SKIPPED);
        for some in rooms.chunks(ROOMS_MAX) {
            let rooms = some.to_vec();
            self.commit(Lost { at, hold, rooms }.into(), sink)?;
        }
        Ok(rooms.iter().map(|one| one.room).max().unwrap_or(0))
    }

    /// Evidence about what a crash lost: on the counters of the scopes that are named, lost calls
    /// cost so much. With `posted`, all lost calls together cost that, and everything else that
    /// was charged goes back.
    pub fn find_lost(
        &mut self,
        at: Stamp,
        hold: u64,
        scopes: &[ScopeEvidence<'_>],
        posted: Option<i64>,
        sink: &mut impl RecordSink,
    ) -> Result<Receipt, LedgerError> {
        let Some(lost) = self.holds.lost.get(&hold) else {
            return Err(match self.holds.unresolved(hold) {
                Ok(_) => LedgerError::NothingUnknown(hold),
                Err(error) => error,
            });
        };
        let amounts = scopes.iter().map(|one| one.posted).chain(posted);
        if let Some(lowest) = amounts.min().filter(|lowest| *lowest < 0) {
            return Err(LedgerError::NegativeAmount(lowest));
        }
        let at = self.moment(at);
        let before = lost.unknown();
        let known = lost.charges.iter().filter_map(|(charge, _)| {
            let CounterKey { scope, id, .. } =
                self.counters.key(self.counters.slab.get(charge.counter)?)?;
            let named = scopes
                .iter()
                .find(|one| one.scope == scope && *one.id == *id)?;
            Some(Room {
                counter: charge.counter,
                room: named.posted,
            })
        });
        let known: Vec<_> = known.take(ROOMS_MAX).collect();
        let found = Found {
            at,
            hold,
            known,
            posted,
        };
        for (charge, amount) in &lost.charges {
            if let Some(posted) = found.posted_on(charge.counter, *amount, before) {
                let change = Change::adjust(*amount, posted);
                self.counters.check(at.calendar_ns, *charge, change)?;
            }
        }
        self.commit(found.into(), sink)?;
        let left = self.holds.lost.get(&hold);
        let unknown = left.map_or(0, |lost| lost.unknown());
        let posted = posted.unwrap_or(0);
        Ok(Receipt {
            hold,
            state: left.map_or(HoldState::Adjusted, |_| HoldState::Unknown),
            posted,
            unknown,
            returned: before.saturating_sub(unknown).saturating_sub(posted).max(0),
            overrun: posted.saturating_sub(before).max(0),
            crossings: Vec::new(),
        })
    }
}
