//! Admission: money and rates together, all or nothing.
//!
//! First everything that the demand names is looked up and rolled forward, in thought only. Then
//! the menu is read until a choice fits every limit. Only then is a record made and applied.

use std::sync::Arc;

use super::balance::{Balance, Change};
use super::codec::Since;
use super::counters::{Counter, CounterKey, CounterSpec, Open, Roll};
use super::demand::{
    Admission, Admitted, Choice, CounterRef, Demand, Existing, LimitView, Measure, Peek, RateRef,
    Reason, Refusal, Warning, MAX_COUNTERS, MAX_MENU, MAX_RATES, MAX_RUNGS,
};
use super::error::LedgerError;
use super::holds::KeyEntry;
use super::policy::{Mode, Policy};
use super::rates::{Rate, RateCharge, RateOpen, RateSpec, Unit};
use super::record::{RecordSink, Reserve};
use super::scope::ScopeKind;
use super::slab::Handle;
use super::{check_full, Ledger};
use crate::limiter::{Limiter, Quota};
use crate::planted::{planted, Bug};
use crate::window::{Bounds, Stamp};

/// A counter as it would be at the moment of the demand.
struct Line<'a> {
    handle: Handle,
    origin: LineOrigin<'a>,
    policy: Policy,
    balance: Balance,
    degraded: bool,
    bounds: Bounds,
}

enum LineOrigin<'a> {
    /// Its window is open.
    Open(&'a Counter),
    /// Its window is over and another begins.
    Rolled(&'a Counter),
    /// It does not exist yet.
    New(&'a CounterSpec),
}

/// A rate as it is at the moment of the demand.
struct RateLine<'a> {
    handle: Handle,
    /// `None` for one that does not exist yet.
    rate: Option<&'a Rate>,
    /// Only of one that does not exist yet.
    spec: Option<&'a RateSpec>,
    unit: Unit,
    quota: Quota,
    block: bool,
    available: u32,
}

/// Everything that a demand meets.
struct Meeting<'a> {
    at: Stamp,
    lines: Vec<Line<'a>>,
    rates: Vec<RateLine<'a>>,
    degraded: bool,
}

pub(crate) fn check_size(what: &'static str, size: usize, max: usize) -> Result<(), LedgerError> {
    if size > max {
        return Err(LedgerError::TooMany { what, max });
    }
    Ok(())
}

fn check_demand(demand: &Demand<'_>) -> Result<(), LedgerError> {
    if demand.menu.is_empty() {
        return Err(LedgerError::EmptyMenu);
    }
    check_size("choices", demand.menu.len(), MAX_MENU)?;
    check_size("counters", demand.counters.len(), MAX_COUNTERS)?;
    check_size("rates", demand.rates.len(), MAX_RATES)?;
    for choice in demand.menu {
        check_size("rungs", choice.rungs.len(), MAX_RUNGS)?;
        let lowest = choice.rungs.iter().copied().fold(choice.amount, i64::min);
        if lowest < 0 {
            return Err(LedgerError::NegativeAmount(lowest));
        }
    }
    Ok(())
}

impl RateLine<'_> {
    fn amount(&self, choice: &Choice<'_>) -> u32 {
        match self.unit {
            Unit::Requests => 1,
            Unit::Tokens => choice.tokens,
        }
    }

    fn fits(&self, choice: &Choice<'_>) -> bool {
        self.amount(choice) <= self.available
    }
}

impl Line<'_> {
    fn fits(&self, choice: &Choice<'_>) -> bool {
        self.policy.fits(self.balance, choice.amount)
    }

    fn is_hard(&self) -> bool {
        self.policy.mode.is_hard() && self.policy.limit.is_some()
    }

    /// What may be sent at once. A new window has no room yet.
    fn safe(&self, durable: u64) -> i64 {
        match self.origin {
            LineOrigin::Open(counter) => counter.safe(durable),
            LineOrigin::Rolled(_) | LineOrigin::New(_) => 0,
        }
    }

    fn blocks(&self, choice: &Choice<'_>) -> bool {
        self.policy.mode.is_hard() && !self.fits(choice)
    }
}

impl Meeting<'_> {
    /// Whether a choice passes every limit that is enforced.
    fn passes(&self, choice: &Choice<'_>) -> bool {
        let blocked = self.lines.iter().filter(|line| line.blocks(choice)).count();
        if planted(Bug::TakesSome) && blocked < self.lines.len() {
            return true;
        }
        blocked == 0
            && self
                .rates
                .iter()
                .all(|rate| !rate.block || rate.fits(choice))
    }

    /// Whether every counter has room for it, and there is one.
    fn is_safe(&self, amount: i64, durable: u64) -> bool {
        let mut lines = self.lines.iter();
        !self.lines.is_empty() && lines.all(|line| amount <= line.safe(durable))
    }

    /// The first choice that fits every limit and the degrade level.
    fn choose(&self, menu: &[Choice<'_>]) -> Option<usize> {
        menu.iter()
            .position(|choice| (choice.cheap || !self.degraded) && self.passes(choice))
    }
}

impl Ledger {
    /// Reserves the worst case of a request on all its counters and rates, or on none.
    ///
    /// A refusal is an answer, not an error, and leaves no record.
    pub fn admit(
        &mut self,
        at: Stamp,
        demand: &Demand<'_>,
        sink: &mut impl RecordSink,
    ) -> Result<Admission, LedgerError> {
        let at = self.moment(at);
        check_demand(demand)?;
        if let Some(existing) = self.existing(at, demand)? {
            return Ok(Admission::Existing(existing));
        }
        let meeting = self.meet(at, demand)?;
        let Some(choice) = meeting.choose(demand.menu) else {
            return Ok(Admission::Refused(self.refusal(&meeting, demand.menu)?));
        };
        self.check_room(demand, &meeting)?;
        let reserve = self.reserve_record(&meeting, demand, choice)?;
        let admitted = self.admitted(&meeting, demand, choice, &reserve);
        self.commit(reserve.into(), sink)?;
        Ok(Admission::Admitted(admitted))
    }

    /// The first choice of a demand, whether it fits or not.
    pub(super) fn reserve_unasked(
        &self,
        at: Stamp,
        demand: &Demand<'_>,
    ) -> Result<Reserve, LedgerError> {
        check_demand(demand)?;
        let meeting = self.meet(at, demand)?;
        self.check_room(demand, &meeting)?;
        self.reserve_record(&meeting, demand, 0)
    }

    /// What [`Ledger::admit`] would do, and how every limit looks. Takes nothing.
    pub fn peek(&self, at: Stamp, demand: &Demand<'_>) -> Result<Peek, LedgerError> {
        check_demand(demand)?;
        let meeting = self.meet(self.moment(at), demand)?;
        let outcome = match meeting.choose(demand.menu) {
            Some(choice) => Ok(choice),
            None => Err(self.refusal(&meeting, demand.menu)?),
        };
        let Some(last) = demand.menu.last() else {
            return Err(LedgerError::EmptyMenu);
        };
        let counters = meeting
            .lines
            .iter()
            .filter_map(|line| self.view(line, last));
        let rates = meeting
            .rates
            .iter()
            .filter_map(|rate| self.rate_view(&meeting, rate, last));
        Ok(Peek {
            outcome,
            limits: counters.chain(rates).collect(),
        })
    }

    fn existing(&self, at: Stamp, demand: &Demand<'_>) -> Result<Option<Existing>, LedgerError> {
        let Some(asked) = demand.idempotency else {
            return Ok(None);
        };
        let Some(entry) = self.holds.key(&asked.key, at.calendar_ns) else {
            return Ok(None);
        };
        if planted(Bug::ForgetsKeys) {
            return Ok(None);
        }
        if entry.body != asked.body {
            return Err(LedgerError::Conflict(entry.hold));
        }
        let KeyEntry {
            hold,
            choice,
            ladder,
            amount,
            state,
            ..
        } = *entry;
        Ok(Some(Existing {
            hold,
            choice,
            ladder,
            amount,
            state,
        }))
    }

    /// Looks up everything that the demand names.
    fn meet<'a>(&'a self, at: Stamp, demand: &Demand<'a>) -> Result<Meeting<'a>, LedgerError> {
        let mut lines: Vec<Line<'a>> = Vec::with_capacity(demand.counters.len());
        let mut created = 0;
        for (position, counter) in demand.counters.iter().enumerate() {
            let line = self.line(at, *counter, position, &mut created)?;
            if lines.iter().any(|other| other.is_same(&line)) {
                return Err(LedgerError::SameCounter(position));
            }
            lines.push(line);
        }
        let rates = self.meet_rates(at, demand)?;
        let degraded = lines.iter().any(|line| line.degraded);
        Ok(Meeting {
            at,
            lines,
            rates,
            degraded,
        })
    }

    fn line<'a>(
        &'a self,
        at: Stamp,
        counter: CounterRef<'a>,
        position: usize,
        created: &mut u32,
    ) -> Result<Line<'a>, LedgerError> {
        let handle = match counter {
            CounterRef::Handle(handle) => Some(handle),
            CounterRef::Spec(spec) => self.counters.find(&spec.key),
        };
        if let Some(handle) = handle {
            let found = self.counters.slab.get(handle);
            return self.known_line(
                at,
                handle,
                found.ok_or(LedgerError::StaleCounter(position))?,
            );
        }
        let CounterRef::Spec(spec) = counter else {
            return Err(LedgerError::StaleCounter(position));
        };
        spec.check()?;
        let bounds = self.counters.first_window(&spec.key, at.calendar_ns)?;
        let handle = self
            .counters
            .slab
            .upcoming(*created)
            .ok_or(LedgerError::Overflow)?;
        *created += 1;
        let balance = Balance::default();
        Ok(Line {
            handle,
            origin: LineOrigin::New(spec),
            policy: spec.policy,
            balance,
            degraded: spec.policy.degraded(balance, false),
            bounds,
        })
    }

    fn known_line<'a>(
        &'a self,
        at: Stamp,
        handle: Handle,
        counter: &'a Counter,
    ) -> Result<Line<'a>, LedgerError> {
        let policy = counter.policy;
        let reopened = planted(Bug::ReopensWindow) && at.calendar_ns < counter.bounds.start_ns;
        if counter.ended(at.calendar_ns) || reopened {
            let bounds = self.counters.next_window(counter, at.calendar_ns)?;
            let balance = Balance::default();
            let degraded = policy.degraded(balance, false);
            let origin = LineOrigin::Rolled(counter);
            return Ok(Line {
                handle,
                origin,
                policy,
                balance,
                degraded,
                bounds,
            });
        }
        let balance = counter.balance_at(at.calendar_ns);
        let degraded = policy.degraded(balance, counter.degraded);
        let (origin, bounds) = (LineOrigin::Open(counter), counter.bounds);
        Ok(Line {
            handle,
            origin,
            policy,
            balance,
            degraded,
            bounds,
        })
    }

    fn meet_rates<'a>(
        &'a self,
        at: Stamp,
        demand: &Demand<'a>,
    ) -> Result<Vec<RateLine<'a>>, LedgerError> {
        let mut rates: Vec<RateLine<'a>> = Vec::with_capacity(demand.rates.len());
        let mut created = 0;
        for (position, rate) in demand.rates.iter().enumerate() {
            let line = self.rate_line(at, *rate, position, &mut created)?;
            if rates.iter().any(|other| other.is_same(&line)) {
                return Err(LedgerError::SameRate(position));
            }
            rates.push(line);
        }
        Ok(rates)
    }

    fn rate_line<'a>(
        &'a self,
        at: Stamp,
        rate: RateRef<'a>,
        position: usize,
        created: &mut u32,
    ) -> Result<RateLine<'a>, LedgerError> {
        let handle = match rate {
            RateRef::Handle(handle) => Some(handle),
            RateRef::Spec(spec) => self.rates.find(&self.counters.scopes, &spec.key),
        };
        if let Some(handle) = handle {
            let found = self
                .rates
                .slab
                .get(handle)
                .ok_or(LedgerError::StaleRate(position))?;
            let quota = found.quota();
            return Ok(RateLine {
                handle,
                rate: Some(found),
                spec: None,
                unit: found.unit(),
                quota,
                block: found.block,
                available: found.limiter.available(quota, at.elapsed_ns),
            });
        }
        let RateRef::Spec(spec) = rate else {
            return Err(LedgerError::StaleRate(position));
        };
        spec.check()?;
        let handle = self
            .rates
            .slab
            .upcoming(*created)
            .ok_or(LedgerError::Overflow)?;
        *created += 1;
        Ok(RateLine {
            handle,
            rate: None,
            spec: Some(spec),
            unit: spec.key.unit,
            quota: spec.quota(),
            block: spec.block,
            available: Limiter::new(spec.key.method).available(spec.quota(), at.elapsed_ns),
        })
    }

    /// Whether there is room for another hold and for what it would create.
    fn check_room(&self, demand: &Demand<'_>, meeting: &Meeting<'_>) -> Result<(), LedgerError> {
        let capacity = &self.capacity;
        let keys = usize::from(demand.idempotency.is_some());
        check_full("open holds", self.holds.open.len() + 1, capacity.holds_max)?;
        check_full(
            "idempotency keys",
            self.holds.keys.len() + keys,
            capacity.keys_max,
        )?;
        let new = meeting.lines.iter().filter_map(|line| match line.origin {
            LineOrigin::New(spec) => Some(&spec.key),
            LineOrigin::Open(_) | LineOrigin::Rolled(_) => None,
        });
        self.check_new_counters(new)?;
        let new_rates = meeting
            .rates
            .iter()
            .filter(|line| line.rate.is_none())
            .count();
        check_full(
            "rates",
            self.rates.slab.len() + new_rates,
            capacity.rates_max,
        )
    }

    fn reserve_record(
        &self,
        meeting: &Meeting<'_>,
        demand: &Demand<'_>,
        position: usize,
    ) -> Result<Reserve, LedgerError> {
        let choice = demand.menu.get(position).ok_or(LedgerError::EmptyMenu)?;
        let mut reserve = Reserve {
            at: meeting.at,
            hold: self.holds.next,
            idempotency: demand.idempotency,
            choice: u16::try_from(position).unwrap_or(u16::MAX),
            ladder: choice.ladder,
            amount: choice.amount,
            rungs: choice.rungs.to_vec(),
            price_hash: demand.price_hash,
            opens: Vec::new(),
            rolls: Vec::new(),
            rate_opens: Vec::new(),
            counters: Vec::with_capacity(meeting.lines.len()),
            rates: Vec::with_capacity(meeting.rates.len()),
            label: Since(demand.label.cloned()),
        };
        for line in &meeting.lines {
            if planted(Bug::TakesSome) && line.blocks(choice) {
                continue;
            }
            let Line {
                handle: counter,
                bounds,
                ..
            } = *line;
            let change = Change::hold(choice.amount);
            line.balance.after(change).ok_or(LedgerError::Overflow)?;
            match line.origin {
                LineOrigin::Open(_) => {}
                LineOrigin::Rolled(_) => reserve.rolls.push(Roll { counter, bounds }),
                LineOrigin::New(spec) => {
                    reserve.opens.push(Open {
                        counter,
                        spec: spec.clone(),
                        bounds,
                    });
                }
            }
            reserve.counters.push(counter);
        }
        for line in &meeting.rates {
            let rate = line.handle;
            if let Some(spec) = line.spec {
                reserve.rate_opens.push(RateOpen {
                    rate,
                    spec: spec.clone(),
                });
            }
            reserve.rates.push(RateCharge {
                rate,
                amount: line.amount(choice),
            });
        }
        Ok(reserve)
    }

    fn admitted(
        &self,
        meeting: &Meeting<'_>,
        demand: &Demand<'_>,
        position: usize,
        reserve: &Reserve,
    ) -> Admitted {
        let mut admitted = Admitted {
            hold: reserve.hold,
            choice: position,
            ladder: reserve.ladder,
            amount: reserve.amount,
            degraded: meeting.degraded,
            warnings: Vec::new(),
            shadow: Vec::new(),
            hard: meeting.lines.iter().any(Line::is_hard),
            clear: reserve.amount == 0 || meeting.is_safe(reserve.amount, self.durable),
            counters: meeting.lines.iter().map(|line| line.handle).collect(),
            rates: meeting.rates.iter().map(|rate| rate.handle).collect(),
        };
        let Some(choice) = demand.menu.get(position) else {
            return admitted;
        };
        for line in &meeting.lines {
            if line.policy.mode == Mode::Shadow && !line.fits(choice) {
                let refusal = self.counter_refusal(meeting, line, choice, Reason::Budget);
                admitted.shadow.extend(refusal);
            } else {
                admitted.warnings.extend(self.warning(line, choice));
            }
        }
        for rate in meeting
            .rates
            .iter()
            .filter(|rate| !rate.block && !rate.fits(choice))
        {
            admitted
                .shadow
                .extend(self.rate_refusal(meeting, rate, choice));
        }
        admitted
    }

    fn warning(&self, line: &Line<'_>, choice: &Choice<'_>) -> Option<Warning> {
        let over = !line.fits(choice);
        let spent = line.balance.spent();
        if !over && !line.policy.reaches(spent, line.policy.warn_bp) {
            return None;
        }
        let CounterKey {
            scope, id, window, ..
        } = self.line_key(line)?;
        Some(Warning {
            scope,
            id,
            window,
            limit: line.policy.limit?,
            spent,
            over,
        })
    }

    fn line_key(&self, line: &Line<'_>) -> Option<CounterKey> {
        match line.origin {
            LineOrigin::New(spec) => Some(spec.key.clone()),
            LineOrigin::Open(counter) | LineOrigin::Rolled(counter) => self.counters.key(counter),
        }
    }

    /// The refusal that is told: of the limits that refuse the last choice that could have been
    /// taken, the one that takes longest to give way. Money outranks rates.
    fn refusal(
        &self,
        meeting: &Meeting<'_>,
        menu: &[Choice<'_>],
    ) -> Result<Box<Refusal>, LedgerError> {
        let allowed = menu
            .iter()
            .rev()
            .find(|choice| choice.cheap || !meeting.degraded);
        let mut refusals = Vec::new();
        if let Some(choice) = allowed {
            for line in meeting.lines.iter().filter(|line| line.blocks(choice)) {
                refusals.extend(self.counter_refusal(meeting, line, choice, Reason::Budget));
            }
            if refusals.is_empty() {
                let full = meeting
                    .rates
                    .iter()
                    .filter(|rate| rate.block && !rate.fits(choice));
                refusals.extend(full.filter_map(|rate| self.rate_refusal(meeting, rate, choice)));
            }
        } else if let Some(choice) = menu.last() {
            for line in meeting.lines.iter().filter(|line| line.degraded) {
                refusals.extend(self.counter_refusal(meeting, line, choice, Reason::Degraded));
            }
        }
        let slowest = refusals
            .into_iter()
            .max_by_key(|r| r.retry_after_ns.unwrap_or(i64::MAX));
        slowest.map(Box::new).ok_or(LedgerError::Inconsistent)
    }

    fn counter_refusal(
        &self,
        meeting: &Meeting<'_>,
        line: &Line<'_>,
        choice: &Choice<'_>,
        reason: Reason,
    ) -> Option<Refusal> {
        let CounterKey {
            scope, id, window, ..
        } = self.line_key(line)?;
        let reset_at_ns = self.reset_at(meeting.at, line, choice.amount);
        let limit = line.policy.cap()?;
        Some(Refusal {
            reason,
            scope,
            id,
            measure: Measure::Money(window),
            limit,
            used: line.balance.used(),
            asked: choice.amount,
            reset_at_ns,
            retry_after_ns: reset_at_ns.map(|reset| reset.saturating_sub(meeting.at.calendar_ns)),
        })
    }

    /// When a counter will have room for an amount, as far as time alone can make it.
    fn reset_at(&self, at: Stamp, line: &Line<'_>, amount: i64) -> Option<i64> {
        if let LineOrigin::Open(counter) = line.origin {
            if counter.slots.is_some() {
                return counter.room_at(at.calendar_ns, &line.policy, amount);
            }
        }
        (line.bounds.end_ns < i64::MAX).then_some(line.bounds.end_ns)
    }

    fn rate_refusal(
        &self,
        meeting: &Meeting<'_>,
        line: &RateLine<'_>,
        choice: &Choice<'_>,
    ) -> Option<Refusal> {
        let asked = line.amount(choice);
        let now_ns = meeting.at.elapsed_ns;
        let retry_after_ns = match line.rate {
            Some(rate) => rate.limiter.retry_after(line.quota, now_ns, asked),
            None => None,
        };
        let (scope, id) = self.rate_scope(line)?;
        Some(Refusal {
            reason: Reason::Rate,
            scope,
            id,
            measure: Measure::Rate(line.unit, line.quota.window_ns),
            limit: i64::from(line.quota.limit),
            used: i64::from(line.quota.limit) - i64::from(line.available),
            asked: i64::from(asked),
            reset_at_ns: retry_after_ns.map(|wait| meeting.at.calendar_ns.saturating_add(wait)),
            retry_after_ns,
        })
    }

    fn rate_scope(&self, line: &RateLine<'_>) -> Option<(ScopeKind, Arc<str>)> {
        let scopes = &self.counters.scopes;
        let spec = match (line.rate, line.spec) {
            (Some(rate), _) => self.rates.spec(scopes, rate)?,
            (None, spec) => spec?.clone(),
        };
        Some((spec.key.scope, spec.key.id))
    }

    fn view(&self, line: &Line<'_>, choice: &Choice<'_>) -> Option<LimitView> {
        let CounterKey {
            scope, id, window, ..
        } = self.line_key(line)?;
        let limit = line.policy.cap();
        let used = line.balance.used();
        Some(LimitView {
            scope,
            id,
            measure: Measure::Money(window),
            limit,
            used,
            remaining: limit.map(|limit| limit.saturating_sub(used).max(0)),
            degraded: line.degraded,
            fits: line.fits(choice),
            enforced: line.policy.mode.is_hard(),
            reset_at_ns: (line.bounds.end_ns < i64::MAX).then_some(line.bounds.end_ns),
        })
    }

    fn rate_view(
        &self,
        meeting: &Meeting<'_>,
        line: &RateLine<'_>,
        choice: &Choice<'_>,
    ) -> Option<LimitView> {
        let (scope, id) = self.rate_scope(line)?;
        let limit = i64::from(line.quota.limit);
        let left = i64::from(line.available);
        let all = line.rate.and_then(|rate| {
            rate.limiter
                .retry_after(line.quota, meeting.at.elapsed_ns, line.quota.limit)
        });
        Some(LimitView {
            scope,
            id,
            measure: Measure::Rate(line.unit, line.quota.window_ns),
            limit: Some(limit),
            used: limit - left,
            remaining: Some(left),
            degraded: false,
            fits: line.fits(choice),
            enforced: line.block,
            reset_at_ns: Some(meeting.at.calendar_ns.saturating_add(all.unwrap_or(0))),
        })
    }
}

impl Line<'_> {
    fn is_same(&self, other: &Self) -> bool {
        match (&self.origin, &other.origin) {
            (LineOrigin::New(mine), LineOrigin::New(theirs)) => mine.key == theirs.key,
            _ => self.handle == other.handle,
        }
    }
}

impl RateLine<'_> {
    fn is_same(&self, other: &Self) -> bool {
        match (self.spec, other.spec) {
            (Some(mine), Some(theirs)) => mine.key == theirs.key,
            _ => self.handle == other.handle,
        }
    }
}
