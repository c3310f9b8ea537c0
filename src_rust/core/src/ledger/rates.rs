//! Rates: how often, or how many tokens, in how long.

use std::collections::HashMap;
use std::sync::Arc;

use super::codec::{wire_code, wire_struct, MAX_NAME_BYTES};
use super::error::{LedgerError, Misfit};
use super::scope::{ScopeKind, Scopes};
use super::slab::{Handle, Slab};
use crate::limiter::{Limiter, Method, Quota};

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Unit {
    /// Calls; one each, and not given back when a call is released.
    Requests = 0,
    /// Tokens; reserved at their most, corrected when the call is settled.
    Tokens = 1,
}

impl Unit {
    /// The unit with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Requests, Self::Tokens]
            .get(usize::from(code))
            .copied()
    }

    /// The word for it in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// What a rate is. Its limit is an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RateKey {
    /// What kind of thing it is about.
    pub scope: ScopeKind,
    /// Which one.
    pub id: Arc<str>,
    /// What it counts.
    pub unit: Unit,
    /// How it is measured.
    pub method: Method,
    /// In how long, in nanoseconds.
    pub window_ns: i64,
}

/// A rate and the limit it has when it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateSpec {
    /// What it is.
    pub key: RateKey,
    /// The most that a window admits.
    pub limit: u32,
    /// Whether what is above is refused, or passes and is noted.
    pub block: bool,
}

wire_code!(Unit, "unit");
wire_struct!(RateKey {
    scope,
    id,
    unit,
    method,
    window_ns
});
wire_struct!(RateSpec { key, limit, block });

impl RateSpec {
    pub(crate) fn quota(&self) -> Quota {
        Quota {
            limit: self.limit,
            window_ns: self.key.window_ns,
        }
    }

    pub(crate) fn check(&self) -> Result<(), LedgerError> {
        if self.key.id.len() > MAX_NAME_BYTES {
            return Err(LedgerError::Invalid("the name of a scope is too long"));
        }
        if !self.quota().is_valid() {
            return Err(LedgerError::Invalid(
                "a rate's window must be 0.1 s to 31 days long",
            ));
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PackedRateKey {
    scope: u32,
    unit: Unit,
    method: Method,
    window_ns: i64,
}

#[derive(Debug)]
pub(crate) struct Rate {
    key: PackedRateKey,
    pub limit: u32,
    pub block: bool,
    pub dirty: bool,
    pub limiter: Limiter,
}

impl Rate {
    pub(crate) fn quota(&self) -> Quota {
        Quota {
            limit: self.limit,
            window_ns: self.key.window_ns,
        }
    }

    pub(crate) fn unit(&self) -> Unit {
        self.key.unit
    }
}

/// A new rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateOpen {
    /// Its name from now on.
    pub rate: Handle,
    /// What it is and its limit.
    pub spec: RateSpec,
}

wire_struct!(RateOpen { rate, spec });

/// A rate's new limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateChange {
    /// Whose.
    pub rate: Handle,
    /// The most that a window admits.
    pub limit: u32,
    /// Whether what is above is refused.
    pub block: bool,
}

wire_struct!(RateChange { rate, limit, block });

/// So much of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateCharge {
    /// Of which rate.
    pub rate: Handle,
    /// How much.
    pub amount: u32,
}

wire_struct!(RateCharge { rate, amount });

/// All rates. Names are shared with the counters.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    pub slab: Slab<Rate>,
    pub dirty: Vec<u32>,
    by_key: HashMap<PackedRateKey, Handle>,
}

impl Rates {
    pub(crate) fn find(&self, scopes: &Scopes, key: &RateKey) -> Option<Handle> {
        let scope = scopes.find(key.scope, &key.id)?;
        let RateKey {
            unit,
            method,
            window_ns,
            ..
        } = *key;
        self.by_key
            .get(&PackedRateKey {
                scope,
                unit,
                method,
                window_ns,
            })
            .copied()
    }

    pub(crate) fn spec(&self, scopes: &Scopes, rate: &Rate) -> Option<RateSpec> {
        let PackedRateKey {
            scope,
            unit,
            method,
            window_ns,
        } = rate.key;
        let (scope, id) = scopes.get(scope)?;
        let key = RateKey {
            scope,
            id: Arc::clone(id),
            unit,
            method,
            window_ns,
        };
        Some(RateSpec {
            key,
            limit: rate.limit,
            block: rate.block,
        })
    }

    fn touch(&mut self, handle: Handle) -> Option<&mut Rate> {
        let rate = self.slab.get_mut(handle)?;
        if !rate.dirty {
            rate.dirty = true;
            self.dirty.push(handle.index);
        }
        Some(rate)
    }

    pub(crate) fn open(&mut self, scopes: &mut Scopes, open: &RateOpen) -> Result<(), Misfit> {
        let rate = Self::packed(scopes, &open.spec, Limiter::new(open.spec.key.method));
        let rate = rate.ok_or(Misfit("too many names"))?;
        if self.by_key.insert(rate.key, open.rate).is_some() {
            return Err(Misfit("a rate is created twice"));
        }
        self.slab
            .insert(open.rate, rate)
            .ok_or(Misfit("a rate's place is taken"))?;
        self.touch(open.rate);
        Ok(())
    }

    /// Puts a rate back as a snapshot has it. `None` if it does not fit the others.
    pub(crate) fn restore(
        &mut self,
        scopes: &mut Scopes,
        open: &RateOpen,
        limiter: Limiter,
    ) -> Option<()> {
        let rate = Self::packed(scopes, &open.spec, limiter)?;
        let twice = self.by_key.insert(rate.key, open.rate).is_some();
        self.slab.put_back(open.rate, rate)?;
        (!twice).then_some(())
    }

    fn packed(scopes: &mut Scopes, spec: &RateSpec, limiter: Limiter) -> Option<Rate> {
        let RateKey {
            unit,
            method,
            window_ns,
            ..
        } = spec.key;
        let scope = scopes.acquire(spec.key.scope, &spec.key.id)?;
        let key = PackedRateKey {
            scope,
            unit,
            method,
            window_ns,
        };
        Some(Rate {
            key,
            limit: spec.limit,
            block: spec.block,
            dirty: false,
            limiter,
        })
    }

    pub(crate) fn take(&mut self, now_ns: i64, charge: RateCharge) -> Result<(), Misfit> {
        let rate = self.touch(charge.rate).ok_or(Misfit("no such rate"))?;
        let quota = rate.quota();
        rate.limiter.take(quota, now_ns, charge.amount);
        Ok(())
    }

    /// Replaces what was reserved by what it was. A rate that was forgotten meanwhile was idle:
    /// the reservation no longer counts.
    pub(crate) fn correct(&mut self, taken_ns: i64, charge: RateCharge, tokens: u32) {
        let Some(rate) = self.touch(charge.rate) else {
            return;
        };
        if rate.unit() == Unit::Tokens {
            let quota = rate.quota();
            rate.limiter.correct(quota, taken_ns, charge.amount, tokens);
        }
    }

    pub(crate) fn set_limit(&mut self, change: RateChange) -> Result<(), Misfit> {
        let rate = self
            .touch(change.rate)
            .ok_or(Misfit("no rate for this limit"))?;
        let from = rate.quota();
        rate.limit = change.limit;
        rate.block = change.block;
        let to = rate.quota();
        rate.limiter.change_limit(from, to);
        Ok(())
    }

    pub(crate) fn evict(&mut self, scopes: &mut Scopes, handle: Handle) -> Result<(), Misfit> {
        let rate = self
            .slab
            .remove(handle)
            .ok_or(Misfit("no rate to forget"))?;
        self.by_key.remove(&rate.key);
        scopes.release(rate.key.scope);
        if !rate.dirty {
            self.dirty.push(handle.index);
        }
        Ok(())
    }
}
