//! What a reservation and its settlement cost, with a million users in the ledger.

use std::hint::black_box;
use std::time::Instant;

use cascaded_core::ledger::{
    Admission, AttemptResult, Capacity, Choice, CounterKey, CounterRef, CounterSpec, Demand,
    Handle, Label, Ledger, Outcome, Policy, RateKey, RateRef, RateSpec, Record, ScopeKind, Unit,
};
use cascaded_core::limiter::Method;
use cascaded_core::window::{Stamp, WindowKind, HOUR_NS, MINUTE_NS, SECOND_NS};
use criterion::{criterion_group, criterion_main, Criterion};

const USERS: usize = 1_000_000;
const START: i64 = 1_780_401_600 * SECOND_NS;
const LIMIT: i64 = 1_000_000 * 1_000_000_000;

fn counter(scope: ScopeKind, id: &str, window: WindowKind) -> CounterSpec {
    let key = CounterKey {
        scope,
        id: id.into(),
        window,
        zone: "UTC".into(),
    };
    CounterSpec {
        key,
        policy: Policy::degrade(LIMIT),
    }
}

fn rate(id: &str, unit: Unit, window_ns: i64) -> RateSpec {
    let (scope, method) = (ScopeKind::User, Method::SlidingWindow);
    let key = RateKey {
        scope,
        id: id.into(),
        unit,
        method,
        window_ns,
    };
    RateSpec {
        key,
        limit: u32::MAX,
        block: true,
    }
}

/// Six scopes with three windows each: 18 counters, and two rates.
fn demand_of(user: usize) -> (Vec<CounterSpec>, Vec<RateSpec>) {
    let id = format!("user-{user:07}");
    let organisation = format!("org-{}", user % 100);
    let workspace = format!("ws-{}", user % 1_000);
    let team = format!("team-{}", user % 500);
    let scopes = [
        (ScopeKind::Global, ""),
        (ScopeKind::Organisation, organisation.as_str()),
        (ScopeKind::Workspace, workspace.as_str()),
        (ScopeKind::Team, team.as_str()),
        (ScopeKind::Tier, "pro"),
        (ScopeKind::User, id.as_str()),
    ];
    let windows = [WindowKind::Day, WindowKind::Month, WindowKind::Total];
    let counters = scopes
        .iter()
        .flat_map(|(scope, id)| windows.map(|window| counter(*scope, id, window)))
        .collect();
    let rates = vec![
        rate(&id, Unit::Requests, MINUTE_NS),
        rate(&id, Unit::Tokens, HOUR_NS),
    ];
    (counters, rates)
}

fn admit(ledger: &mut Ledger, at: Stamp, demand: &Demand<'_>, sink: &mut Vec<u8>) -> Admission {
    sink.clear();
    ledger.admit(at, demand, sink).expect("a good demand")
}

struct Caller {
    counters: Vec<Handle>,
    rates: Vec<Handle>,
}

/// A ledger with every user's day and month, and a sample of users with all their handles.
fn crowded() -> (Ledger, Vec<Caller>) {
    let mut ledger = Ledger::new(Capacity::default());
    let menu = [Choice {
        ladder: 0,
        amount: 0,
        rungs: &[],
        cheap: true,
        tokens: 0,
    }];
    let mut sink = Vec::new();
    let mut hold = 0;
    let mut reserve = |ledger: &mut Ledger, counters: &[CounterSpec], rates: &[RateSpec]| {
        let counters: Vec<_> = counters.iter().map(CounterRef::Spec).collect();
        let rates: Vec<_> = rates.iter().map(RateRef::Spec).collect();
        let demand = Demand {
            menu: &menu,
            counters: &counters,
            rates: &rates,
            idempotency: None,
            price_hash: 0,
            label: None,
        };
        let admission = admit(ledger, Stamp::at(START), &demand, &mut sink);
        let Admission::Admitted(admitted) = admission else {
            panic!("{admission:?}")
        };
        hold = admitted.hold;
        ledger
            .release(Stamp::at(START), hold, &mut sink)
            .expect("an open hold");
        Caller {
            counters: admitted.counters,
            rates: admitted.rates,
        }
    };
    for user in 0..USERS {
        let id = format!("user-{user:07}");
        let own = [WindowKind::Day, WindowKind::Month].map(|w| counter(ScopeKind::User, &id, w));
        reserve(&mut ledger, &own, &[]);
    }
    let sample = (0..USERS).step_by(97).map(|user| {
        let (counters, rates) = demand_of(user);
        reserve(&mut ledger, &counters, &rates)
    });
    let sample = sample.collect();
    (ledger, sample)
}

fn admit_and_settle(c: &mut Criterion) {
    let (mut ledger, callers) = crowded();
    let demands: Vec<(Vec<CounterRef<'_>>, Vec<RateRef<'_>>)> = callers
        .iter()
        .map(|caller| {
            let counters = caller
                .counters
                .iter()
                .map(|handle| CounterRef::Handle(*handle));
            let rates = caller.rates.iter().map(|handle| RateRef::Handle(*handle));
            (counters.collect(), rates.collect())
        })
        .collect();
    let rungs = [2_000_000, 3_000_000];
    let menu = [
        Choice {
            ladder: 1,
            amount: 5_000_000,
            rungs: &rungs,
            cheap: false,
            tokens: 900,
        },
        Choice {
            ladder: 2,
            amount: 1_000_000,
            rungs: &rungs[..1],
            cheap: true,
            tokens: 900,
        },
    ];
    let label = Label::new("0123456789abcdef01234567", "user-0000001", "").expect("short");
    let mut number = 0;
    let mut now = START;
    let mut sink: Vec<u8> = Vec::with_capacity(1_024);
    // Returns how long the admission alone took, in nanoseconds.
    let mut call = || {
        // A stride that touches another user's memory each time.
        number = (number + 7_919) % demands.len();
        now += 150_000;
        let (counters, rates) = &demands[number];
        let demand = Demand {
            menu: &menu,
            counters,
            rates,
            idempotency: None,
            price_hash: 7,
            label: Some(&label),
        };
        let at = Stamp::at(now);
        let begin = Instant::now();
        let admission = admit(&mut ledger, at, &demand, &mut sink);
        let took = begin.elapsed();
        let Admission::Admitted(admitted) = &admission else {
            panic!("{admission:?}")
        };
        let result = AttemptResult {
            attempt: None,
            outcome: Outcome::Billed(1_234_567),
        };
        sink.clear();
        let settled = ledger.settle(at, admitted.hold, &[result], Some(300), &mut sink);
        black_box(settled.expect("an open hold"));
        took.as_nanos()
    };
    let mut took: Vec<u128> = (0..200_000).map(|_| call()).collect();
    took.sort_unstable();
    println!(
        "admit alone, 18 counters + 2 rates, {} users: median {} ns, p99 {} ns",
        USERS,
        took[took.len() / 2],
        took[took.len() * 99 / 100]
    );
    c.bench_function("admit + settle, 18 counters, 2 rates, 1M users", |b| {
        b.iter(&mut call)
    });
}

fn codec(c: &mut Criterion) {
    let mut ledger = Ledger::new(Capacity::default());
    let label = Label::new("0123456789abcdef01234567", "user-0000001", "").expect("short");
    let (counters, rates) = demand_of(1);
    let menu = [Choice {
        ladder: 0,
        amount: 5,
        rungs: &[],
        cheap: true,
        tokens: 9,
    }];
    let mut records: Vec<Record> = Vec::new();
    for _ in 0..2 {
        let counters: Vec<_> = counters.iter().map(CounterRef::Spec).collect();
        let rates: Vec<_> = rates.iter().map(RateRef::Spec).collect();
        let demand = Demand {
            menu: &menu,
            counters: &counters,
            rates: &rates,
            idempotency: None,
            price_hash: 7,
            label: Some(&label),
        };
        ledger
            .admit(Stamp::at(START), &demand, &mut records)
            .expect("a good demand");
    }
    let mut bytes = Vec::new();
    records[1].encode(&mut bytes);
    println!(
        "a reservation of 18 counters and 2 rates: {} bytes",
        bytes.len()
    );
    c.bench_function("decode a reservation", |b| {
        b.iter(|| Record::decode(black_box(&bytes)))
    });
}

criterion_group!(benches, admit_and_settle, codec);
criterion_main!(benches);
