//! Single stories: what a demand is told, and how a hold's life goes.

use super::*;
use crate::limiter::Method;
use crate::window::{WindowKind, DAY_NS, HOUR_NS, MINUTE_NS};

#[test]
fn a_hold_from_reserve_to_settle() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 100);
    let total = counter("u", WindowKind::Total, 1_000);
    let admitted = bench.admit(60, &[&day, &total]);
    assert_eq!(
        (admitted.hold, admitted.amount, admitted.choice),
        (1, 60, 0)
    );
    assert_eq!(bench.balance(&day).held, 60);
    let receipt = bench.settle(admitted.hold, Outcome::Billed(45));
    let posted = Balance {
        posted: 45,
        ..Balance::default()
    };
    assert_eq!(
        (receipt.posted, receipt.returned, receipt.overrun),
        (45, 15, 0)
    );
    assert_eq!(
        (bench.balance(&day), bench.balance(&total)),
        (posted, posted)
    );
    let census = bench.ledger.census();
    assert_eq!(
        (census.counters, census.users, census.holds_open),
        (2, 1, 0)
    );
    bench.check_replay();
}

#[test]
fn handles_are_for_next_time() {
    let mut bench = Bench::new();
    let (day, minute) = (
        counter("u", WindowKind::Day, 100),
        rate("u", Unit::Requests, 9, MINUTE_NS),
    );
    let Ok(Admission::Admitted(first)) = bench.ask(&[choice(5)], &[&day], &[&minute]) else {
        panic!()
    };
    let again = Demand {
        menu: &[choice(5)],
        counters: &[CounterRef::Handle(first.counters[0])],
        rates: &[RateRef::Handle(first.rates[0])],
        idempotency: None,
        price_hash: 0,
        label: None,
    };
    let admission = bench.ledger.admit(bench.at, &again, &mut bench.journal);
    assert!(
        matches!(admission, Ok(Admission::Admitted(_))),
        "{admission:?}"
    );
    assert_eq!(bench.balance(&day).held, 10);
    assert_eq!(bench.ledger.find_rate(&minute.key), Some(first.rates[0]));
    let (_, left) = bench.ledger.rate_status(bench.at, first.rates[0]).unwrap();
    assert_eq!(left, 7);
    // Everything settled and everything over: forgotten, and the handles with it.
    for hold in [1, 2] {
        bench.settle(hold, Outcome::Billed(5));
    }
    bench.pass(2 * DAY_NS);
    let place = bench
        .ledger
        .sweep(bench.at, SweepPlace::default(), 1_000, &mut bench.journal);
    assert_eq!(place, Ok(SweepPlace::default()));
    assert_eq!(
        bench.ledger.census(),
        Census {
            next_hold: 3,
            ..Census::default()
        }
    );
    let admission = bench.ledger.admit(bench.at, &again, &mut bench.journal);
    assert_eq!(admission, Err(LedgerError::StaleCounter(0)));
    let stale = Demand {
        counters: &[],
        ..again
    };
    let admission = bench.ledger.admit(bench.at, &stale, &mut bench.journal);
    assert_eq!(admission, Err(LedgerError::StaleRate(0)));
    bench.check_replay();
}

#[test]
fn a_refusal_says_whose_limit_and_when_to_come_back() {
    let mut bench = Bench::new();
    let (day, month) = (
        counter("u", WindowKind::Day, 100),
        counter("u", WindowKind::Month, 100),
    );
    bench.admit(80, &[&day, &month]);
    let refusal = bench.refused(30, &[&day, &month]);
    assert_eq!(refusal.reason, Reason::Budget);
    assert_eq!(
        refusal.measure,
        Measure::Money(WindowKind::Month),
        "the longer wait is told"
    );
    assert_eq!((refusal.limit, refusal.used, refusal.asked), (100, 80, 30));
    // 30 June 2026, midnight UTC.
    let july = 1_782_864_000 * SECOND_NS;
    assert_eq!(refusal.reset_at_ns, Some(july));
    assert_eq!(refusal.retry_after_ns, Some(july - START));
    let refusal = bench.refused(30, &[&day]);
    assert_eq!(refusal.retry_after_ns, Some(12 * HOUR_NS));
    let total = counter("v", WindowKind::Total, 10);
    assert_eq!(
        bench.refused(11, &[&total]).retry_after_ns,
        None,
        "time will not help"
    );
}

#[test]
fn money_and_rates_are_one_step() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 100);
    let per_minute = rate("u", Unit::Requests, 1, MINUTE_NS);
    let tokens = rate("u", Unit::Tokens, 1_000, MINUTE_NS);
    let call = |amount, tokens| Choice {
        tokens,
        ..choice(amount)
    };
    let first = bench.ask(&[call(10, 400)], &[&day], &[&per_minute, &tokens]);
    assert!(matches!(first, Ok(Admission::Admitted(_))), "{first:?}");
    bench.pass(10 * SECOND_NS);
    let Ok(Admission::Refused(refusal)) =
        bench.ask(&[call(10, 400)], &[&day], &[&per_minute, &tokens])
    else {
        panic!()
    };
    assert_eq!(refusal.reason, Reason::Rate);
    assert_eq!(refusal.measure, Measure::Rate(Unit::Requests, MINUTE_NS));
    assert!((50 * SECOND_NS..51 * SECOND_NS).contains(&refusal.retry_after_ns.unwrap()));
    assert_eq!(bench.balance(&day).held, 10, "no money for a refused rate");
    // The strong choice has too many tokens; the next one has not.
    let menu = [call(10, 700), call(5, 600)];
    let Ok(Admission::Admitted(second)) = bench.ask(&menu, &[&day], &[&tokens]) else {
        panic!()
    };
    assert_eq!((second.choice, second.amount), (1, 5));
    // More tokens than the limit will never pass, and a refused budget outranks any rate.
    let Ok(Admission::Refused(never)) = bench.ask(&[call(1, 1_001)], &[], &[&tokens]) else {
        panic!()
    };
    assert_eq!((never.retry_after_ns, never.reset_at_ns), (None, None));
    let Ok(Admission::Refused(both)) = bench.ask(&[call(500, 9)], &[&day], &[&per_minute]) else {
        panic!()
    };
    assert_eq!(both.reason, Reason::Budget);
    bench.check_replay();
}

#[test]
fn settling_corrects_tokens_in_their_own_slot() {
    let mut bench = Bench::new();
    let tokens = rate("u", Unit::Tokens, 1_000, MINUTE_NS);
    let requests = rate("u", Unit::Requests, 100, MINUTE_NS);
    let call = Choice {
        tokens: 900,
        ..choice(1)
    };
    let admission = bench.ask(&[call], &[], &[&tokens, &requests]);
    let Ok(Admission::Admitted(Admitted { hold, rates, .. })) = admission else {
        panic!()
    };
    bench.pass(5 * SECOND_NS);
    bench
        .ledger
        .settle(bench.at, hold, &[], Some(250), &mut bench.journal)
        .unwrap();
    let left = |bench: &Bench, rate| bench.ledger.rate_status(bench.at, rate).unwrap().1;
    assert_eq!((left(&bench, rates[0]), left(&bench, rates[1])), (750, 99));
    let admission = bench.ask(&[call], &[], &[&requests]);
    let Ok(Admission::Admitted(released)) = admission else {
        panic!()
    };
    bench
        .ledger
        .release(bench.at, released.hold, &mut bench.journal)
        .unwrap();
    assert_eq!(
        left(&bench, rates[1]),
        98,
        "a request was made all the same"
    );
    bench.check_replay();
}

#[test]
fn a_shadow_notes_and_a_warning_warns() {
    let mut bench = Bench::new();
    let soft = |id, mode| {
        let spec = counter(id, WindowKind::Day, 100);
        CounterSpec {
            policy: Policy {
                mode,
                ..spec.policy
            },
            ..spec
        }
    };
    let (shadow, warn) = (soft("s", Mode::Shadow), soft("w", Mode::Warn));
    let open = RateSpec {
        block: false,
        ..rate("r", Unit::Requests, 1, MINUTE_NS)
    };
    let first = bench
        .ask(&[choice(75)], &[&shadow, &warn], &[&open])
        .unwrap();
    let Admission::Admitted(first) = first else {
        panic!()
    };
    assert!(first.warnings.is_empty() && first.shadow.is_empty());
    bench.settle(first.hold, Outcome::Billed(75));
    let second = bench
        .ask(&[choice(75)], &[&shadow, &warn], &[&open])
        .unwrap();
    let Admission::Admitted(second) = second else {
        panic!()
    };
    let noted: Vec<_> = second
        .shadow
        .iter()
        .map(|refusal| (refusal.reason, &*refusal.id))
        .collect();
    assert_eq!(noted, [(Reason::Budget, "s"), (Reason::Rate, "r")]);
    let warned: Vec<_> = second
        .warnings
        .iter()
        .map(|warning| (&*warning.id, warning.spent, warning.over))
        .collect();
    assert_eq!(warned, [("w", 75, true)]);
    let cheap = bench.admit(0, &[&warn]);
    assert_eq!(cheap.warnings.len(), 1, "three quarters are spent");
    bench.check_replay();
}

#[test]
fn near_the_end_only_cheap_ladders() {
    let mut bench = Bench::new();
    let day = CounterSpec {
        policy: Policy::degrade(1_000),
        ..counter("u", WindowKind::Day, 0)
    };
    let strong = Choice {
        ladder: 1,
        ..choice(50)
    };
    let cheap = Choice {
        ladder: 2,
        cheap: true,
        ..choice(10)
    };
    let take = |bench: &mut Bench, menu: &[Choice<'_>]| bench.ask(menu, &[&day], &[]).unwrap();
    let Admission::Admitted(first) = take(&mut bench, &[choice(900)]) else {
        panic!()
    };
    let Admission::Admitted(next) = take(&mut bench, &[strong, cheap]) else {
        panic!()
    };
    assert_eq!((next.ladder, next.degraded), (2, true));
    let Admission::Refused(refusal) = take(&mut bench, &[strong]) else {
        panic!()
    };
    assert_eq!((refusal.reason, refusal.used), (Reason::Degraded, 910));
    // 88.5% after some came back: still degraded, for it was until now.
    bench.settle(first.hold, Outcome::Billed(875));
    let Admission::Admitted(next) = take(&mut bench, &[strong, cheap]) else {
        panic!()
    };
    assert_eq!(next.ladder, 2);
    bench
        .ledger
        .release(bench.at, next.hold, &mut bench.journal)
        .unwrap();
    let limits = [LimitChange::Set(CounterSpec {
        policy: Policy::degrade(1_100),
        ..day.clone()
    })];
    bench
        .ledger
        .set_limits(bench.at, &limits, false, &mut bench.journal)
        .unwrap();
    let Admission::Admitted(next) = take(&mut bench, &[strong, cheap]) else {
        panic!()
    };
    assert_eq!(
        (next.ladder, next.degraded),
        (1, false),
        "a raised limit takes effect at once"
    );
    bench.check_replay();
}

#[test]
fn what_is_free_passes_a_budget_that_is_used_up() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 10);
    let hold = bench.admit(10, &[&day]).hold;
    let receipt = bench.settle(hold, Outcome::Billed(25));
    assert_eq!(receipt.overrun, 15);
    assert_eq!(bench.refused(1, &[&day]).used, 25);
    bench.admit(0, &[&day]);
    assert_eq!(bench.balance(&day).overrun, 15);
}

#[test]
fn the_same_key_is_the_same_hold() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 100);
    let ask = |bench: &mut Bench, key: u8, body: u8| {
        let demand = Demand {
            menu: &[choice(30)],
            counters: &[CounterRef::Spec(&day)],
            rates: &[],
            idempotency: Some(Idempotency {
                key: [key; 16],
                body: [body; 16],
            }),
            price_hash: 0,
            label: None,
        };
        bench.ledger.admit(bench.at, &demand, &mut bench.journal)
    };
    let Ok(Admission::Admitted(first)) = ask(&mut bench, 1, 1) else {
        panic!()
    };
    let Ok(Admission::Existing(same)) = ask(&mut bench, 1, 1) else {
        panic!()
    };
    assert_eq!(
        (same.hold, same.amount, same.state),
        (first.hold, 30, HoldState::Open)
    );
    assert_eq!(
        ask(&mut bench, 1, 2),
        Err(LedgerError::Conflict(first.hold))
    );
    bench.settle(first.hold, Outcome::Billed(20));
    let Ok(Admission::Existing(settled)) = ask(&mut bench, 1, 1) else {
        panic!()
    };
    assert_eq!(settled.state, HoldState::Settled);
    assert_eq!((bench.balance(&day).used(), bench.journal.len()), (20, 2));
    bench.pass(KEY_LIFETIME_NS - 1);
    assert!(matches!(ask(&mut bench, 1, 1), Ok(Admission::Existing(_))));
    bench.pass(1);
    assert!(
        matches!(ask(&mut bench, 1, 1), Ok(Admission::Admitted(_))),
        "a day later it is new"
    );
    assert_eq!(bench.ledger.census().keys, 1);
    bench.check_replay();
}

#[test]
fn attempts_are_covered_by_their_hold() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 1_000);
    let ladder = Choice {
        rungs: &[30, 70],
        ..choice(100)
    };
    let Ok(Admission::Admitted(Admitted { hold, .. })) = bench.ask(&[ladder], &[&day], &[]) else {
        panic!()
    };
    let Bench {
        ledger,
        journal,
        at,
    } = &mut bench;
    assert_eq!(ledger.dispatch(hold, 0, None, journal), Ok(0));
    assert_eq!(
        ledger.dispatch(hold, 0, Some(71), journal),
        Err(LedgerError::BeyondHold { hold, left: 70 }),
        "the first may have been billed"
    );
    ledger
        .end_attempt(hold, 0, Outcome::NotBilled, journal)
        .unwrap();
    assert_eq!(ledger.dispatch(hold, 0, None, journal), Ok(1));
    ledger
        .end_attempt(hold, 1, Outcome::Billed(12), journal)
        .unwrap();
    assert_eq!(
        ledger.shrink(*at, hold, 11, journal),
        Err(LedgerError::MayBeBilled(hold))
    );
    assert_eq!(
        ledger.shrink(*at, hold, 101, journal),
        Err(LedgerError::BeyondHold { hold, left: 100 })
    );
    ledger.shrink(*at, hold, 82, journal).unwrap();
    assert_eq!(ledger.dispatch(hold, 1, None, journal), Ok(2));
    assert!(
        ledger.dispatch(hold, 7, None, journal).is_err(),
        "no such rung"
    );
    assert_eq!(
        ledger.dispatch(hold, 0, Some(-1), journal),
        Err(LedgerError::NegativeAmount(-1))
    );
    assert_eq!(
        ledger.end_attempt(hold, 9, Outcome::NotBilled, journal),
        Err(LedgerError::NoSuchAttempt(hold))
    );
    assert_eq!(
        ledger.release(*at, hold, journal),
        Err(LedgerError::MayBeBilled(hold))
    );
    // The third is not in the settlement, so it is charged until there is evidence.
    let receipt = ledger.settle(*at, hold, &[], None, journal).unwrap();
    assert_eq!(
        (receipt.posted, receipt.unknown, receipt.overrun),
        (12, 70, 0)
    );
    assert_eq!(receipt.state, HoldState::Unknown);
    let receipt = ledger.adjust(*at, hold, Some(40), 25, journal).unwrap();
    assert_eq!(
        (receipt.state, receipt.unknown, receipt.returned),
        (HoldState::Unknown, 30, 15)
    );
    assert_eq!(
        ledger.adjust(*at, hold, Some(31), 0, journal),
        Err(LedgerError::NothingUnknown(hold))
    );
    let receipt = ledger.adjust(*at, hold, None, 33, journal).unwrap();
    assert_eq!((receipt.state, receipt.overrun), (HoldState::Adjusted, 3));
    let balance = Balance {
        posted: 70,
        overrun: 3,
        ..Balance::default()
    };
    assert_eq!(bench.balance(&day), balance);
    bench.check_replay();
}

#[test]
fn a_hold_resolves_once() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 1_000);
    let hold = bench.admit(10, &[&day]).hold;
    let unknown = bench.admit(20, &[&day]).hold;
    bench.settle(hold, Outcome::Billed(10));
    let Bench {
        ledger,
        journal,
        at,
    } = &mut bench;
    ledger.mark_unknown(*at, unknown, journal).unwrap();
    let length = journal.len();
    assert_eq!(
        ledger.release(*at, hold, journal),
        Err(LedgerError::AlreadyResolved(hold))
    );
    assert_eq!(
        ledger.settle(*at, 77, &[], None, journal),
        Err(LedgerError::NoSuchHold(77))
    );
    assert_eq!(
        ledger.settle(*at, 0, &[], None, journal),
        Err(LedgerError::NoSuchHold(0))
    );
    assert_eq!(
        ledger.settle(*at, unknown, &[], None, journal),
        Err(LedgerError::ChargedAsUnknown(unknown))
    );
    assert_eq!(
        ledger.adjust(*at, hold, None, 1, journal),
        Err(LedgerError::AlreadyResolved(hold))
    );
    assert_eq!(
        ledger.adjust(*at, unknown, None, -1, journal),
        Err(LedgerError::NegativeAmount(-1))
    );
    assert_eq!(journal.len(), length, "errors leave no record");
    assert_eq!(ledger.unresolved_holds().len(), 1);
    assert_eq!(ledger.hold_status(hold), None);
}

#[test]
fn one_call_resolves_what_is_unknown() {
    let mut bench = Bench::new();
    let total = counter("u", WindowKind::Total, 1_000);
    for _ in 0..3 {
        let hold = bench.admit(101, &[&total]).hold;
        bench
            .ledger
            .mark_unknown(bench.at, hold, &mut bench.journal)
            .unwrap();
        bench.pass(HOUR_NS);
    }
    let census = bench.ledger.census();
    assert_eq!((census.holds_unknown, census.unknown), (3, 303));
    let resolve = |bench: &mut Bench, age_ns, share_bp| {
        bench
            .ledger
            .resolve_unknowns(bench.at, age_ns, share_bp, &mut bench.journal)
            .unwrap()
    };
    assert_eq!(
        resolve(&mut bench, 2 * HOUR_NS, 5_000),
        (2, 202),
        "old ones, at half, rounded up"
    );
    assert_eq!(
        bench.balance(&total),
        Balance {
            posted: 102,
            unknown: 101,
            ..Balance::default()
        }
    );
    assert_eq!(resolve(&mut bench, 0, 0), (1, 101));
    assert_eq!(bench.balance(&total).used(), 102);
    bench.check_replay();
}

#[test]
fn late_evidence_changes_the_original_window() {
    let mut bench = Bench::new();
    let (day, month) = (
        counter("u", WindowKind::Day, 1_000),
        counter("u", WindowKind::Month, 1_000),
    );
    let first = bench.admit(100, &[&day, &month]).hold;
    let status = bench.ledger.counters_of(bench.at, None).collect::<Vec<_>>();
    let windows: Vec<PastWindow> = status
        .into_iter()
        .map(|status| PastWindow {
            key: status.key,
            start_ns: status.bounds.start_ns,
        })
        .collect();
    let late = |bench: &mut Bench, hold, posted| {
        bench
            .ledger
            .adjust_late(bench.at, hold, &windows, posted, &mut bench.journal)
    };
    assert!(late(&mut bench, first, 1).is_err(), "it is not settled");
    bench.settle(first, Outcome::Billed(60));
    late(&mut bench, first, 7).unwrap();
    assert_eq!(
        bench.balance(&day),
        Balance {
            posted: 67,
            overrun: 7,
            ..Balance::default()
        }
    );
    assert_eq!(
        late(&mut bench, first, -68),
        Err(LedgerError::Overflow),
        "below zero"
    );
    bench.pass(DAY_NS);
    bench.admit(1, &[&day, &month]);
    assert_eq!(bench.ledger.take_window_totals().len(), 1);
    late(&mut bench, first, -5).unwrap();
    assert_eq!(
        (bench.balance(&day).used(), bench.balance(&month).used()),
        (1, 63)
    );
    let forgotten = bench.ledger.take_late_totals();
    assert_eq!(forgotten.len(), 1);
    assert_eq!((&forgotten[0].key, forgotten[0].posted), (&day.key, -5));
    bench.check_replay();
}

#[test]
fn limits_come_and_go_and_spend_stays() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 100);
    let hold = bench.admit(80, &[&day]).hold;
    let set = |bench: &mut Bench, changes: &[LimitChange], reload| {
        bench
            .ledger
            .set_limits(bench.at, changes, reload, &mut bench.journal)
            .unwrap()
    };
    let with = |limit, origin| {
        let policy = Policy {
            limit: Some(limit),
            origin,
            ..day.policy
        };
        LimitChange::Set(CounterSpec {
            policy,
            ..day.clone()
        })
    };
    set(&mut bench, &[with(50, Origin::Profile)], false);
    assert_eq!(
        bench.balance(&day).held,
        80,
        "a lowered limit stops only what is new"
    );
    assert_eq!(bench.refused(1, &[&day]).limit, 50);
    assert_eq!(bench.settle(hold, Outcome::Billed(70)).overrun, 0);
    set(&mut bench, &[with(90, Origin::Api)], false);
    bench.admit(20, &[&day]);
    let merged = [with(90, Origin::Api)];
    assert_eq!(set(&mut bench, &merged, true), 1);
    assert_eq!(bench.refused(1, &[&day]).limit, 90);
    assert_eq!(set(&mut bench, &[], true), 1, "nobody says 90 any more");
    bench.admit(1_000_000, &[&day]);
    assert_eq!(bench.balance(&day).used(), 1_000_090);
    set(&mut bench, &[with(2_000_000, Origin::File)], true);
    assert_eq!(bench.refused(999_911, &[&day]).used, 1_000_090);
    assert_eq!(
        set(&mut bench, &[], true),
        1,
        "it is not in the file any more"
    );
    bench.admit(5_000_000, &[&day]);
    // What a limit creates can be charged by its key.
    let team = CounterSpec {
        key: key(ScopeKind::Team, "t", WindowKind::Total, "UTC"),
        ..day.clone()
    };
    let tokens = rate("t", Unit::Tokens, 10, MINUTE_NS);
    let twice = [
        LimitChange::Set(team.clone()),
        LimitChange::Set(team.clone()),
    ];
    assert_eq!(set(&mut bench, &twice, false), 1);
    let changes = [
        LimitChange::SetRate(tokens.clone()),
        LimitChange::SetRate(tokens.clone()),
    ];
    assert_eq!(set(&mut bench, &changes, false), 1);
    assert_eq!(set(&mut bench, &changes[..1], false), 1);
    assert_eq!(bench.ledger.census().counters, 2);
    bench.check_replay();
}

#[test]
fn a_retired_run_is_forgotten_when_nothing_is_open() {
    let mut bench = Bench::new();
    let run = CounterSpec {
        key: key(ScopeKind::Run, "r", WindowKind::Total, "UTC"),
        ..counter("", WindowKind::Total, 100)
    };
    let hold = bench.admit(10, &[&run]).hold;
    let sweep = |bench: &mut Bench| {
        bench
            .ledger
            .sweep(bench.at, SweepPlace::default(), 10, &mut bench.journal)
            .unwrap();
        bench.ledger.census().runs
    };
    let retire = [LimitChange::Retire(run.key.clone())];
    bench
        .ledger
        .set_limits(bench.at, &retire, false, &mut bench.journal)
        .unwrap();
    assert_eq!(sweep(&mut bench), 1, "a hold is open");
    bench
        .ledger
        .mark_unknown(bench.at, hold, &mut bench.journal)
        .unwrap();
    assert_eq!(sweep(&mut bench), 1, "a charge is unknown");
    bench
        .ledger
        .adjust(bench.at, hold, None, 4, &mut bench.journal)
        .unwrap();
    assert_eq!(sweep(&mut bench), 0);
    let totals = bench.ledger.take_window_totals();
    assert_eq!(totals.last().map(|total| total.balance.posted), Some(4));
    bench.check_replay();
}

#[test]
fn numbers_are_capped() {
    let capacity = Capacity {
        counters_max: 4,
        rates_max: 1,
        users_max: 2,
        runs_max: 1,
        holds_max: 3,
        keys_max: 1,
    };
    let mut bench = Bench {
        ledger: Ledger::new(capacity),
        ..Bench::new()
    };
    let full = |what| Err(LedgerError::Full { what, max: 0 });
    let kind = |answer: Result<Admission, LedgerError>| match answer {
        Err(LedgerError::Full { what, .. }) => full(what),
        other => other.map(|_| ()),
    };
    let (a, b, c) = (
        counter("a", WindowKind::Day, 9),
        counter("b", WindowKind::Day, 9),
        counter("c", WindowKind::Day, 9),
    );
    let run = |id: &str| CounterSpec {
        key: key(ScopeKind::Run, id, WindowKind::Day, "UTC"),
        ..a.clone()
    };
    let team = CounterSpec {
        key: key(ScopeKind::Team, "t", WindowKind::Day, "UTC"),
        ..a.clone()
    };
    let menu = [choice(1)];
    assert_eq!(kind(bench.ask(&menu, &[&a, &b, &c], &[])), full("users"));
    assert_eq!(
        kind(bench.ask(&menu, &[&run("1"), &run("2")], &[])),
        full("runs")
    );
    bench.admit(1, &[&a, &b, &run("1"), &team]);
    let (first, second) = (
        rate("a", Unit::Tokens, 5, MINUTE_NS),
        rate("b", Unit::Tokens, 5, MINUTE_NS),
    );
    assert_eq!(
        kind(bench.ask(&menu, &[], &[&first, &second])),
        full("rates")
    );
    let month = counter("a", WindowKind::Month, 9);
    assert_eq!(kind(bench.ask(&menu, &[&month], &[])), full("counters"));
    bench.admit(1, &[&a]);
    bench.admit(1, &[&a]);
    assert_eq!(kind(bench.ask(&menu, &[&a], &[])), full("open holds"));
    bench.settle(1, Outcome::NotBilled);
    bench.admit(1, &[&a]);
    bench.check_replay();
}

#[test]
fn nonsense_is_an_error_and_changes_nothing() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 100);
    let minute = rate("u", Unit::Requests, 9, MINUTE_NS);
    let one = [choice(1)];
    assert_eq!(bench.ask(&[], &[&day], &[]), Err(LedgerError::EmptyMenu));
    assert_eq!(
        bench.ask(&[choice(-1)], &[&day], &[]),
        Err(LedgerError::NegativeAmount(-1))
    );
    let below = Choice {
        rungs: &[5, -2],
        ..choice(1)
    };
    assert_eq!(
        bench.ask(&[below], &[&day], &[]),
        Err(LedgerError::NegativeAmount(-2))
    );
    assert_eq!(
        bench.ask(&one, &[&day, &day], &[]),
        Err(LedgerError::SameCounter(1))
    );
    assert_eq!(
        bench.ask(&one, &[], &[&minute, &minute]),
        Err(LedgerError::SameRate(1))
    );
    let mars = CounterSpec {
        key: key(ScopeKind::User, "u", WindowKind::Day, "Mars"),
        ..day.clone()
    };
    assert_eq!(
        bench.ask(&one, &[&mars], &[]),
        Err(LedgerError::UnknownZone("Mars".into()))
    );
    let many: Vec<CounterSpec> = (0..=MAX_COUNTERS)
        .map(|n| counter(&n.to_string(), WindowKind::Day, 1))
        .collect();
    let too_many = bench.ask(&one, &many.iter().collect::<Vec<_>>(), &[]);
    assert_eq!(
        too_many,
        Err(LedgerError::TooMany {
            what: "counters",
            max: MAX_COUNTERS
        })
    );
    let soft = CounterSpec {
        policy: Policy {
            block_bp: 20_000,
            ..day.policy
        },
        ..day.clone()
    };
    assert!(matches!(
        bench.ask(&one, &[&soft], &[]),
        Err(LedgerError::Invalid(_))
    ));
    let long = counter(&"x".repeat(MAX_NAME_BYTES + 1), WindowKind::Day, 1);
    assert!(matches!(
        bench.ask(&one, &[&long], &[]),
        Err(LedgerError::Invalid(_))
    ));
    let instant = rate("u", Unit::Tokens, 1, 1);
    assert!(matches!(
        bench.ask(&one, &[], &[&instant]),
        Err(LedgerError::Invalid(_))
    ));
    let free = CounterSpec {
        policy: Policy::unlimited(),
        ..day.clone()
    };
    assert_eq!(
        bench.ledger.census(),
        Census {
            next_hold: 1,
            ..Census::default()
        }
    );
    bench.admit(i64::MAX, &[&free]);
    assert_eq!(bench.ask(&one, &[&free], &[]), Err(LedgerError::Overflow));
    let hold = 1;
    let twice = [Outcome::Billed(i64::MAX), Outcome::Billed(1)].map(|outcome| AttemptResult {
        attempt: None,
        outcome,
    });
    let Bench {
        ledger,
        journal,
        at,
    } = &mut bench;
    assert_eq!(
        ledger.settle(*at, hold, &twice, None, journal),
        Err(LedgerError::Overflow)
    );
    let below = [AttemptResult {
        attempt: None,
        outcome: Outcome::Unknown(-4),
    }];
    assert_eq!(
        ledger.settle(*at, hold, &below, None, journal),
        Err(LedgerError::NegativeAmount(-4))
    );
    let no_such = [AttemptResult {
        attempt: Some(3),
        outcome: Outcome::NotBilled,
    }];
    assert_eq!(
        ledger.settle(*at, hold, &no_such, None, journal),
        Err(LedgerError::NoSuchAttempt(1))
    );
    for error in [
        LedgerError::Overflow,
        LedgerError::Inconsistent,
        LedgerError::MayBeBilled(1),
    ] {
        assert!(!error.to_string().is_empty());
    }
    bench.check_replay();
}

#[test]
fn thresholds_are_told_once() {
    let mut bench = Bench::new();
    let day = counter("u", WindowKind::Day, 100);
    let crossed = |bench: &mut Bench, amount| {
        let hold = bench.admit(amount, &[&day]).hold;
        let receipt = bench.settle(hold, Outcome::Billed(amount));
        receipt
            .crossings
            .iter()
            .map(|crossing| crossing.threshold_bp)
            .collect::<Vec<_>>()
    };
    assert_eq!(crossed(&mut bench, 69), Vec::<u16>::new());
    assert_eq!(crossed(&mut bench, 1), [7_000]);
    assert_eq!(crossed(&mut bench, 10), Vec::<u16>::new());
    assert_eq!(crossed(&mut bench, 20), [9_000, 10_000]);
}

#[test]
fn peeking_shows_every_limit_and_takes_nothing() {
    let mut bench = Bench::new();
    let (day, free) = (
        counter("u", WindowKind::Day, 100),
        CounterSpec {
            policy: Policy::unlimited(),
            ..counter("u", WindowKind::Total, 0)
        },
    );
    let bucket = RateKey {
        method: Method::TokenBucket,
        ..rate("u", Unit::Requests, 1, MINUTE_NS).key
    };
    let bucket = RateSpec {
        key: bucket,
        limit: 2,
        block: true,
    };
    bench
        .ask(&[choice(70)], &[&day, &free], &[&bucket])
        .unwrap();
    let before = bench.ledger.snapshot();
    let counters = [CounterRef::Spec(&day), CounterRef::Spec(&free)];
    let menu = [choice(40), choice(30)];
    let demand = Demand {
        menu: &menu,
        counters: &counters,
        rates: &[RateRef::Spec(&bucket)],
        idempotency: None,
        price_hash: 0,
        label: None,
    };
    let peek = bench.ledger.peek(bench.at, &demand).unwrap();
    assert_eq!(peek.outcome, Ok(1));
    let seen: Vec<_> = peek
        .limits
        .iter()
        .map(|view| (view.limit, view.used, view.remaining, view.fits))
        .collect();
    let expected = [
        (Some(100), 70, Some(30), true),
        (None, 70, None, true),
        (Some(2), 1, Some(1), true),
    ];
    assert_eq!(seen, expected);
    assert_eq!(peek.limits[0].reset_at_ns, Some(START + 12 * HOUR_NS));
    let refused = Demand {
        menu: &menu[..1],
        ..demand
    };
    let peek = bench.ledger.peek(bench.at, &refused).unwrap();
    assert_eq!(
        peek.outcome.map_err(|refusal| refusal.reason),
        Err(Reason::Budget)
    );
    assert_eq!(bench.ledger.snapshot(), before);
    let of_user = bench
        .ledger
        .counters_of(bench.at, Some((ScopeKind::User, &name("u"))))
        .count();
    let of_nobody = bench
        .ledger
        .counters_of(bench.at, Some((ScopeKind::User, &name("x"))))
        .count();
    assert_eq!((of_user, of_nobody), (2, 0));
}

/// A thousand calls from eight threads race for one budget; the ledger is behind one lock.
#[test]
fn a_thousand_calls_for_one_budget() {
    let bench = std::sync::Mutex::new(Bench::new());
    let day = counter("u", WindowKind::Day, 1_000);
    let admitted: i64 = std::thread::scope(|scope| {
        let caller = |caller: i64| {
            let (bench, day) = (&bench, &day);
            move || {
                let mut sum = 0;
                for round in 0..125 {
                    let amount = (caller * 7 + round) % 13;
                    let mut bench = bench.lock().unwrap();
                    match bench.ask(&[choice(amount)], &[day], &[]).unwrap() {
                        Admission::Admitted(_) => sum += amount,
                        Admission::Refused(_) => {}
                        Admission::Existing(existing) => panic!("{existing:?}"),
                    }
                }
                sum
            }
        };
        let callers: Vec<_> = (0..8).map(|number| scope.spawn(caller(number))).collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .sum()
    });
    let bench = bench.into_inner().unwrap();
    assert!((989..=1_000).contains(&admitted), "{admitted}");
    assert_eq!(bench.balance(&day).held, admitted);
    bench.check_replay();
}

#[test]
fn a_gap_is_charged_whatever_the_limits_say_until_there_is_evidence() {
    let mut bench = Bench::new();
    let (day, total) = (
        counter("u", WindowKind::Day, 100),
        counter("u", WindowKind::Total, 1_000),
    );
    bench.admit(30, &[&day]);
    let label = Label::new("gap after record 7", "u", "").unwrap();
    let both = [CounterRef::Spec(&day), CounterRef::Spec(&total)];
    let Bench {
        ledger,
        journal,
        at,
    } = &mut bench;
    let mut charge = |amount, counters: &[CounterRef<'_>]| {
        ledger.charge_gap(*at, 7, counters, amount, &label, journal)
    };
    assert!(charge(-1, &both).is_err());
    assert!(charge(1, &[]).is_err());
    let hold = charge(90, &both).unwrap().unwrap();
    assert_eq!(charge(0, &both), Ok(None), "that was all");
    bench.check_replay();
    let (tight, wide) = (bench.balance(&day), bench.balance(&total));
    assert_eq!((tight.held, tight.unknown, tight.overrun), (30, 90, 20));
    assert_eq!((wide.held, wide.unknown, wide.overrun), (0, 90, 0));
    bench.refused(1, &[&day]);
    let status = bench.ledger.hold_status(hold).unwrap();
    assert_eq!(
        (status.state, status.unknown, status.label),
        (HoldState::Unknown, 90, Some(label.clone()))
    );
    let Bench {
        ledger,
        journal,
        at,
    } = &mut bench;
    ledger.adjust(*at, hold, None, 25, journal).unwrap();
    bench.check_replay();
    assert_eq!(bench.balance(&day).posted, 25);
    assert_eq!(bench.balance(&total).unknown, 0);
    let next = bench.admit(45, &[&day]).hold;
    assert!(
        next > hold + NUMBERS_SKIPPED,
        "no number of a lost hold again"
    );
}
