//! What is asked of the ledger and what it answers.

use std::sync::Arc;

use super::counters::CounterSpec;
use super::holds::{HoldState, Idempotency, Label};
use super::rates::{RateSpec, Unit};
use super::scope::ScopeKind;
use super::slab::Handle;
use crate::window::WindowKind;

/// The most choices on one menu.
pub const MAX_MENU: usize = 16;
/// The most rungs of one ladder.
pub const MAX_RUNGS: usize = 64;
/// The most money counters that one call touches: 32 budgets, and one that counts all calls.
pub const MAX_COUNTERS: usize = 33;
/// The most rates that one call touches.
pub const MAX_RATES: usize = 16;

/// A counter by its handle, or by what it is if the caller does not know the handle.
#[derive(Clone, Copy, Debug)]
pub enum CounterRef<'a> {
    /// As an earlier answer named it.
    Handle(Handle),
    /// Found, or created with this limit and charged in the same step.
    Spec(&'a CounterSpec),
}

/// A rate by its handle, or by what it is if the caller does not know the handle.
#[derive(Clone, Copy, Debug)]
pub enum RateRef<'a> {
    /// As an earlier answer named it.
    Handle(Handle),
    /// Found, or created with this limit and charged in the same step.
    Spec(&'a RateSpec),
}

/// One way to answer a request, costed at its worst path.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The caller's number for the ladder.
    pub ladder: u16,
    /// The most it can cost in all: every rung, retry, sample and judge. Nano-dollars.
    pub amount: i64,
    /// The most that each rung can cost. Nano-dollars.
    pub rungs: &'a [i64],
    /// Whether it may be taken when a budget is nearly used up.
    pub cheap: bool,
    /// The most tokens it can use, for rates that count tokens.
    pub tokens: u32,
}

/// One request's demand: money and rates together.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// What would do, the best first.
    pub menu: &'a [Choice<'a>],
    /// The counters that pay.
    pub counters: &'a [CounterRef<'a>],
    /// The rates that it counts against: one request, and the choice's tokens.
    pub rates: &'a [RateRef<'a>],
    /// The caller's own name for the request.
    pub idempotency: Option<Idempotency>,
    /// Hash of the price table that the menu was costed by.
    pub price_hash: u64,
    /// What it is about.
    pub label: Option<&'a Label>,
}

/// Why a demand was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It does not fit a budget.
    Budget,
    /// A budget is nearly used up and nothing cheap is on the menu.
    Degraded,
    /// It does not fit a rate.
    Rate,
}

/// What a limit measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Nano-dollars in a window.
    Money(WindowKind),
    /// Requests or tokens in so many nanoseconds.
    Rate(Unit, i64),
}

/// An expected no: which limit refused, and when to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Whose limit.
    pub scope: ScopeKind,
    /// Which one's.
    pub id: Arc<str>,
    /// What it measures.
    pub measure: Measure,
    /// The limit, as it is enforced.
    pub limit: i64,
    /// What is used of it, held included.
    pub used: i64,
    /// What was asked for.
    pub asked: i64,
    /// When the limit's window ends, or for rolling ones when enough of it expires; nanoseconds
    /// since the Unix epoch. `None` for never.
    pub reset_at_ns: Option<i64>,
    /// How long until it is worth asking again; `None` for never.
    pub retry_after_ns: Option<i64>,
}

/// A budget whose posted and unknown spend has reached its warning level, or that is over its
/// limit in mode `Warn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Whose.
    pub scope: ScopeKind,
    /// Which one's.
    pub id: Arc<str>,
    /// In which window.
    pub window: WindowKind,
    /// The limit.
    pub limit: i64,
    /// What was posted and what is unknown.
    pub spent: i64,
    /// Whether the demand did not fit and passed all the same.
    pub over: bool,
}

/// A reservation was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The hold's number.
    pub hold: u64,
    /// Which choice of the menu.
    pub choice: usize,
    /// Which ladder that is.
    pub ladder: u16,
    /// What is held.
    pub amount: i64,
    /// Whether a budget is nearly used up, so that only cheap choices were considered.
    pub degraded: bool,
    /// Budgets to warn about.
    pub warnings: Vec<Warning>,
    /// What limits in shadow would have refused.
    pub shadow: Vec<Refusal>,
    /// Whether a counter of it is never overspent.
    pub hard: bool,
    /// Whether it may be sent to a provider before its record is on the disk: all its counters
    /// have room for it, and that is on the disk.
    pub clear: bool,
    /// The counters of the demand, in its order, for the next one.
    pub counters: Vec<Handle>,
    /// The rates of the demand, in its order, for the next one.
    pub rates: Vec<Handle>,
}

/// The request was asked before: its hold, as it is now. Nothing more was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Existing {
    /// The hold's number.
    pub hold: u64,
    /// Which choice of the menu it was.
    pub choice: u16,
    /// Which ladder that is.
    pub ladder: u16,
    /// What was reserved.
    pub amount: i64,
    /// How it stands.
    pub state: HoldState,
}

/// The answer to a demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Admitted(Admitted),
    /// It was asked before.
    Existing(Existing),
    /// No.
    Refused(Box<Refusal>),
}

/// How a limit looks from a demand: what is used and whether the demand fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitView {
    /// Whose limit.
    pub scope: ScopeKind,
    /// Which one's.
    pub id: Arc<str>,
    /// What it measures.
    pub measure: Measure,
    /// The limit, as it is enforced; `None` only counts.
    pub limit: Option<i64>,
    /// What is used, held included.
    pub used: i64,
    /// What is left.
    pub remaining: Option<i64>,
    /// Whether only cheap choices pass it.
    pub degraded: bool,
    /// Whether the demand's last choice fits.
    pub fits: bool,
    /// Whether it refuses what does not fit.
    pub enforced: bool,
    /// When its window ends; `None` for never.
    pub reset_at_ns: Option<i64>,
}

/// What a demand would come to, and why; nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// The choice that would be taken, or the refusal.
    pub outcome: Result<usize, Box<Refusal>>,
    /// Every limit it would meet.
    pub limits: Vec<LimitView>,
}
