//! Which calls wait for the disk, and what is charged for those that did not.

use super::*;
use crate::Entry;

fn entry(engine: &Engine, limits: &LimitSet, amount: i64) -> Entry {
    let entry = engine.admit(limits, &[choice(amount)], None, 0, None);
    entry.expect("a good demand")
}

fn clear(engine: &Engine, limits: &LimitSet, amount: i64) -> bool {
    entry(engine, limits, amount).clear
}

fn soft(engine: &Engine) -> LimitSet {
    engine.compile(vec![], vec![]).expect("good limits")
}

#[test]
fn a_call_waits_until_a_ceiling_on_the_disk_covers_it() {
    let root = tempfile::tempdir().expect("room");
    let (engine, _) = open(root.path(), &clock());
    let set = limits(&engine, "u");
    assert!(!clear(&engine, &set, 10), "nothing is on the disk yet");
    settle_down(&engine);
    assert!(clear(&engine, &set, 10));
    assert!(clear(&engine, &set, 0), "what is free costs nothing");
    settle_down(&engine);
    assert!(!clear(&engine, &set, 900), "more than any so far");
    settle_down(&engine);
    assert!(
        clear(&engine, &soft(&engine), 900),
        "without limits, all calls' counter covers it"
    );
    let stats = engine.stats().expect("sound");
    assert_eq!((stats.admitted, stats.gated), (5, 2));
    assert!(stats.flush_at_start.is_some());
}

#[test]
fn behind_the_strict_gate_only_hard_limits_wait() {
    let root = tempfile::tempdir().expect("room");
    let strict = Config {
        gate: Gate::Strict,
        ..config()
    };
    let (engine, _) = Engine::open(root.path(), &strict, Box::new(clock())).expect("sound");
    let hard = limits(&engine, "u");
    for _ in 0..2 {
        assert!(!clear(&engine, &hard, 10));
        assert!(clear(&engine, &soft(&engine), 10));
        settle_down(&engine);
    }
    let found = reopen(&engine, root.path(), &root.path().join("after"));
    assert_eq!(found.1.lost, 0);
}

fn reopen(engine: &Engine, from: &Path, to: &Path) -> (Engine, crate::Recovered) {
    settle_down(engine);
    let copy = tempfile::tempdir().expect("room");
    crash(from, copy.path());
    crash(copy.path(), to);
    open(to, &clock())
}

#[test]
fn a_crash_charges_the_ceilings_once_and_evidence_gives_them_back() {
    let root = tempfile::tempdir().expect("room");
    let dir = |name: &str| root.path().join(name);
    let (engine, _) = open(&dir("first"), &clock());
    let set = limits(&engine, "u");
    entry(&engine, &set, 10);
    let (second, found) = reopen(&engine, &dir("first"), &dir("second"));
    assert_eq!(
        (found.charged, found.lost),
        (1, 20),
        "twice the largest hold"
    );
    assert_eq!(second.spend().expect("sound").unknown, 30);
    let (third, found) = reopen(&second, &dir("second"), &dir("third"));
    assert_eq!((found.charged, found.lost), (0, 0));
    let lost = third.unresolved().expect("sound");
    let lost = lost.iter().find(|hold| hold.lost).expect("listed");
    assert_eq!((lost.unknown, lost.counters.len()), (20, 4));
    let whose = cascaded_core::ledger::ScopeEvidence {
        scope: ScopeKind::User,
        id: "u",
        posted: 3,
    };
    let found = third.adjust(lost.hold, 7, &[whose]).expect("unknown");
    assert_eq!((found.receipt.posted, found.receipt.returned), (7, 13));
    let posted = |kind| {
        let found = third.counters(Some(kind), None).expect("sound");
        found.iter().map(|one| one.balance.posted).max()
    };
    assert_eq!(posted(ScopeKind::User), Some(3));
    assert_eq!(posted(ScopeKind::Global), Some(7));
    assert_eq!(third.spend().expect("sound").unknown, 10, "the open hold's");
    assert!(third.adjust(lost.hold, 7, &[]).is_err(), "once");
}

#[test]
fn an_orderly_end_and_an_idle_minute_leave_nothing_to_charge() {
    let root = tempfile::tempdir().expect("room");
    let dir = |name: &str| root.path().join(name);
    let clock = clock();
    let (engine, _) = open(&dir("first"), &clock);
    let set = limits(&engine, "u");
    let hold = admit(&engine, &set, 10).expect("room");
    engine.settle(hold, &[billed(4)], None).expect("held");
    clock.advance(61 * SECOND_NS);
    engine.checkpoint().expect("a sound disk");
    assert!(!clear(&engine, &set, 10), "it was taken back");
    let hold = admit(&engine, &set, 10).expect("room");
    engine.settle(hold, &[billed(4)], None).expect("held");
    engine.close().expect("a sound disk");
    let (again, found) = open(&dir("first"), &clock);
    assert_eq!((found.charged, found.lost), (1, 0));
    again.close().expect("a sound disk");
}
