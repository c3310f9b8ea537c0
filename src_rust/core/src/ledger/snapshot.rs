//! The ledger as keys and values, for a checkpoint that saves replaying the whole journal.
//!
//! A checkpoint takes what has changed since the last one, and the totals, and writes all of it
//! in one transaction together with the journal's position. Restoring and then replaying what
//! came after that position gives the state that replaying everything would.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;

use super::balance::Balance;
use super::ceiling::Ceiling;
use super::codec::{wire_struct, DecodeError, Reader, Wire};
use super::counters::{Counter, CounterKey, Past, RollingSlot};
use super::holds::{Hold, KeyEntry, LostCalls};
use super::policy::Policy;
use super::rates::{RateOpen, RateSpec};
use super::record::Room;
use super::slab::Handle;
use super::{Capacity, Ledger};
use crate::limiter::{FixedWindow, Gcra, Limiter, Slot, SlotLog};
use crate::window::{Bounds, Stamp};

/// The version of values that this release writes, and the newest it reads; it reads all before.
///
/// 2: holds have labels.
const SNAPSHOT_VERSION: u8 = 2;

const META: u8 = b'm';
const COUNTER: u8 = b'c';
const PAST: u8 = b'p';
const ROOM: u8 = b'w';
const HOLD: u8 = b'h';
const LOST: u8 = b'l';
const RATE: u8 = b'r';
const KEY: u8 = b'k';

/// A key that is to have this value, or is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotChange {
    /// The first byte says what it is.
    pub key: Vec<u8>,
    /// `None` to delete it.
    pub value: Option<Vec<u8>>,
}

/// A checkpoint that cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreError {
    /// Under which key.
    pub key: Vec<u8>,
    /// What is wrong there.
    pub error: DecodeError,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the checkpoint is damaged at key {:02x?}: {}",
            self.key, self.error
        )
    }
}

impl std::error::Error for RestoreError {}

struct Meta {
    high_water: Stamp,
    next_hold: u64,
    next_counter: u32,
    next_rate: u32,
}

struct CounterValue {
    generation: u32,
    key: CounterKey,
    policy: Policy,
    bounds: Bounds,
    balance: Balance,
    period: u32,
    holds: u32,
    degraded: bool,
    slots: Vec<RollingSlot>,
}

struct RateValue {
    generation: u32,
    spec: RateSpec,
    limiter: Limiter,
}

wire_struct!(Meta {
    high_water,
    next_hold,
    next_counter,
    next_rate
});
wire_struct!(CounterValue {
    generation,
    key,
    policy,
    bounds,
    balance,
    period,
    holds,
    degraded,
    slots
});
wire_struct!(RateValue {
    generation,
    spec,
    limiter
});
wire_struct!(Slot { offset, taken });
wire_struct!(SlotLog {
    base,
    settled_ns,
    slots
});
wire_struct!(FixedWindow { start_ns, taken });
wire_struct!(Gcra { full_at_ns });

impl Wire for Limiter {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sliding(log) => (0_u8.put(out), log.put(out)),
            Self::Fixed(window) => (1_u8.put(out), window.put(out)),
            Self::Bucket(bucket) => (2_u8.put(out), bucket.put(out)),
        };
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(from)? {
            0 => SlotLog::get(from).map(Self::Sliding),
            1 => FixedWindow::get(from).map(Self::Fixed),
            2 => Gcra::get(from).map(Self::Bucket),
            _ => Err(DecodeError::Malformed("limiter")),
        }
    }
}

fn key(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![tag];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn value<T: Wire>(thing: &T) -> Vec<u8> {
    let mut bytes = vec![SNAPSHOT_VERSION];
    thing.put(&mut bytes);
    bytes
}

fn read<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.read_version(SNAPSHOT_VERSION)?;
    let thing = T::get(&mut reader)?;
    reader.finish(thing)
}

/// At most `left` of them, which are then no longer left.
fn some<T>(all: &mut Vec<T>, left: &mut usize) -> Vec<T> {
    let taken = all.split_off(all.len().saturating_sub(*left));
    *left -= taken.len();
    taken
}

fn some_of_set<T: Copy + Eq + Hash>(all: &mut HashSet<T>, left: &mut usize) -> Vec<T> {
    if all.len() <= *left {
        *left -= all.len();
        return std::mem::take(all).into_iter().collect();
    }
    let taken: Vec<T> = all.iter().take(*left).copied().collect();
    taken.iter().for_each(|one| {
        all.remove(one);
    });
    *left = 0;
    taken
}

fn number<const N: usize>(bytes: Option<&[u8]>) -> Result<[u8; N], DecodeError> {
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(DecodeError::Malformed("key"))
}

/// Kept beside the counter, because few counters have any.
fn put_room(counter: Handle, found: &Counter) -> SnapshotChange {
    let room = found.room();
    SnapshotChange {
        key: key(ROOM, &[&counter.index.to_be_bytes()]),
        value: (room > 0).then(|| value(&Room { counter, room })),
    }
}

impl Ledger {
    /// Everything, in no particular order.
    pub fn snapshot(&self) -> Vec<SnapshotChange> {
        let counters = self
            .counters
            .slab
            .iter()
            .map(|(handle, _)| self.put_counter(handle.index));
        let past = self
            .counters
            .past
            .keys()
            .map(|(handle, period)| self.put_past(*handle, *period));
        let rates = self
            .rates
            .slab
            .iter()
            .map(|(handle, _)| self.put_rate(handle.index));
        let rooms = self.counters.slab.iter().filter(|(_, one)| one.room() > 0);
        let rooms = rooms.map(|(handle, counter)| put_room(handle, counter));
        let holds = self.holds.open.keys().map(|hold| self.put_hold(*hold));
        let lost = self.holds.lost.keys().map(|hold| self.put_lost(*hold));
        let keys = self.holds.keys.keys().map(|key| self.put_key(key));
        counters
            .chain(past)
            .chain(rates)
            .chain(rooms)
            .chain(holds)
            .chain(lost)
            .chain(keys)
            .chain([self.put_meta()])
            .collect()
    }

    /// What has changed since this was last called. Must be called now and then: until then the
    /// ledger remembers what to tell. Whoever fails to write it must keep it and write it before
    /// the next.
    pub fn take_snapshot_changes(&mut self) -> Vec<SnapshotChange> {
        self.take_some_changes(usize::MAX)
    }

    /// How many entries have changed since they were last taken, but for the totals.
    pub fn changed(&self) -> usize {
        let (counters, past) = (self.counters.dirty.len(), self.counters.dirty_past.len());
        let (holds, keys) = (self.holds.dirty.len(), self.holds.dirty_keys.len());
        let lost = self.holds.dirty_lost.len();
        counters + past + self.rates.dirty.len() + lost + holds + keys
    }

    /// At most `max` of what has changed, and the totals. Once nothing is left, the latest word on
    /// each key is the ledger as it is then: what changed after it was taken has been taken again.
    pub fn take_some_changes(&mut self, max: usize) -> Vec<SnapshotChange> {
        let mut left = max;
        let mut changes = vec![self.put_meta()];
        for index in some(&mut self.counters.dirty, &mut left) {
            changes.push(self.put_counter(index));
            if let Some((handle, _)) = self.counters.slab.at(index) {
                if let Some(counter) = self.counters.slab.get_mut(handle) {
                    counter.dirty = false;
                    if counter.ceiling.is_some() {
                        changes.push(put_room(handle, counter));
                        counter.ceiling.take_if(|ceiling| ceiling.is_over());
                    }
                }
            }
        }
        for (handle, period) in some(&mut self.counters.dirty_past, &mut left) {
            changes.push(self.put_past(handle, period));
        }
        for index in some(&mut self.rates.dirty, &mut left) {
            changes.push(self.put_rate(index));
            if let Some((handle, _)) = self.rates.slab.at(index) {
                if let Some(rate) = self.rates.slab.get_mut(handle) {
                    rate.dirty = false;
                }
            }
        }
        let lost = some_of_set(&mut self.holds.dirty_lost, &mut left);
        changes.extend(lost.into_iter().map(|hold| self.put_lost(hold)));
        let holds = some_of_set(&mut self.holds.dirty, &mut left);
        changes.extend(holds.into_iter().map(|hold| self.put_hold(hold)));
        let keys = some_of_set(&mut self.holds.dirty_keys, &mut left);
        changes.extend(keys.iter().map(|key| self.put_key(key)));
        changes
    }

    /// A ledger as a checkpoint has it: all keys and values that were ever put and not deleted.
    pub fn restore<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        capacity: Capacity,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, RestoreError> {
        let mut ledger = Self::new(capacity);
        let mut rooms = Vec::new();
        for (key, value) in entries {
            let (key, value) = (key.as_ref(), value.as_ref());
            ledger
                .restore_entry(key, value, &mut rooms)
                .map_err(|error| RestoreError {
                    key: key.to_vec(),
                    error,
                })?;
        }
        ledger.sort_expiries();
        ledger.attach_rooms(rooms);
        ledger.check_holds()?;
        // Nothing has changed since the checkpoint.
        ledger.take_snapshot_changes();
        Ok(ledger)
    }

    fn put_meta(&self) -> SnapshotChange {
        let meta = Meta {
            high_water: self.high_water,
            next_hold: self.holds.next,
            next_counter: self.counters.slab.next_generation,
            next_rate: self.rates.slab.next_generation,
        };
        SnapshotChange {
            key: key(META, &[]),
            value: Some(value(&meta)),
        }
    }

    fn put_counter(&self, index: u32) -> SnapshotChange {
        let found = self.counters.slab.at(index).and_then(|(handle, counter)| {
            Some(value(&CounterValue {
                generation: handle.generation,
                key: self.counters.key(counter)?,
                policy: counter.policy,
                bounds: counter.bounds,
                balance: counter.balance,
                period: counter.period,
                holds: counter.holds,
                degraded: counter.degraded,
                slots: counter.slots.clone().unwrap_or_default(),
            }))
        });
        SnapshotChange {
            key: key(COUNTER, &[&index.to_be_bytes()]),
            value: found,
        }
    }

    fn put_past(&self, handle: Handle, period: u32) -> SnapshotChange {
        let name: [&[u8]; 2] = [&handle.to_bits().to_be_bytes(), &period.to_be_bytes()];
        let found = self.counters.past.get(&(handle, period)).map(value);
        SnapshotChange {
            key: key(PAST, &name),
            value: found,
        }
    }

    fn put_rate(&self, index: u32) -> SnapshotChange {
        let found = self.rates.slab.at(index).and_then(|(handle, rate)| {
            let spec = self.rates.spec(&self.counters.scopes, rate)?;
            let limiter = rate.limiter.clone();
            Some(value(&RateValue {
                generation: handle.generation,
                spec,
                limiter,
            }))
        });
        SnapshotChange {
            key: key(RATE, &[&index.to_be_bytes()]),
            value: found,
        }
    }

    fn put_hold(&self, hold: u64) -> SnapshotChange {
        let found = self.holds.open.get(&hold).map(value);
        SnapshotChange {
            key: key(HOLD, &[&hold.to_be_bytes()]),
            value: found,
        }
    }

    fn put_lost(&self, hold: u64) -> SnapshotChange {
        SnapshotChange {
            key: key(LOST, &[&hold.to_be_bytes()]),
            value: self.holds.lost.get(&hold).map(value),
        }
    }

    fn put_key(&self, name: &[u8; 16]) -> SnapshotChange {
        SnapshotChange {
            key: key(KEY, &[name]),
            value: self.holds.keys.get(name).map(value),
        }
    }

    fn restore_entry(
        &mut self,
        key: &[u8],
        value: &[u8],
        rooms: &mut Vec<Room>,
    ) -> Result<(), DecodeError> {
        match key.first() {
            Some(&META) => self.restore_meta(value),
            Some(&COUNTER) => self.restore_counter(number(key.get(1..))?, value),
            Some(&PAST) => {
                let bits = u64::from_be_bytes(number(key.get(1..9))?);
                let period = u32::from_be_bytes(number(key.get(9..))?);
                self.counters
                    .past
                    .insert((Handle::from_bits(bits), period), read::<Past>(value)?);
                Ok(())
            }
            Some(&ROOM) => {
                rooms.push(read(value)?);
                Ok(())
            }
            Some(&LOST) => {
                let hold = u64::from_be_bytes(number(key.get(1..))?);
                self.holds.lost.insert(hold, read::<LostCalls>(value)?);
                Ok(())
            }
            Some(&RATE) => self.restore_rate(number(key.get(1..))?, value),
            Some(&HOLD) => {
                let hold = u64::from_be_bytes(number(key.get(1..))?);
                self.holds.open.insert(hold, read::<Hold>(value)?);
                Ok(())
            }
            Some(&KEY) => {
                let entry: KeyEntry = read(value)?;
                let name = number(key.get(1..))?;
                self.holds.keys.insert(name, entry);
                self.holds.expiries.push_back((entry.expires_ns, name));
                Ok(())
            }
            _ => Err(DecodeError::Malformed("key")),
        }
    }

    fn restore_meta(&mut self, value: &[u8]) -> Result<(), DecodeError> {
        let meta: Meta = read(value)?;
        self.high_water = meta.high_water;
        self.holds.next = meta.next_hold;
        let counters = &mut self.counters.slab.next_generation;
        *counters = meta.next_counter.max(*counters);
        let rates = &mut self.rates.slab.next_generation;
        *rates = meta.next_rate.max(*rates);
        Ok(())
    }

    fn restore_counter(&mut self, index: [u8; 4], bytes: &[u8]) -> Result<(), DecodeError> {
        let index = u32::from_be_bytes(index);
        let CounterValue {
            generation,
            key,
            policy,
            bounds,
            balance,
            period,
            holds,
            degraded,
            slots,
        } = read(bytes)?;
        let rolling = key.window.slot_ns().is_some();
        self.counters
            .restore(Handle { index, generation }, &key, |key| Counter {
                key,
                policy,
                bounds,
                balance,
                period,
                holds,
                degraded,
                dirty: false,
                slots: rolling.then_some(slots),
                ceiling: None,
            })
    }

    fn restore_rate(&mut self, index: [u8; 4], bytes: &[u8]) -> Result<(), DecodeError> {
        let index = u32::from_be_bytes(index);
        let RateValue {
            generation,
            spec,
            limiter,
        } = read(bytes)?;
        if spec.check().is_err() {
            return Err(DecodeError::Malformed("rate"));
        }
        let open = RateOpen {
            rate: Handle { index, generation },
            spec,
        };
        let restored = self
            .rates
            .restore(&mut self.counters.scopes, &open, limiter);
        restored.ok_or(DecodeError::Malformed("rate"))
    }

    /// Rooms are kept by their counter's place; one of a counter that was there before is stale.
    fn attach_rooms(&mut self, rooms: Vec<Room>) {
        for Room { counter, room } in rooms {
            if let Some(found) = self.counters.slab.get_mut(counter) {
                found.ceiling = Some(Box::new(Ceiling::of(room)));
            }
        }
    }

    fn sort_expiries(&mut self) {
        let keys = &self.holds.keys;
        let hold = |key: &[u8; 16]| keys.get(key).map(|entry| entry.hold);
        let mut expiries: Vec<_> = self.holds.expiries.drain(..).collect();
        expiries.sort_by_key(|(expires_ns, key)| (*expires_ns, hold(key)));
        self.holds.expiries = expiries.into();
    }

    /// Every hold must be on counters that exist, or settling it would go nowhere.
    fn check_holds(&self) -> Result<(), RestoreError> {
        for (id, hold) in &self.holds.open {
            let missing = |charge: &&super::counters::Charge| {
                self.counters.slab.get(charge.counter).is_none()
            };
            if *id >= self.holds.next || hold.charges.iter().find(missing).is_some() {
                let error = DecodeError::Malformed("hold");
                return Err(RestoreError {
                    key: key(HOLD, &[&id.to_be_bytes()]),
                    error,
                });
            }
        }
        Ok(())
    }
}
