//! Ceilings at work: room is written as calls come, taken back when they stay away, and charged
//! after a crash.

use super::admit::check_size;
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
/// Numbers of holds that a crash, or a gap, may have lost: they are not given again, so that evidence about
/// one of them is not taken for evidence about another.
pub const NUMBERS_SKIPPED: u64 = 1 << 20;

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
    /// What is posted on a counter by this: what is known of it for itself, else no more than all
    /// lost calls together cost, and no more than was charged.
    pub(crate) fn posted_on(&self, counter: Handle, charged: i64, most: i64) -> i64 {
        let known = self.known.iter().find(|one| one.counter == counter);
        match known {
            Some(known) => known.room,
            // More than was thought possible is posted in full where all calls are counted.
            None if charged == most => self.posted,
            None => self.posted.min(charged),
        }
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

    /// Evidence about what a crash lost: all lost calls together cost `posted`, and those of the
    /// scopes that are named so much. Everything else that was charged goes back.
    pub fn find_lost(
        &mut self,
        at: Stamp,
        hold: u64,
        posted: i64,
        scopes: &[ScopeEvidence<'_>],
        sink: &mut impl RecordSink,
    ) -> Result<Receipt, LedgerError> {
        let Some(lost) = self.holds.lost.get(&hold) else {
            self.holds.unresolved(hold)?;
            return Err(LedgerError::NothingUnknown(hold));
        };
        let lowest = scopes.iter().map(|one| one.posted).fold(posted, i64::min);
        if lowest < 0 {
            return Err(LedgerError::NegativeAmount(lowest));
        }
        let at = self.moment(at);
        let unknown = lost.unknown();
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
        let known: Vec<_> = known.collect();
        check_size("counters named as evidence", known.len(), ROOMS_MAX)?;
        let found = Found {
            at,
            hold,
            known,
            posted,
        };
        for (charge, amount) in &lost.charges {
            let posted = found.posted_on(charge.counter, *amount, unknown);
            let change = Change::adjust(*amount, posted);
            self.counters.check(at.calendar_ns, *charge, change)?;
        }
        self.commit(found.into(), sink)?;
        Ok(Receipt {
            hold,
            state: HoldState::Adjusted,
            posted,
            unknown: 0,
            returned: unknown.saturating_sub(posted).max(0),
            overrun: posted.saturating_sub(unknown).max(0),
            crossings: Vec::new(),
        })
    }
}
