//! The ledger as one would write it without a thought for speed: what it must agree with.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::window::{Bounds, WindowKind, Zones};

/// One window of one counter: which counter of the pool, and where the window (or slot) begins.
pub(super) type Place = (usize, i64);

#[derive(Clone, Debug)]
pub(super) struct ModelHold {
    pub places: Vec<Place>,
    pub amount: i64,
    pub unknown: i64,
    pub resolved: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub policies: Vec<Policy>,
    keys: Vec<CounterKey>,
    /// The window that each counter was last seen in.
    windows: Vec<Option<Bounds>>,
    pub balances: BTreeMap<Place, Balance>,
    /// The highest cap that anything was admitted under, by counter (rolling) or place.
    allowed: BTreeMap<Place, i64>,
    pub holds: HashMap<u64, ModelHold>,
    pub keys_used: HashMap<u8, (u8, u64)>,
    /// Requests and tokens as they were admitted and later corrected: when, hold, tokens.
    pub taken: Vec<(i64, u64, u32)>,
}

impl Model {
    pub fn new(pool: &[CounterSpec]) -> Self {
        Self {
            policies: pool.iter().map(|spec| spec.policy).collect(),
            keys: pool.iter().map(|spec| spec.key.clone()).collect(),
            windows: vec![None; pool.len()],
            balances: BTreeMap::new(),
            allowed: BTreeMap::new(),
            holds: HashMap::new(),
            keys_used: HashMap::new(),
            taken: Vec::new(),
        }
    }

    fn kind(&self, counter: usize) -> WindowKind {
        self.keys[counter].window
    }

    /// The window that a counter is in now; looking does not open it.
    fn window(&self, counter: usize, at_ns: i64) -> Bounds {
        if let Some(window) = self.windows[counter].filter(|window| at_ns < window.end_ns) {
            return window;
        }
        let rules = Zones::default().rules(&self.keys[counter].zone).unwrap();
        rules.bounds(self.kind(counter), at_ns)
    }

    /// Where something charged now belongs.
    fn place(&mut self, counter: usize, at_ns: i64) -> Place {
        if let Some(slot) = self.kind(counter).slot_ns() {
            return (counter, at_ns.div_euclid(slot) * slot);
        }
        let window = self.window(counter, at_ns);
        self.windows[counter] = Some(window);
        (counter, window.start_ns)
    }

    /// What a counter shows now.
    pub fn balance(&self, counter: usize, at_ns: i64) -> Balance {
        let kind = self.kind(counter);
        let (Some(length), Some(slot)) = (kind.rolling_ns(), kind.slot_ns()) else {
            let place = (counter, self.window(counter, at_ns).start_ns);
            return self.balances.get(&place).copied().unwrap_or_default();
        };
        let mut sum = Balance::default();
        for (_, part) in self
            .balances
            .range((counter, i64::MIN)..=(counter, i64::MAX))
        {
            sum.held += part.held;
        }
        // A slot counts until its last nanosecond is outside of the window.
        let first = at_ns - length + 1 - (slot - 1);
        for (_, part) in self.balances.range((counter, first)..=(counter, i64::MAX)) {
            sum.posted += part.posted;
            sum.unknown += part.unknown;
            sum.overrun += part.overrun;
        }
        sum
    }

    pub fn admit(
        &mut self,
        hold: u64,
        at_ns: i64,
        counters: &[usize],
        amount: i64,
    ) -> Result<(), String> {
        let mut places = Vec::new();
        for &counter in counters {
            let policy = self.policies[counter];
            let used = self.balance(counter, at_ns).used();
            let place = self.place(counter, at_ns);
            if policy.mode.is_hard() && amount > 0 {
                if let Some(cap) = policy.cap().filter(|cap| used + amount > *cap) {
                    return Err(format!(
                        "counter {counter}: {used} + {amount} admitted over {cap}"
                    ));
                }
            }
            let cap = if policy.mode.is_hard() {
                policy.cap()
            } else {
                None
            }
            .unwrap_or(i64::MAX);
            let allowed = self.allowed.entry(self.allowed_place(place)).or_default();
            *allowed = cap.max(*allowed);
            self.balances.entry(place).or_default().held += amount;
            places.push(place);
        }
        self.holds.insert(
            hold,
            ModelHold {
                places,
                amount,
                unknown: 0,
                resolved: false,
            },
        );
        Ok(())
    }

    fn allowed_place(&self, place: Place) -> Place {
        if self.kind(place.0).slot_ns().is_some() {
            (place.0, 0)
        } else {
            place
        }
    }

    fn change(&mut self, hold: u64, change: impl Fn(&mut Balance)) {
        for place in self.holds[&hold].places.clone() {
            change(self.balances.entry(place).or_default());
        }
    }

    pub fn settle(&mut self, hold: u64, posted: i64, unknown: i64) {
        let amount = self.holds[&hold].amount;
        self.change(hold, |balance| {
            balance.held -= amount;
            balance.posted += posted;
            balance.unknown += unknown;
            balance.overrun += (posted + unknown - amount).max(0);
        });
        let known = self.holds.get_mut(&hold).unwrap();
        (known.amount, known.unknown, known.resolved) = (0, unknown, unknown == 0);
    }

    pub fn adjust(&mut self, hold: u64, posted: i64) {
        let unknown = self.holds[&hold].unknown;
        self.change(hold, |balance| {
            balance.unknown -= unknown;
            balance.posted += posted;
            balance.overrun += (posted - unknown).max(0);
        });
        let known = self.holds.get_mut(&hold).unwrap();
        (known.unknown, known.resolved) = (0, true);
    }

    pub fn shrink(&mut self, hold: u64, to: i64) {
        let amount = self.holds[&hold].amount;
        self.change(hold, |balance| balance.held -= amount - to);
        self.holds.get_mut(&hold).unwrap().amount = to;
    }

    /// I1, for every window that ever was.
    pub fn check_limits(&self, at_ns: i64) -> Result<(), String> {
        for place in self.balances.keys().copied() {
            let rolling = self.kind(place.0).slot_ns().is_some();
            let balance = if rolling {
                self.balance(place.0, at_ns)
            } else {
                self.balances[&place]
            };
            let allowed = self
                .allowed
                .get(&self.allowed_place(place))
                .copied()
                .unwrap_or(0);
            if balance.used() > allowed.saturating_add(balance.overrun) {
                return Err(format!("I1: {place:?} has {balance:?} of {allowed}"));
            }
        }
        Ok(())
    }
}
