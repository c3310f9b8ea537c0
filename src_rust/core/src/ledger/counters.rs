//! Counters: one limit of one scope in one window.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::balance::{Balance, Change};
use super::ceiling::Ceiling;
use super::codec::{wire_struct, DecodeError, MAX_NAME_BYTES};
use super::error::{LedgerError, Misfit};
use super::policy::{Origin, Policy};
use super::scope::{ScopeKind, Scopes};
use super::slab::{Handle, Slab};
use crate::planted::{planted, Bug};
use crate::window::{Bounds, UnknownZone, WindowKind, ZoneRules, Zones};

/// What a counter is: its scope, window and zone. Its limit is an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CounterKey {
    /// What kind of thing it is about.
    pub scope: ScopeKind,
    /// Which one.
    pub id: Arc<str>,
    /// How long it counts.
    pub window: WindowKind,
    /// IANA name of the zone whose days it counts by.
    pub zone: Arc<str>,
}

/// A counter and the limit it has when it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterSpec {
    /// What it is.
    pub key: CounterKey,
    /// The limit it starts with.
    pub policy: Policy,
}

wire_struct!(CounterKey {
    scope,
    id,
    window,
    zone
});
wire_struct!(CounterSpec { key, policy });

impl CounterSpec {
    pub(crate) fn check(&self) -> Result<(), LedgerError> {
        if self.key.id.len() > MAX_NAME_BYTES || self.key.zone.len() > MAX_NAME_BYTES {
            return Err(LedgerError::Invalid(
                "the name of a scope or zone is too long",
            ));
        }
        self.policy
            .fault()
            .map_or(Ok(()), |why| Err(LedgerError::Invalid(why)))
    }
}

/// A key in 8 bytes, with numbers for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PackedKey {
    pub scope: u32,
    pub zone: u16,
    pub window: WindowKind,
}

/// What was put into one slot of a rolling window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RollingSlot {
    pub number: u32,
    pub part: Balance,
}

wire_struct!(RollingSlot { number, part });

/// Which window of which counter a hold was charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub counter: Handle,
    /// Which of a calendar counter's windows, or which slot of a rolling one.
    pub period: u32,
}

wire_struct!(Charge { counter, period });

#[derive(Debug)]
pub(crate) struct Counter {
    pub key: PackedKey,
    pub policy: Policy,
    pub bounds: Bounds,
    pub balance: Balance,
    /// Counts the windows that were opened.
    pub period: u32,
    /// Holds of its present window (of a rolling one, all) that are not resolved.
    pub holds: u32,
    pub degraded: bool,
    pub dirty: bool,
    /// Oldest first; only rolling windows have any.
    pub slots: Option<Vec<RollingSlot>>,
    /// Only of counters that are in use.
    pub ceiling: Option<Box<Ceiling>>,
}

/// The slot of a rolling window that an instant is in.
fn slot_number(kind: WindowKind, at_ns: i64) -> Option<u32> {
    u32::try_from(at_ns.div_euclid(kind.slot_ns()?)).ok()
}

/// The oldest slot of a rolling window that still counts. An expiring slot counts whole.
fn first_live_slot(kind: WindowKind, at_ns: i64) -> u32 {
    let begin = kind
        .rolling_ns()
        .map_or(0, |length| at_ns.saturating_sub(length).saturating_add(1));
    slot_number(kind, begin).unwrap_or(0)
}

impl Counter {
    /// Whether its window is over.
    pub(crate) fn ended(&self, at_ns: i64) -> bool {
        at_ns >= self.bounds.end_ns
    }

    /// What counts at a moment: without slots that expired since it was last touched.
    pub(crate) fn balance_at(&self, at_ns: i64) -> Balance {
        let Some(slots) = &self.slots else {
            return self.balance;
        };
        let live = first_live_slot(self.key.window, at_ns);
        let expired = slots.iter().take_while(|slot| slot.number < live);
        expired.fold(self.balance, |rest, slot| rest.without(slot.part))
    }

    /// Drops the slots that have expired.
    pub(crate) fn expire(&mut self, at_ns: i64) {
        let balance = self.balance_at(at_ns);
        let live = first_live_slot(self.key.window, at_ns);
        let Some(slots) = &mut self.slots else { return };
        slots.retain(|slot| slot.number >= live);
        self.balance = balance;
        self.refresh();
    }

    /// When a rolling counter will have room for an amount, if nothing else happens.
    pub(crate) fn room_at(&self, at_ns: i64, policy: &Policy, amount: i64) -> Option<i64> {
        let (length, slot_ns) = (self.key.window.rolling_ns()?, self.key.window.slot_ns()?);
        let mut balance = self.balance_at(at_ns);
        let live = first_live_slot(self.key.window, at_ns);
        for slot in self
            .slots
            .as_ref()?
            .iter()
            .filter(|slot| slot.number >= live)
        {
            balance = balance.without(slot.part);
            if policy.fits(balance, amount) {
                return Some((i64::from(slot.number) + 1) * slot_ns - 1 + length);
            }
        }
        None
    }

    /// The window or slot that something charged now belongs to.
    pub(crate) fn period_at(&self, at_ns: i64) -> u32 {
        slot_number(self.key.window, at_ns).unwrap_or(self.period)
    }

    fn refresh(&mut self) {
        self.degraded = self.policy.degraded(self.balance, self.degraded);
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        let left = self.left(self.balance);
        if let Some(ceiling) = &mut self.ceiling {
            ceiling.set(ceiling.room.min(left));
        }
        self.refresh();
    }

    /// What its limit leaves, if it is one that is never overspent.
    fn left(&self, balance: Balance) -> i64 {
        let hard = self.policy.mode.is_hard();
        let cap = self.policy.cap().filter(|_| hard).unwrap_or(i64::MAX);
        cap.saturating_sub(balance.used()).max(0)
    }

    /// What may be charged to it if all that the journal knows not of is lost.
    pub(crate) fn room(&self) -> i64 {
        let room = self.ceiling.as_ref().map_or(0, |ceiling| ceiling.room);
        // The sum must fit, whatever an overrun has made of it since.
        room.min(i64::MAX - self.balance.used())
    }

    /// What may be reserved on it and sent at once, when all up to `durable` is on the disk.
    pub(crate) fn safe(&self, durable: u64) -> i64 {
        let ceiling = self.ceiling.as_ref();
        ceiling.map_or(0, |ceiling| ceiling.safe(durable))
    }

    /// The room to write for it now, if it should have more.
    pub(crate) fn wanted_room(&self, at_ns: i64, durable: u64, commit_ns: i64) -> Option<i64> {
        let left = self.left(self.balance_at(at_ns));
        self.ceiling.as_ref()?.wanted(durable, commit_ns, left)
    }

    /// The slot's part after a change, if that slot still counts.
    fn slot_after(&self, at_ns: i64, number: u32, change: Change) -> Option<Option<RollingSlot>> {
        let Some(slots) = &self.slots else {
            return Some(None);
        };
        if number < first_live_slot(self.key.window, at_ns) {
            return Some(None);
        }
        let old = slots.iter().find(|slot| slot.number == number);
        let part = old.map_or_else(Balance::default, |slot| slot.part);
        Some(Some(RollingSlot {
            number,
            part: part.after(change.without_held())?,
        }))
    }

    /// Its balance and slot after a change to one of its periods; `None` if a sum does not fit.
    fn after(
        &self,
        at_ns: i64,
        period: u32,
        change: Change,
    ) -> Option<(Balance, Option<RollingSlot>)> {
        let slot = self.slot_after(at_ns, period, change)?;
        let expired = self.slots.is_some() && slot.is_none();
        let change = if expired {
            Change::hold(change.held)
        } else {
            change
        };
        Some((self.balance_at(at_ns).after(change)?, slot))
    }

    /// Its present window as one that is over.
    fn past(&self) -> Past {
        Past {
            bounds: self.bounds,
            balance: self.balance,
            holds: self.holds,
        }
    }

    fn change(&mut self, at_ns: i64, period: u32, change: Change) -> Option<()> {
        self.expire(at_ns);
        let (balance, slot) = self.after(at_ns, period, change)?;
        self.balance = balance;
        if let Some(ceiling) = &mut self.ceiling {
            if change.held < 0 {
                ceiling.give_back(-change.held);
            }
        }
        if let (Some(slots), Some(new)) = (&mut self.slots, slot) {
            match slots.binary_search_by_key(&new.number, |slot| slot.number) {
                Ok(place) => slots[place] = new,
                Err(_) if new.part.is_zero() => {}
                Err(place) => slots.insert(place, new),
            }
        }
        self.refresh();
        Some(())
    }
}

/// A window that is over while holds of it are not resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub bounds: Bounds,
    pub balance: Balance,
    /// Holds that are not resolved.
    pub holds: u32,
}

wire_struct!(Past {
    bounds,
    balance,
    holds
});

/// A new window of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// Whose.
    pub counter: Handle,
    /// The new window.
    pub bounds: Bounds,
}

wire_struct!(Roll { counter, bounds });

/// A new counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its name from now on.
    pub counter: Handle,
    /// What it is and its limit.
    pub spec: CounterSpec,
    /// Its first window.
    pub bounds: Bounds,
}

wire_struct!(Open {
    counter,
    spec,
    bounds
});

/// What a window came to, for the totals that are kept when the window itself is forgotten.
/// A window may be told of again, when late evidence changed it: the latest word counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowTotal {
    /// Whose window.
    pub key: CounterKey,
    /// Which window.
    pub bounds: Bounds,
    /// What it came to.
    pub balance: Balance,
}

/// All counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub slab: Slab<Counter>,
    pub scopes: Scopes,
    pub past: BTreeMap<(Handle, u32), Past>,
    /// Totals that nobody has fetched yet.
    pub totals: Vec<WindowTotal>,
    pub dirty: Vec<u32>,
    pub dirty_past: Vec<(Handle, u32)>,
    /// Counters with a room that is taken back when they are idle.
    pub warm: VecDeque<Handle>,
    by_key: HashMap<PackedKey, Handle>,
    zones: Zones,
    pub zone_names: Vec<Arc<str>>,
}

impl Counters {
    pub(crate) fn find(&self, key: &CounterKey) -> Option<Handle> {
        let scope = self.scopes.find(key.scope, &key.id)?;
        let zone = self.zone_names.iter().position(|name| *name == key.zone)?;
        let zone = u16::try_from(zone).ok()?;
        self.by_key
            .get(&PackedKey {
                scope,
                zone,
                window: key.window,
            })
            .copied()
    }

    pub(crate) fn key(&self, counter: &Counter) -> Option<CounterKey> {
        let PackedKey {
            scope,
            zone,
            window,
        } = counter.key;
        let (kind, id) = self.scopes.get(scope)?;
        let zone = self.zone_names.get(usize::from(zone))?;
        Some(CounterKey {
            scope: kind,
            id: Arc::clone(id),
            window,
            zone: Arc::clone(zone),
        })
    }

    fn rules(&self, zone: &str) -> Result<ZoneRules, LedgerError> {
        self.zones
            .rules(zone)
            .map_err(|UnknownZone(name)| LedgerError::UnknownZone(name))
    }

    /// The first window of a new counter.
    pub(crate) fn first_window(&self, key: &CounterKey, at_ns: i64) -> Result<Bounds, LedgerError> {
        Ok(self.rules(&key.zone)?.bounds(key.window, at_ns))
    }

    /// The window that follows one that is over. It never begins before the last one's end, even
    /// if the zone's rules have changed meanwhile.
    pub(crate) fn next_window(&self, counter: &Counter, at_ns: i64) -> Result<Bounds, LedgerError> {
        let zone = self.zone_names.get(usize::from(counter.key.zone));
        let rules = self.rules(zone.map_or("", |name| name))?;
        let bounds = rules.bounds(counter.key.window, at_ns);
        Ok(Bounds {
            start_ns: bounds.start_ns.max(counter.bounds.end_ns),
            ..bounds
        })
    }

    pub(crate) fn touch(&mut self, handle: Handle) {
        if let Some(counter) = self.slab.get_mut(handle) {
            if !counter.dirty {
                counter.dirty = true;
                self.dirty.push(handle.index);
            }
        }
    }

    fn zone_number(&mut self, zone: &Arc<str>) -> Option<u16> {
        let known = self.zone_names.iter().position(|name| name == zone);
        let number = known.unwrap_or_else(|| {
            self.zone_names.push(Arc::clone(zone));
            self.zone_names.len() - 1
        });
        u16::try_from(number).ok()
    }

    fn pack(&mut self, key: &CounterKey) -> Option<PackedKey> {
        let zone = self.zone_number(&key.zone)?;
        let scope = self.scopes.acquire(key.scope, &key.id)?;
        Some(PackedKey {
            scope,
            zone,
            window: key.window,
        })
    }

    pub(crate) fn open(&mut self, open: &Open) -> Result<(), Misfit> {
        let Open {
            counter: handle,
            spec,
            bounds,
        } = open;
        let key = self.pack(&spec.key).ok_or(Misfit("too many names"))?;
        if self.by_key.insert(key, *handle).is_some() {
            return Err(Misfit("a counter is created twice"));
        }
        let mut counter = Counter {
            key,
            policy: spec.policy,
            bounds: *bounds,
            balance: Balance::default(),
            period: 0,
            holds: 0,
            degraded: false,
            dirty: false,
            slots: key.window.slot_ns().map(|_| Vec::new()),
            ceiling: None,
        };
        counter.refresh();
        self.slab
            .insert(*handle, counter)
            .ok_or(Misfit("a counter's place is taken"))?;
        self.touch(*handle);
        Ok(())
    }

    /// Puts a counter back as a snapshot has it.
    pub(crate) fn restore(
        &mut self,
        handle: Handle,
        key: &CounterKey,
        restored: impl FnOnce(PackedKey) -> Counter,
    ) -> Result<(), DecodeError> {
        let packed = self.pack(key).ok_or(DecodeError::Malformed("name"))?;
        let twice = self.by_key.insert(packed, handle).is_some();
        let placed = self.slab.put_back(handle, restored(packed)).is_some();
        if twice || !placed {
            return Err(DecodeError::Malformed("counter"));
        }
        Ok(())
    }

    pub(crate) fn roll(&mut self, roll: &Roll) -> Result<(), Misfit> {
        let Roll {
            counter: handle,
            bounds,
        } = *roll;
        let counter = self
            .slab
            .get_mut(handle)
            .ok_or(Misfit("no counter to roll"))?;
        if bounds.start_ns < counter.bounds.end_ns && !planted(Bug::ReopensWindow) {
            return Err(Misfit("a window opens before the last one ended"));
        }
        let past = counter.past();
        let period = counter.period;
        counter.period = period.checked_add(1).ok_or(Misfit("too many windows"))?;
        counter.bounds = bounds;
        counter.balance = Balance::default();
        counter.holds = 0;
        counter.degraded = false;
        if let Some(ceiling) = &mut counter.ceiling {
            // The journal that says so knows all that was reserved before.
            if !planted(Bug::RoomOutlivesWindow) {
                ceiling.set(0);
            }
        }
        counter.refresh();
        if past.holds > 0 && !planted(Bug::RollsOverHolds) {
            self.past.insert((handle, period), past);
            self.dirty_past.push((handle, period));
        }
        self.touch(handle);
        self.tell_total(handle, past);
        Ok(())
    }

    fn tell_total(&mut self, handle: Handle, past: Past) {
        if past.balance.is_zero() {
            return;
        }
        let Some(key) = self.slab.get(handle).and_then(|counter| self.key(counter)) else {
            return;
        };
        self.totals.push(WindowTotal {
            key,
            bounds: past.bounds,
            balance: past.balance,
        });
    }

    pub(crate) fn set_policy(&mut self, handle: Handle, policy: Policy) -> Result<(), Misfit> {
        let counter = self
            .slab
            .get_mut(handle)
            .ok_or(Misfit("no counter for this limit"))?;
        counter.set_policy(policy);
        self.touch(handle);
        Ok(())
    }

    /// Whether forgetting a counter loses nothing: nothing is open on it, nobody insists on its
    /// limit, and what it counted no longer counts.
    pub(crate) fn is_idle(&self, handle: Handle, counter: &Counter, at_ns: i64) -> bool {
        let retired = counter.policy.origin == Origin::Retired;
        let over = match counter.slots {
            Some(_) => counter.balance_at(at_ns).is_zero(),
            None => counter.ended(at_ns),
        };
        !self.in_use(handle, counter) && counter.policy.origin != Origin::Api && (retired || over)
    }

    /// Whether a hold may still change one of its windows.
    fn in_use(&self, handle: Handle, counter: &Counter) -> bool {
        counter.holds > 0
            || counter.room() > 0
            || self
                .past
                .range((handle, 0)..=(handle, u32::MAX))
                .next()
                .is_some()
    }

    pub(crate) fn evict(&mut self, handle: Handle) -> Result<(), Misfit> {
        let counter = self
            .slab
            .get(handle)
            .ok_or(Misfit("no counter to forget"))?;
        if self.in_use(handle, counter) {
            return Err(Misfit("a counter with open holds is forgotten"));
        }
        let past = counter.past();
        if counter.slots.is_none() {
            self.tell_total(handle, past);
        }
        let counter = self
            .slab
            .remove(handle)
            .ok_or(Misfit("no counter to forget"))?;
        self.by_key.remove(&counter.key);
        self.scopes.release(counter.key.scope);
        if !counter.dirty {
            self.dirty.push(handle.index);
        }
        Ok(())
    }

    /// Adds a hold to the counter's present window.
    pub(crate) fn reserve(
        &mut self,
        at_ns: i64,
        handle: Handle,
        amount: i64,
    ) -> Result<Charge, Misfit> {
        let counter = self
            .slab
            .get_mut(handle)
            .ok_or(Misfit("no counter to reserve on"))?;
        let period = counter.period_at(at_ns);
        counter
            .change(at_ns, period, Change::hold(amount))
            .ok_or(Misfit("a sum overflows"))?;
        counter.holds = counter
            .holds
            .checked_add(1)
            .ok_or(Misfit("too many holds"))?;
        if let Some(ceiling) = &mut counter.ceiling {
            ceiling.take(amount);
        }
        self.touch(handle);
        Ok(Charge {
            counter: handle,
            period,
        })
    }

    /// Says how much room a counter has.
    pub(crate) fn set_room(&mut self, handle: Handle, room: i64) -> Result<(), Misfit> {
        let counter = self
            .slab
            .get_mut(handle)
            .ok_or(Misfit("no counter for this room"))?;
        counter.ceiling.get_or_insert_default().set(room);
        self.touch(handle);
        Ok(())
    }

    /// Notes that a counter was reserved on, as one that should have room.
    pub(crate) fn note_use(&mut self, handle: Handle, now_ns: i64, amount: i64) {
        let Some(counter) = self.slab.get_mut(handle) else {
            return;
        };
        let ceiling = counter.ceiling.get_or_insert_default();
        ceiling.note(now_ns, amount);
        if !ceiling.warm {
            ceiling.warm = true;
            self.warm.push_back(handle);
        }
    }

    /// Charges what a crash may have lost of a counter, as one more hold that is not resolved.
    pub(crate) fn lose(
        &mut self,
        at_ns: i64,
        handle: Handle,
        amount: i64,
    ) -> Result<Charge, Misfit> {
        let charge = self.reserve(at_ns, handle, amount)?;
        let change = Change::settle(amount, 0, amount).ok_or(Misfit("a sum overflows"))?;
        self.change(at_ns, charge, change, false)?;
        self.set_room(handle, 0)?;
        Ok(charge)
    }

    /// Whether a change to a charge is possible, and what its counter has spent before and after.
    pub(crate) fn check(
        &self,
        at_ns: i64,
        charge: Charge,
        change: Change,
    ) -> Result<Option<(i64, i64)>, LedgerError> {
        let counter = self
            .slab
            .get(charge.counter)
            .ok_or(LedgerError::Inconsistent)?;
        if self.is_live(counter, charge) {
            let before = counter.balance_at(at_ns).spent();
            let after = counter.after(at_ns, charge.period, change);
            return after
                .map(|(after, _)| Some((before, after.spent())))
                .ok_or(LedgerError::Overflow);
        }
        let past = self.past.get(&(charge.counter, charge.period));
        let past = past.ok_or(LedgerError::Inconsistent)?;
        past.balance
            .after(change)
            .map(|_| None)
            .ok_or(LedgerError::Overflow)
    }

    fn is_live(&self, counter: &Counter, charge: Charge) -> bool {
        counter.slots.is_some() || charge.period == counter.period || planted(Bug::PostsToNewWindow)
    }

    /// Changes the window that a hold was charged to. `last` when the hold is resolved by it.
    pub(crate) fn change(
        &mut self,
        at_ns: i64,
        charge: Charge,
        change: Change,
        last: bool,
    ) -> Result<(), Misfit> {
        let Charge {
            counter: handle,
            period,
        } = charge;
        let counter = self
            .slab
            .get(handle)
            .ok_or(Misfit("a hold's counter is gone"))?;
        let resolved = u32::from(last);
        if !self.is_live(counter, charge) {
            return self.change_past(handle, period, change, resolved);
        }
        self.touch(handle);
        let counter = self
            .slab
            .get_mut(handle)
            .ok_or(Misfit("a hold's counter is gone"))?;
        counter.holds = counter
            .holds
            .checked_sub(resolved)
            .ok_or(Misfit("a hold too few"))?;
        counter
            .change(at_ns, period, change)
            .ok_or(Misfit("a sum does not fit"))
    }

    fn change_past(
        &mut self,
        handle: Handle,
        period: u32,
        change: Change,
        resolved: u32,
    ) -> Result<(), Misfit> {
        let past = self
            .past
            .get_mut(&(handle, period))
            .ok_or(Misfit("no such past window"))?;
        past.balance = past
            .balance
            .after(change)
            .ok_or(Misfit("a sum does not fit"))?;
        past.holds = past
            .holds
            .checked_sub(resolved)
            .ok_or(Misfit("a hold too few"))?;
        let past = *past;
        if past.holds == 0 {
            self.past.remove(&(handle, period));
        }
        self.dirty_past.push((handle, period));
        self.tell_total(handle, past);
        Ok(())
    }

    /// The charge for a window of a counter by its beginning, if the ledger still has it.
    pub(crate) fn charge_of(&self, key: &CounterKey, start_ns: i64) -> Option<Charge> {
        let handle = self.find(key)?;
        let counter = self.slab.get(handle)?;
        if counter.slots.is_some() {
            return Some(Charge {
                counter: handle,
                period: counter.period_at(start_ns),
            });
        }
        if counter.bounds.start_ns == start_ns {
            return Some(Charge {
                counter: handle,
                period: counter.period,
            });
        }
        let of_counter = self.past.range((handle, 0)..=(handle, u32::MAX));
        let mut found = of_counter.filter(|(_, past)| past.bounds.start_ns == start_ns);
        found.next().map(|((counter, period), _)| Charge {
            counter: *counter,
            period: *period,
        })
    }
}
